"""A network of layers and skips. A call that raises has changed nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core
from ._errors import DeviceError, DTypeError, ShapeError
from .arrays import Rows, as_dense, as_host_array, as_rows, like
from .checks import as_integer, check_device, check_dtype, check_matmul_precision, check_seed, require_finite
from .config import get_matmul_precision
from .device_arrays import DeviceArray, as_host
from .layers import Layer
from .tables import Text

if TYPE_CHECKING:
    from .diagnostics import Diagnosis
    from .losses import Loss

_CHUNK_BYTES = 1 << 25  # of inputs converted at a time: far above what a call costs, far below memory


class Network:
    """A residual network: topology as data, arrays in compiled code.

    Args:
        inputs: number of columns of X.
        layers: `Layer`s, first to last, from any iterable; the last one's width is the number of outputs.
        seed: of the initial weights, which are the same on every machine.
        dtype: "float32", "float64" or "bfloat16": activations, their gradients and the operands of every product in
            bfloat16, half the memory and, where the CPU has the instructions, twice the speed; parameters, sums,
            statistics, losses and outputs in float32, which `net.dtype` then is.
        device: where parameters are kept and work is done: "cpu", "cuda" (the first GPU) or "cuda:1". Arrays that calls
            take may be in the CPU's memory, or in that of this GPU, where they are read in place.
        matmul_precision: of a float32 network's products, "highest", "high" or "medium"; None for what
            `resnetcore.set_matmul_precision` says. Files keep one that is not "highest".

    Example:
        >>> net = Network(4, [Layer(8), Layer(8), Layer(8, skips={2: "identity"}), Layer(3, activation=None)])
        >>> net.predict(np.zeros((2, 4))).shape
        (2, 3)

    Raises:
        ShapeError: widths that do not fit together; the message names both layers and both widths.
        ValueError: no layers, a skip that reaches before the input, or an unknown precision.
        BuildFeatureError: a dtype that this build has not.
        DeviceError: a device that is not there, with the reason; or one whose kernels take fewer skips side by side.
    """

    def __init__(
        self,
        inputs: int,
        layers: Iterable[Layer],
        seed: int = 0,
        dtype: Any = "float32",
        device: str = "cpu",
        matmul_precision: str | None = None,
    ) -> None:
        device = check_device("Network", device)
        inputs = as_integer("Network: inputs", inputs)
        if not isinstance(layers, Iterable):
            raise DTypeError(f"Network: layers must be an iterable of Layers, such as a list, got {layers!r}")
        layers = tuple(layers)
        if inputs < 1:
            raise ShapeError(f"Network: inputs must be at least 1, got {inputs}")
        if inputs >= 2**63:
            raise ShapeError(f"Network: inputs must be below 2**63, got {inputs}")
        descriptions = []
        for number, layer in enumerate(layers, 1):
            if not isinstance(layer, Layer):
                raise DTypeError(f"Network: layer {number} must be a Layer, got {layer!r}")
            descriptions.append(layer.to_dict())
        if matmul_precision is None:
            matmul_precision = get_matmul_precision()
        self._core = _core.Network(
            inputs,
            descriptions,
            check_seed("Network", seed),
            check_dtype("Network", dtype),
            check_matmul_precision("Network: matmul_precision", matmul_precision),
            device,
        )
        self._layers = layers

    @classmethod
    def _from_core(cls, core: _core.Network, layers: tuple[Layer, ...]) -> Network:
        net = cls.__new__(cls)
        net._core = core
        net._layers = layers
        return net

    @property
    def inputs(self) -> int:
        """Number of columns of X."""
        return self._core.inputs

    @property
    def outputs(self) -> int:
        """Width of the last layer."""
        return self._core.outputs

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, first to last. Layer ℓ of every message and name is `layers[ℓ - 1]`.

        The matrix of a fixed skip is the one the layer was made with until `set_parameters` gives it other numbers.
        """
        return self._layers

    @property
    def dtype(self) -> np.dtype:
        """Of the parameters and of what `predict` returns."""
        return np.dtype("float32" if self.precision == "bfloat16" else self.precision)

    @property
    def precision(self) -> str:
        """What the network was asked for as `dtype`: "float32", "float64" or "bfloat16"."""
        return self._core.dtype

    @property
    def matmul_precision(self) -> str:
        """What the network was asked for: "highest", "high" or "medium". `explain` says what its products are made of."""
        return self._core.matmul_precision

    @property
    def device(self) -> str:
        """Where the weights are and the work is done: "cpu", "cuda:0"."""
        return self._core.device

    @property
    def seed(self) -> int:
        """Seed of the initial weights."""
        return self._core.seed

    def __call__(self, x: Any) -> Any:
        """The outputs (logits) for `x`: see `predict`."""
        return self.predict(x)

    def predict(self, X: Any, check_finite: bool = False) -> Any:
        """Outputs (logits) in inference mode, (n, outputs), of the network's dtype and the caller's kind of array: on the
        GPU where X is, and a `DeviceArray` where its library takes none by DLPack.

        Args:
            X: (n, inputs) of float32 or float64, converted to the network's dtype some rows at a time; numbers beyond
                its range become infinite. Memory maps may be larger than memory. n may be 0.
            check_finite: raise ValueError where X, so converted, has a NaN or an infinity; otherwise they propagate.

        Of a `DeviceArray` that no other library was given, the result is on its way when the call returns. Whoever takes
        it finds it there: `numpy()`, DLPack and `__cuda_array_interface__` wait for it, or make a stream wait; and they,
        or the next call that waits, raise a DeviceError where the GPU failed meanwhile.
        """
        if type(X) is DeviceArray and not check_finite and self._core.takes(X):  # a GPU may have nothing else to do
            return self._core.predict(X)
        rows = as_rows("predict", "X", X, self.inputs, self.device)
        if isinstance(rows, DeviceArray):
            if check_finite:
                require_finite("predict", "X", rows)
            return like(self._core.predict(rows), X)
        out = np.empty((len(rows), self.outputs), self.dtype)
        for begin, chunk in chunks(rows, self.dtype):
            if check_finite:
                require_finite("predict", "X", chunk)
            out[begin : begin + len(chunk)] = self._core.predict(chunk)
        return like(out, X)

    def predict_proba(self, X: Any, check_finite: bool = False) -> Any:
        """Class probabilities, (n, outputs): softmax of the outputs, or sigmoid where there is one output. The CPU's work,
        also where X and they are on a GPU.

        Args:
            X, check_finite: as of `predict`. Where a logit is infinite, a row may come out as NaN.
        """
        logits = self.predict(as_rows("predict_proba", "X", X, self.inputs, self.device), check_finite)
        if isinstance(logits, DeviceArray):
            return like(_core.to_device(self._probabilities(as_host(logits)), self.device), X)
        return like(self._probabilities(logits), X)

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        # exp(-z) of a very negative z is inf, and 1 / (1 + inf) the right 0; inf - inf is the NaN that is promised.
        with np.errstate(over="ignore", invalid="ignore"):
            if self.outputs == 1:
                return 1 / (1 + np.exp(-logits))
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            return exponentials / exponentials.sum(axis=1, keepdims=True)

    def gradients(
        self,
        x: Any,
        y: Any,
        loss: str | Loss = "cross_entropy",
        *,
        sample_weight: Any = None,
        step: int = 0,
        check_finite: bool = False,
    ) -> tuple[float, dict[str, np.ndarray], Any]:
        """Loss and gradients in training mode (batch statistics, dropout); nothing is updated.

        Args:
            x: (n, inputs), n ≥ 1.
            y: targets, as `Loss` describes them.
            loss: a name or a `Loss`.
            sample_weight: (n,) or None.
            step: which dropout masks to use.
            check_finite: raise ValueError for a NaN or an infinity in x.

        Returns:
            The loss, `{name: ∂E/∂parameter}` for every trained parameter, and ∂E/∂x, (n, inputs).
        """
        if not 0 <= as_integer("gradients: step", step) < 2**32:
            raise ValueError(f"gradients: step must be from 0 to 2**32 - 1, got {step}")
        return self._gradients("gradients", "x", x, y, loss, sample_weight, step, check_finite)

    def _gradients(
        self,
        operation: str,
        name: str,
        x: Any,
        y: Any,
        loss: str | Loss,
        sample_weight: Any = None,
        step: int = 0,
        check_finite: bool = False,
    ) -> tuple[float, dict[str, np.ndarray], Any]:
        """`gradients`, in whose messages the operation and x have these names."""
        from .losses import as_loss, check_sample_weight, check_targets_in_place

        rows = as_rows(operation, name, x, self.inputs, self.device)
        if len(rows) == 0:
            raise ShapeError(f"{operation}: {name} must have at least one row, got 0")
        dense = as_dense(rows, self.dtype)
        if check_finite:
            require_finite(operation, name, dense)
        loss = as_loss(loss)
        targets = check_targets_in_place(operation, y, loss, len(rows), self.outputs, self.dtype, self.device)
        weight = check_sample_weight(operation, sample_weight, len(rows), self.dtype, self.device)
        described = loss.to_core(self.outputs, self.dtype, weight)
        value, by_name, d_x = self._core.gradients(dense, targets, described, step, operation)
        return value, by_name, like(d_x, x)

    def parameters(self, device: str | None = None) -> dict[str, Any]:
        """Copies of everything that is trained: `1.weight`, `1.bias`, `3.skip.2.weight`, `2.norm.weight`, …

        All are of one moment between two steps, also while another thread trains the network.

        Args:
            device: None for NumPy arrays; the network's GPU for `DeviceArray`s in its memory.

        Raises:
            DeviceError: another device than these.
        """
        return self._copies("parameters", self._core.parameter_names(), device)

    def buffers(self, device: str | None = None) -> dict[str, Any]:
        """Copies of running statistics and of the matrices of fixed skips, all of one moment; as `parameters`."""
        return self._copies("buffers", self._core.buffer_names(), device)

    def _copies(self, operation: str, names: list[str], device: str | None) -> dict[str, Any]:
        where = "cpu" if device is None else check_device(operation, device)
        if where not in ("cpu", self.device):
            raise DeviceError(
                f'{operation}: device must be "cpu" or the network\'s, {self.device}, got {where}; move the network by '
                f"net.to({where!r})"
            )
        return self._core.get(names, on_device=where != "cpu")

    def set_parameters(self, values: Mapping[str, Any]) -> None:
        """Replaces parameters or buffers, any subset of them, all or nothing.

        Raises:
            ValueError: a name that the network has not, or a number beyond the range of its dtype; a running variance
                below 0 or NaN; a fixed skip's matrix that is not finite.
            ShapeError: another shape than the one it has.
            DTypeError: no floats.
        """
        if not isinstance(values, Mapping):
            raise DTypeError(f"set_parameters: values must be a dict of arrays, got {type(values).__name__}")
        arrays = {}
        for name, value in values.items():
            array = as_host_array("set_parameters", repr(name), value, self.device)
            if array.dtype.kind != "f":
                raise DTypeError(f"set_parameters: {name!r} must hold floats, got {array.dtype}")
            try:
                with np.errstate(over="raise", invalid="ignore"):
                    arrays[name] = np.ascontiguousarray(array, self.dtype)
            except FloatingPointError:
                raise ValueError(f"set_parameters: {name!r} has numbers beyond the range of {self.dtype}") from None
        self._check_buffers("set_parameters", arrays)
        self._core.set(arrays)
        self._layers = tuple(_with_matrices(number, layer, arrays) for number, layer in enumerate(self._layers, 1))

    def _arrays(self) -> dict[str, np.ndarray]:
        """Parameters and buffers of one moment."""
        return self._core.get([*self._core.parameter_names(), *self._core.buffer_names()])

    def _check_buffers(self, operation: str, arrays: Mapping[str, np.ndarray]) -> None:
        for name in arrays.keys() & self._core.buffer_names():
            array = arrays[name]
            if name.endswith(".running_var") and not (array >= 0).all():
                raise ValueError(f"{operation}: {name!r}, a variance, must be at least 0, got {array.min()}")
            if ".skip." in name and not np.isfinite(array).all():
                raise ValueError(f"{operation}: {name!r}, the matrix of a fixed skip, must be finite")

    def copy(self) -> Network:
        """A network with the same arrays that shares nothing with this one."""
        return Network._from_core(self._core.clone(), self._layers)

    def astype(self, dtype: Any, matmul_precision: str | None = None) -> Network:
        """A new network with this one's parameters and buffers, rounded to another dtype, as `Network` takes it; and with
        this one's `matmul_precision` where none is given."""
        name = check_dtype("astype", dtype)
        precision = self.matmul_precision if matmul_precision is None else matmul_precision
        if (name, precision) == (self.precision, self.matmul_precision):
            return self.copy()
        other = Network(self.inputs, self._layers, self.seed, name, self.device, precision)
        other.set_parameters(self._arrays())
        return other

    def to(self, device: str) -> Network:
        """A new network with this one's arrays on another device, "cpu", "cuda" or "cuda:1", or on the same one.

        Raises:
            DeviceError: as of `Network`.
        """
        return Network._from_core(self._core.clone(check_device("to", device)), self._layers)

    def save(self, path: Any) -> None:
        """Writes topology and arrays to a safetensors file, whole or not at all; `resnetcore.load` reads it, on any device.

        While another thread trains the network, it holds what is there between two steps.
        """
        from .checkpoint import save_network

        save_network(self, path)

    def export_onnx(self, path: Any, *, fold_norm: bool = True, opset: int | None = None) -> None:
        """Writes the network in inference to an ONNX file, whole or not at all; see `resnetcore.onnx.export`."""
        from .onnx import export

        export(self, path, fold_norm=fold_norm, **({} if opset is None else {"opset": opset}))

    def diagnose(self, X: Any, y: Any, loss: str | Loss = "cross_entropy") -> Diagnosis:
        """Per layer: norm of ∂E/∂W, strength of its skips against its own branch, dead units. See `Diagnosis`."""
        from .diagnostics import diagnose

        return diagnose(self, X, y, loss)

    def explain(self, training: bool = False, batch: int = 128) -> Text:
        """The compiled plan: what runs in which order, and on which memory; for training, how a step on `batch` rows
        takes its weight gradients, and why.

        Raises:
            DTypeError: `training` is no bool, or `batch` no int.
            ValueError: `batch` below 1.
        """
        if not isinstance(training, (bool, np.bool_)):
            raise DTypeError(f"explain: training must be True or False, got {training!r}")
        return Text(self._core.plan(bool(training), as_integer("explain: batch", batch, at_least=1)))

    def summary(self) -> Text:
        """A table of layer, width, what it computes, skips and number of trained parameters."""
        from .summary import summary

        return summary(self)

    def __repr__(self) -> str:
        where = "" if self.device == "cpu" else f" on {self.device}"
        return f"<Network {self.inputs} -> {self.outputs}, {len(self._layers)} layers, {self.precision}{where}>"

    def __copy__(self) -> Network:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        # Like a file, a pickle names no device: whoever reads it may have none but the CPU.
        return _rebuild, (
            self.inputs,
            [layer.to_dict() for layer in self._layers],
            self.seed,
            self.precision,
            self.matmul_precision,
            self._arrays(),
        )


