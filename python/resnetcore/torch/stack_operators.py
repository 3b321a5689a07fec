"""A whole stack of layers as one operator and its gradient.

Tensors here are of what is computed with, float32 or float64; of a bfloat16 stack, float32 (`stack.py` casts). Values are
the stack's parameters and buffers in the order of `values_of(...)`. A tape is what forward leaves for backward,
bytes that backward only reads: so both are pure functions, and may run in any order and number.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .. import _core
from .._errors import ArrayDeviceError, BuildFeatureError
from .gpu import check_beside, order_of, view
from .shared import (
    OUTSIDE_GRAPHS,
    Function,
    PyTorchsThreads,
    is_direct,
    no_double_backward,
    refuse_batch,
    refuse_second_derivative,
    saved,
)

Tensor = torch.Tensor
_TAPE_ALIGNMENT = 64
# By DLPack's C exchange API, from PyTorch 2.10 on: an array made of every tensor takes longer than a small network's step.
_IS_LOOKED_AT = hasattr(Tensor, "__dlpack_c_exchange_api__")
_PREDICTION_TAPE = 1 << 24  # bytes; so many rows that packing the weights for them costs next to nothing


def describe(inputs: int, layers: Sequence[Any], dtype: str, flat: bool = False) -> str:
    """A topology as text, which operators take and the cache of programs is keyed by. Fixed matrices are values. `flat`: all
    that is trained is one value, the first.

    The number of the tape's layout is part of it: PyTorch keeps compiled graphs on disk, with the sizes of their tapes.
    """
    described = []
    for layer in layers:
        fields = layer.to_dict()
        fields["skips"] = [[k, v if isinstance(v, str) else list(v.shape)] for k, v in fields["skips"].items()]
        described.append(fields)
    layout = _core.tape_layout()
    return json.dumps({"inputs": inputs, "layers": described, "dtype": dtype, "tape": layout, "flat": flat})


class Room:
    """The programs of one topology, whose memory lives as long as a module that holds this; copies of a module share it."""

    def __init__(self, topology: str) -> None:
        self._topology = topology
        self.programs: dict[tuple[bool, bool, str], _core.Vjp] = {}

    def __reduce__(self) -> Any:
        return room, (self._topology,)

    def __deepcopy__(self, memo: Any) -> Room:
        return self


_rooms: weakref.WeakValueDictionary[str, Room] = weakref.WeakValueDictionary()


def room(topology: str) -> Room:
    """That of all modules of this topology."""
    return _rooms.setdefault(topology, Room(topology))


# Of operators that no module of this process calls, such as an exported program's.
_latest_room = functools.lru_cache(maxsize=4)(room)


@functools.lru_cache(maxsize=256)
def values_of(topology: str) -> tuple[tuple[str, tuple[int, ...], bool], ...]:
    """Name, shape and whether it is trained, of every value a stack takes."""
    return tuple(_compiled(topology, True, False).parameters)


@functools.lru_cache(maxsize=256)
def running(topology: str) -> tuple[int, ...]:
    """Which values are running statistics."""
    return tuple(i for i, (name, _, _) in enumerate(values_of(topology)) if ".running_" in name)


@functools.lru_cache(maxsize=256)
def trained(topology: str) -> tuple[int, ...]:
    """Which values have gradients."""
    return tuple(i for i, (_, _, trained) in enumerate(values_of(topology)) if trained)


def program(topology: str, training: bool, input_gradient: bool, device: str = "cpu") -> _core.Vjp:
    """The compiled core's object for a topology; it keeps room for its calls, and nothing else."""
    programs = (_rooms.get(topology) or _latest_room(topology)).programs
    key = training, input_gradient, device
    return programs.get(key) or programs.setdefault(key, _compiled(topology, *key))


def _compiled(topology: str, training: bool, input_gradient: bool, device: str = "cpu") -> _core.Vjp:
    description = json.loads(topology)
    for layer in description["layers"]:
        layer["skips"] = {k: v if isinstance(v, str) else np.zeros(v) for k, v in layer["skips"]}
    layers, dtype, flat = description["layers"], description["dtype"], description.get("flat", False)
    return _core.Vjp(description["inputs"], layers, dtype, training, input_gradient, device, flat)


@functools.lru_cache(maxsize=256)
def outputs_of(topology: str) -> int:
    """Width of the last layer."""
    return int(json.loads(topology)["layers"][-1]["width"])


def stack(x: Tensor, values: Sequence[Tensor], seed: Tensor, topology: str, training: bool) -> list[Tensor]:
    """The outputs, and of a training pass the running statistics carried on; differentiable by x and the values."""
    recorded = torch.is_grad_enabled()
    if is_direct([x, *values]):
        input_gradient = recorded and x.requires_grad
        taped = input_gradient or (recorded and any(v.requires_grad for v in values))
        out, _, *carried = _Direct.apply(x, seed, topology, training, input_gradient, taped, *values)
    else:
        # A traced program may be given an x that requires a gradient later, and these are constants in it.
        operator = torch.ops.resnetcore.residual_stack_forward
        out, _, *carried = operator(x, list(values), seed, topology, training, recorded, recorded)
    return [out, *carried]


