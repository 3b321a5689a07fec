"""Residual layers as `nn.Module`s: parameters that PyTorch owns, in its conventions, and one operator for a whole stack.

Weights are (out, in) as an `nn.Linear`'s, and norms have the names and the running statistics of `nn.BatchNorm1d`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .._core import activations
from .._errors import DTypeError, ShapeError
from ..checks import as_integer
from ..layers import Layer
from ..losses import Loss
from ..network import Network
from .block import residual
from .shared import DTYPE_NAMES, STORED, autocast_dtype, is_autocast, stored_float32
from .stack_loss import stack_loss
from .stack_operators import describe, room, stack, values_of

Tensor = torch.Tensor


def _place(name: str) -> tuple[int, str]:
    """Index of the layer, and the attribute there, of a parameter of `rc.Network`."""
    number, _, rest = name.partition(".")
    return int(number) - 1, rest.replace(".", "_")


def _key(name: str) -> str:
    """The same in a state dict."""
    number, attribute = _place(name)
    return f"layers.{number}.{attribute}"


def _checked_dtype(operation: str, dtype: Any) -> torch.dtype:
    kind: torch.dtype = torch.get_default_dtype() if dtype is None else dtype
    if kind not in DTYPE_NAMES:
        raise DTypeError(f"{operation}: dtype must be torch.float32, torch.float64 or torch.bfloat16, got {kind}")
    return kind


class ResidualLayer(nn.Module):
    """`a = g(Σ A·Wᵀ + b + Σ identity)` with a weight for every source: `residual` with parameters.

    Args:
        in_features: the sources' width, or a sequence of widths, one for each source.
        out_features: N.
        activation: a name from `resnetcore.activations()`, or None.
        bias: whether there is one.
        device, dtype: of the parameters.

    `weights.0`, `weights.1`, … are (N, K_s), one for each source, and `bias` is (N,); they start as `nn.Linear`'s do.
    """

    def __init__(
        self,
        in_features: int | Sequence[int],
        out_features: int,
        activation: str | None = "relu",
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        given = in_features if isinstance(in_features, Sequence) else [in_features]
        widths = [as_integer("ResidualLayer: in_features", k) for k in given]
        out_features = as_integer("ResidualLayer: out_features", out_features)
        if not widths or min(*widths, out_features) < 1:
            raise ShapeError(f"ResidualLayer: widths must be at least 1, got {in_features} and {out_features}")
        if activation is not None and activation not in activations():
            raise ValueError(
                f"ResidualLayer: unknown activation {activation!r}; known are {', '.join(activations())}, and None"
            )
        self.in_features, self.out_features, self.activation = tuple(widths), out_features, activation
        empty = {"device": device, "dtype": _checked_dtype("ResidualLayer", dtype)}
        self.weights = nn.ParameterList([nn.Parameter(torch.empty(out_features, k, **empty)) for k in widths])
        self.bias = nn.Parameter(torch.empty(out_features, **empty)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new parameters as `nn.Linear` does, from all sources' widths together."""
        bound = 1 / math.sqrt(sum(self.in_features))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, *sources: Tensor, identity: Sequence[Tensor] = ()) -> Tensor:
        """(batch, K_s) for each source and (batch, N) for each identity term to (batch, N)."""
        return residual(list(sources), [w.t() for w in self.weights], self.bias, list(identity), self.activation)

    def extra_repr(self) -> str:
        """For `repr`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, activation={self.activation!r}"


class ResidualStack(nn.Module):
    """Layers as `rc.Network` takes them, as one module and one operator: PyTorch's cost of a call is paid once.

    Args:
        inputs: number of columns of x.
        layers: `resnetcore.Layer`s, first to last.
        seed: of the initial weights; None takes one from PyTorch's generator.
        device, dtype: of the parameters: "cpu", "cuda" (or "meta"), and float32, float64 or bfloat16; None for PyTorch's own.
        flat: all parameters are one, `flat`, of which they are parts. What autograd and optimizers cost for each parameter,
            more than the kernels in small layers, is then paid once. It is for optimizers that treat all numbers alike.
            `named_parameters()` has `flat` alone; the state dict has its parts, which share its memory.

    In training mode norms use the batch's statistics and carry the running ones on, and dropout takes its masks from a
    number that PyTorch's generator gives; in evaluation mode neither happens, and gradients are still there. The state
    dict names parameters `layers.0.weight`, (out, in), `layers.0.bias`, `layers.0.skip_2_weight`,
    `layers.0.norm_weight`, `layers.0.norm_running_mean`, …, those of a flat stack too: each loads the other's.

    On the CPU float32 products are made of what `torch.set_float32_matmul_precision` allows, as those of an `rc.Network`
    of that matmul precision.

    Raises:
        ShapeError, DTypeError, ValueError: as `rc.Network`; from a call, an input that does not fit.
    """

    def __init__(
        self,
        inputs: int,
        layers: Iterable[Layer],
        seed: int | None = None,
        device: Any = None,
        dtype: Any = None,
        flat: bool = False,
    ) -> None:
        super().__init__()
        if seed is None:
            seed = int(torch.randint(2**62, (), device="cpu"))
        self._fill(Network(inputs, layers, seed=seed), device, dtype, flat)

    @classmethod
    def from_network(cls, net: Network, device: Any = None, dtype: Any = None, flat: bool = False) -> ResidualStack:
        """A module with a network's layers and a copy of its numbers."""
        if not isinstance(net, Network):
            raise DTypeError(f"ResidualStack.from_network: net must be a resnetcore.Network, got {type(net).__name__}")
        module = cls.__new__(cls)
        nn.Module.__init__(module)
        kinds = {name: kind for kind, name in DTYPE_NAMES.items()}
        module._fill(net, device, kinds[net.precision] if dtype is None else dtype, flat)
        return module

    def to_network(self) -> Network:
        """An `rc.Network` with this module's layers and a copy of its numbers, in its dtype."""
        tensors = {name: t.detach().cpu() for name, t in self._by_name().items()}
        first = next(iter(tensors.values())).dtype
        net = Network(self.inputs, self.topology, dtype=DTYPE_NAMES.get(first, str(first)))
        wide = torch.float64 if first == torch.float64 else torch.float32
        net.set_parameters({name: t.to(wide).numpy().T for name, t in tensors.items()})
        return net

    def _fill(self, net: Network, device: Any, dtype: Any, flat: bool) -> None:
        if not isinstance(flat, bool):
            raise DTypeError(f"ResidualStack: flat must be True or False, got {flat!r}")
        self.inputs, self.topology = net.inputs, tuple(net.layers)
        self._drops = any(layer.dropout or layer.branch_dropout for layer in self.topology)
        self.layers = nn.ModuleList(nn.Module() for _ in self.topology)
        arrays = {**net.parameters(), **net.buffers()}
        kind = _checked_dtype("ResidualStack", dtype)
        device = torch.get_default_device() if device is None else device
        self._described = {name: describe(self.inputs, self.topology, name, flat) for name in STORED}
        self._rooms = [room(topology) for topology in self._described.values()]
        everything = values_of(describe(self.inputs, self.topology, "float32"))
        # Name and shape of what `flat` is made of, in order.
        self._parts = [(name, shape) for name, shape, trained in everything if trained and flat]
        apart = [(name, trained) for name, _, trained in everything if not (trained and flat)]
        self._named = [name for name, _ in apart]
        self._places = [_place(name) for name in self._named]
        self._runs = [False] * flat + [".running_" in name for name in self._named]
        self._normalised = any(self._runs)

        def value_of(name: str) -> Tensor:
            return torch.from_numpy(np.array(arrays[name].T, order="C")).to(device=device, dtype=kind)

        if flat:
            self.flat = nn.Parameter(torch.cat([value_of(name).flatten() for name, _ in self._parts]))
        for (name, trained), (number, attribute) in zip(apart, self._places, strict=True):
            if trained:
                self.layers[number].register_parameter(attribute, nn.Parameter(value_of(name)))
            else:
                self.layers[number].register_buffer(attribute, value_of(name))

    def _values(self) -> list[Tensor]:
        """As the operator takes them."""
        if not self._places:
            return [self.flat]
        # A module looks its attributes up in Python, one dictionary after another; a parameter is nearly always in the
        # first, and elsewhere where it is made of others (torch.nn.utils.parametrize).
        layers = list(self.layers)
        parameters = [layer._parameters for layer in layers]
        values: list[Tensor] = [self.flat] if self._parts else []
        for number, attribute in self._places:
            parameter = parameters[number].get(attribute)
            values.append(getattr(layers[number], attribute) if parameter is None else parameter)
        return values

    def _split(self, flat: Tensor) -> dict[str, Tensor]:
        """The parts of what lies as the parameter `flat` does, by their names in the network."""
        parts = flat.split([math.prod(shape) for _, shape in self._parts])
        return {name: part.view(shape) for (name, shape), part in zip(self._parts, parts, strict=True)}

    def _by_name(self) -> dict[str, Tensor]:
        """Parameters and buffers by their names in the network."""
        values = self._values()
        parts = self._split(values.pop(0)) if self._parts else {}
        return {**parts, **dict(zip(self._named, values, strict=True))}

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if "flat" in self._parameters:  # and not made of others (torch.nn.utils.parametrize)
            for name, part in self._split(destination.pop(f"{prefix}flat")).items():
                destination[f"{prefix}{_key(name)}"] = part

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        if "flat" in self._parameters and f"{prefix}flat" not in state_dict:
            assigned = local_metadata.get("assign_to_params_buffers", False)
            state_dict[f"{prefix}flat"] = self._joined(state_dict, prefix, assigned, missing_keys, error_msgs)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _joined(
        self, state_dict: dict[str, Any], prefix: str, assigned: bool, missing: list[str], errors: list[str]
    ) -> Tensor:
        """`flat` of the parts in a state dict, which no layer knows and so go; as it is where one of them does not fit."""
        now = self.flat.detach()
        parts, before = self._split(now), len(errors)
        for name, part in parts.items():
            key = f"{prefix}{_key(name)}"
            given = state_dict.pop(key, None)
            if given is None:
                missing.append(key)
            elif not isinstance(given, Tensor):
                errors.append(f"{key} must be a tensor, got {type(given).__name__}")
            elif given.shape != part.shape:
                errors.append(
                    f"size mismatch for {key}: copying a param with shape {given.shape} from checkpoint, the shape in "
                    f"current model is {part.shape}."
                )
            else:
                parts[name] = given if assigned or part.is_meta else given.to(part)
        devices = {str(part.device) for part in parts.values()}
        if len(devices) > 1:
            errors.append(f"{prefix}flat would be on {' and '.join(sorted(devices))}: load all of its parts")
        return now if len(errors) > before else torch.cat([part.flatten() for part in parts.values()])

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        loss: str | Loss = "cross_entropy",
        sample_weight: Tensor | None = None,
    ) -> Tensor:
        """(batch, inputs) to (batch, outputs); or, with targets, to their mean loss, a number.

        In training on the CPU the loss is made in one pass with its gradients, which costs less than outputs whose loss and
        gradients are asked for afterwards, most where layers are narrow. The gradients are handed out by `backward()`.

        Args:
            x: (batch, inputs).
            y: targets beside x, as the loss takes them: labels (batch,) of any integers, or numbers (batch, outputs), which
                cross_entropy takes for probabilities; with one output they may be (batch,).
            loss: a name or a `resnetcore.Loss`, which says what they are.
            sample_weight: (batch,), not negative and not all zero, or None. The loss is a mean weighted by it.

        Returns:
            Outputs of the dtype of x, or of autocast's; a loss in float32, or in float64 where x is.

        Raises:
            ShapeError: x, y or sample_weight of a shape that does not fit the stack or the loss; nothing is broadcast.
            DTypeError: of a dtype that does not.
            DeviceError: y or sample_weight elsewhere than x.
            ValueError: one row for a batch norm in training; loss or sample_weight without y; on the CPU, and not where this
                is traced, a label that is no class, a probability or a weight that is none. (Elsewhere PyTorch's functions
                meet them.)
        """
        if y is None and (sample_weight is not None or loss != "cross_entropy"):
            raise ValueError("ResidualStack: loss and sample_weight are of targets; give y, too")
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.inputs:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ShapeError(f"ResidualStack: x must be a tensor of shape (batch, {self.inputs}), got {got}")
        if self.training and self._normalised and x.shape[0] == 1:
            raise ValueError("ResidualStack: batch norm needs at least 2 rows in training, got 1; call .eval()")
        own = self._values()
        to = autocast_dtype(x.device.type)
        given = x.to(to) if to is not None and is_autocast(x) else x
        first = to if to is not None and is_autocast(own[0]) else own[0].dtype  # as which it counts
        dtypes = {v.dtype for v in own}
        # A parameter that holds more than what is computed with: a layer made double by itself, say.
        narrowed = torch.float64 in dtypes and given.dtype != torch.float64
        if given.dtype not in DTYPE_NAMES or first != given.dtype or narrowed:
            raise DTypeError(
                f"ResidualStack: x must be float32, float64 or bfloat16 as the parameters are, got {x.dtype} for "
                f"{', '.join(sorted(map(str, dtypes)))}; convert one of them with .to()"
            )
        # Statistics and sums are float32 however narrow the activations are: parameters need not be rounded.
        wide = torch.float64 if given.dtype == torch.float64 else torch.float32
        seed = self._seed(x.device)
        is_float32 = given.dtype == torch.float32 and given.is_cpu
        topology = self._described[stored_float32() if is_float32 else DTYPE_NAMES[given.dtype]]
        values = own
        if self._normalised or dtypes != {wide}:
            # Running statistics are written to before backward may look at what it was given.
            values = [
                v if v.dtype == wide and not runs else v.to(wide, copy=runs)
                for v, runs in zip(own, self._runs, strict=True)
            ]
        call = (given.to(wide), values, seed, topology, self.training)
        out, *carried = stack(*call) if y is None else stack_loss(*call, y, loss, sample_weight)
        if carried and x.shape[0]:
            self._carry(own, carried)
        return out.to(given.dtype) if y is None else out

    def _seed(self, device: torch.device) -> Tensor:
        if device.type == "cuda":  # whose work the call does not wait for; and a number of the CPU's is as good
            device = torch.device("cpu")
        if self.training and self._drops:
            return torch.randint(2**62, (), device=device)
        return torch.zeros((), dtype=torch.int64, device=device)

    def _carry(self, own: list[Tensor], carried: list[Tensor]) -> None:
        running = [v for v, runs in zip(own, self._runs, strict=True) if runs]
        for old, new in zip(running, carried, strict=True):
            old.copy_(new.detach())  # not under no_grad: torch.export refuses it where a module changes its buffers

    def extra_repr(self) -> str:
        """For `repr`."""
        return f"inputs={self.inputs}, topology={self.topology}"