def _rebuild(
    inputs: int,
    layers: list[dict[str, Any]],
    seed: int,
    dtype: str,
    matmul_precision: str,
    arrays: dict[str, np.ndarray],
) -> Network:
    net = Network(inputs, [Layer(**layer) for layer in layers], seed, dtype, matmul_precision=matmul_precision)
    net.set_parameters(arrays)
    return net


def _with_matrices(number: int, layer: Layer, arrays: Mapping[str, np.ndarray]) -> Layer:
    """The layer with those of `arrays` that are other numbers than its fixed skips', in the precision of `arrays`."""
    changed = {}
    for back, kind in layer.skips.items():
        new = arrays.get(f"{number}.skip.{back}.weight")
        if new is not None and not isinstance(kind, str):
            with np.errstate(over="ignore"):  # a float64 matrix of a float32 network
                known = kind.astype(new.dtype)
            if not np.array_equal(known, new, equal_nan=True):
                changed[back] = new
    return replace(layer, skips={**layer.skips, **changed}) if changed else layer


def chunks(rows: Rows, dtype: np.dtype) -> Iterator[tuple[int, Rows]]:
    """(first row, rows ready for the core), so many at a time that converting them needs little memory."""
    step = max(1, min(16384, _CHUNK_BYTES // max(1, rows.shape[1] * dtype.itemsize)))
    for begin in range(0, len(rows), step):
        chunk = rows[begin : begin + step]
        yield begin, as_dense(chunk, dtype)