def _rows_at_once(run: _core.Vjp, rows: int) -> int:
    """Where nobody goes backward, a tape is forgotten at once: it may be a few rows', if rows do not see each other."""
    row = run.tape_bytes(1) - run.tape_bytes(0)
    return min(rows, max(1, _PREDICTION_TAPE // max(1, row)))


@functools.lru_cache(maxsize=256)
def _check_layout(topology: str) -> None:
    """A tape of another layout would be of another size than the program has room for, or be read wrongly."""
    given, ours = json.loads(topology)["tape"], _core.tape_layout()
    if given != ours:
        raise BuildFeatureError(
            f"residual_stack: the program was exported by a version of resnetcore whose tapes lie otherwise (layout {given}, "
            f"here {ours}); export it again with this version"
        )


class Core:
    """How one call's tensors, all where x is, are shown to the compiled core."""

    def __init__(self, x: Tensor) -> None:
        self.place, self._order = x.device, order_of(x)
        if self._order is None and not x.is_cpu:
            raise ArrayDeviceError(
                f"residual_stack: x must be in the memory of the CPU or of a CUDA GPU, got a tensor on {x.device}; move "
                "module and input with .to('cpu') or .to('cuda')"
            )
        self.device = "cpu" if self._order is None else self._order.device
        self.stream = None if self._order is None else self._order.stream

    def dense(self, tensor: Tensor, name: str) -> Tensor:
        """The tensor itself, if the kernels can read it as it lies; else a copy."""
        check_beside(f"residual_stack: {name}", tensor, "x", self.place)
        if tensor.is_contiguous() and not tensor.is_neg() and tensor.data_ptr() % tensor.element_size() == 0:
            return tensor
        return tensor.detach().resolve_neg().clone(memory_format=torch.contiguous_format)

    def all_dense(self, values: Sequence[Tensor]) -> list[Tensor]:
        """The parameters and buffers, each as `dense` has it. Most are dense, which is asked of all at once."""
        looked_at = _IS_LOOKED_AT and self._order is None
        if looked_at and _core.are_dense(values) and not any(map(Tensor.is_neg, values)):
            return list(values)
        return [self.dense(v, "a parameter") for v in values]

    def shown(self, tensors: Sequence[Tensor]) -> list[Any]:
        """What the compiled core looks at."""
        if self._order is not None:
            return [view(t, self.device) for t in tensors]
        return list(tensors) if _IS_LOOKED_AT else [t.detach().numpy() for t in tensors]


def _forward(
    x: Tensor,
    values: Sequence[Tensor],
    seed: Tensor,
    topology: str,
    training: bool,
    input_gradient: bool,
    taped: bool,
) -> list[Tensor]:
    """The outputs, the tape, empty if it is not wanted, and in training the running statistics carried on."""
    core = Core(x)
    if taped:
        _check_layout(topology)
    run = program(topology, training, input_gradient, core.device)
    # The device is named wherever a tensor is made here: torch.set_default_device may have set another.
    part = len(x) if taped or training else _rows_at_once(run, len(x))
    tape = torch.empty(run.tape_bytes(part), dtype=torch.uint8, device=core.place)
    out = torch.empty((len(x), run.outputs), dtype=x.dtype, device=core.place)
    x, dense = core.dense(x, "x"), core.all_dense(values)
    carried = [dense[i].clone() for i in running(topology)] if training else []
    shown, statistics = core.shown(dense), core.shown(carried)
    with PyTorchsThreads():
        for rows, result in [(x, out)] if part == len(x) else zip(x.split(part), out.split(part), strict=True):
            given, memory, to = core.shown((rows, tape[: run.tape_bytes(len(rows))], result))
            run.forward(given, shown, int(seed), memory, to, statistics, core.stream)
    return [out, tape if taped else torch.empty(0, dtype=torch.uint8, device=core.place), *carried]


def _backward(
    grad: Tensor,
    x: Tensor,
    values: Sequence[Tensor],
    seed: Tensor,
    tape: Tensor,
    topology: str,
    training: bool,
    input_gradient: bool,
) -> list[Tensor]:
    """The gradient of x if it is asked for, then those of the trained values."""
    core = Core(x)
    _check_layout(topology)
    run = program(topology, training, input_gradient, core.device)
    if tape.data_ptr() % _TAPE_ALIGNMENT:  # whoever kept it for autograd, a hook, may have brought it back elsewhere
        tape = tape.clone()
    dense = core.all_dense(values)
    gradients = [torch.empty_like(dense[i]) for i in trained(topology)]
    d_x = [torch.empty(x.shape, dtype=x.dtype, device=core.place)] if input_gradient else []
    given, memory, d_out = core.shown((core.dense(x, "x"), tape, core.dense(grad, "grad")))
    to = core.shown(d_x)[0] if d_x else None
    with PyTorchsThreads():
        run.backward(given, core.shown(dense), int(seed), memory, d_out, to, core.shown(gradients), core.stream)
    return [*d_x, *gradients]


def arranged(topology: str, input_gradient: bool, gradients: Sequence[Tensor]) -> tuple[Any, list[Any]]:
    """What `_backward` returned, by argument: of x, and of every value, None where there is none."""
    d_values: list[Any] = [None] * len(values_of(topology))
    for i, gradient in zip(trained(topology), gradients[input_gradient:], strict=True):
        d_values[i] = gradient
    return gradients[0] if input_gradient else None, d_values


class _Direct(Function):
    @staticmethod
    def forward(
        x: Tensor, seed: Tensor, topology: str, training: bool, input_gradient: bool, taped: bool, *values: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(_forward(x, values, seed, topology, training, input_gradient, taped))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, seed, *ctx.settings = inputs[:5]
        _, tape, *carried = output
        # The tape too: PyTorch then frees it with the graph, and checkpointing may leave it out and make it again.
        ctx.save_for_backward(x, seed, tape, *inputs[6:])
        ctx.mark_non_differentiable(tape, *carried)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        x, seed, tape, *values = saved(ctx)
        if grad is None:
            return None, None, None, None, None, None, *[None] * len(values)
        refuse_batch(grad)
        if torch.is_grad_enabled():  # create_graph: someone may ask for a second derivative
            gradients = _DirectGradient.apply(tuple(ctx.settings), tape, grad, x, seed, *values)
        else:
            gradients = _backward(grad, x, values, seed, tape, *ctx.settings)
        d_x, d_values = arranged(ctx.settings[0], ctx.settings[2], gradients)
        return d_x, None, None, None, None, None, *d_values


class _DirectGradient(Function):
    @staticmethod
    def forward(settings: Any, tape: Tensor, grad: Tensor, x: Tensor, seed: Tensor, *values: Tensor) -> Any:
        return tuple(_backward(grad, x, values, seed, tape, *settings))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        no_double_backward("residual_stack")


_SETTINGS = "str topology, bool training, bool input_gradient"
stack_forward = torch.library.custom_op(
    "resnetcore::residual_stack_forward",
    _forward,
    mutates_args=(),
    **OUTSIDE_GRAPHS,
    schema=f"(Tensor x, Tensor[] values, Tensor seed, {_SETTINGS}, bool taped) -> Tensor[]",
)
stack_backward = torch.library.custom_op(
    "resnetcore::residual_stack_backward",
    _backward,
    mutates_args=(),
    **OUTSIDE_GRAPHS,
    schema=f"(Tensor grad, Tensor x, Tensor[] values, Tensor seed, Tensor tape, {_SETTINGS}) -> Tensor[]",
)


@stack_forward.register_fake
def _(
    x: Tensor,
    values: Sequence[Tensor],
    seed: Tensor,
    topology: str,
    training: bool,
    input_gradient: bool,
    taped: bool,
) -> list[Tensor]:
    run = program(topology, training, input_gradient)
    whole, row = run.tape_bytes(0), run.tape_bytes(1) - run.tape_bytes(0)
    carried = [values_of(topology)[i][1] for i in running(topology)] if training else []
    tape = x.new_empty(whole + row * x.shape[0] if taped else 0, dtype=torch.uint8)
    return [x.new_empty((x.shape[0], run.outputs)), tape, *map(x.new_empty, carried)]


@stack_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    values: Sequence[Tensor],
    seed: Tensor,
    tape: Tensor,
    topology: str,
    training: bool,
    input_gradient: bool,
) -> list[Tensor]:
    shapes = [values_of(topology)[i][1] for i in trained(topology)]
    return [*([x.new_empty(x.shape)] if input_gradient else []), *map(x.new_empty, shapes)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, values, seed, *settings = inputs
    ctx.settings = tuple(settings)
    ctx.save_for_backward(x, seed, output[1], *values)


def _derive(ctx: Any, grads: Sequence[Tensor]) -> tuple[Any, ...]:
    x, seed, tape, *values = ctx.saved_tensors
    topology, training, input_gradient, taped = ctx.settings
    if not taped or (ctx.needs_input_grad[0] and not input_gradient):
        raise RuntimeError(
            "residual_stack: the program was traced where gradients were off, and has kept nothing to go backward by; trace, "
            "export or call it with torch.enable_grad()"
        )
    gradients = torch.ops.resnetcore.residual_stack_backward(
        grads[0], x, values, seed, tape, topology, training, input_gradient
    )
    d_x, d_values = arranged(topology, input_gradient, gradients)
    return d_x, d_values, None, None, None, None, None


stack_forward.register_autograd(_derive, setup_context=_save)
stack_backward.register_autograd(refuse_second_derivative("residual_stack"))
