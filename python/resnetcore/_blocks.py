"""The arguments of one block, checked: arrays that fit each other, all in one place.

A place is the CPU's memory or a GPU's: it takes arrays, makes results, and knows which of the compiled core's functions
compute there. All else about a block is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from . import _core
from ._errors import ArrayDeviceError, DTypeError, ShapeError
from .arrays import BFLOAT16, all_finite, as_array, as_memory, as_neighbour, dtype_name, has_bfloat16
from .checks import check_device
from .device_arrays import DeviceArray, as_host, gpu_of, is_on_gpu, says_where

_SUFFIX = {np.dtype("float32"): "f32", np.dtype("float64"): "f64", BFLOAT16: "bf16"}
# Steps of NumPy's search for a common element. Blocks of one matrix need one; hostile strides, exponentially many.
_OVERLAP_WORK = 10_000

Gradients = tuple[Sequence[Any], Sequence[Any], Any, Sequence[Any]]  # of sources, weights, bias, identity terms


class Place(Protocol):
    """Where a block's arrays are, and its results."""

    def taken(self, operation: str, name: str, value: Any) -> Any:
        """The array of `value`, which is read."""

    def written(self, operation: str, name: str, value: Any) -> Any:
        """The memory of `value`, which is written to."""

    def forward(self, block: Block, out: Any) -> Any:
        """The block's output, in `out` unless that is None."""

    def backward(self, block: Block, grad: Any, a: Any) -> Gradients:
        """All gradients."""

    def update(self, block: Block, grad: Any, a: Any, rate: float) -> tuple[Sequence[Any], Sequence[Any]]:
        """Those of sources and identity terms; weights and bias are changed."""


@dataclass(frozen=True)
class Host:
    """The CPU's memory. Another `device` may compute: arrays go there and back."""

    device: str = "cpu"

    def taken(self, operation: str, name: str, value: Any) -> np.ndarray:
        # Results are of the inputs' dtype and `out` is written in place: nothing may be converted on the way in.
        return as_array(operation, name, value, widen=False)

    def written(self, operation: str, name: str, value: Any) -> np.ndarray:
        return as_memory(operation, name, value)

    def forward(self, block: Block, out: Any) -> np.ndarray:
        result = np.empty((block.rows, block.columns), block.dtype) if out is None else out
        block.core("forward")(*block.arrays(), result, self.device)
        return result

    def backward(self, block: Block, grad: Any, a: Any) -> Gradients:
        d_sources, d_weights, d_bias, delta = block.core("backward")(grad, a, *block.arrays(), self.device)
        return d_sources, d_weights, d_bias, self._for_each_term(block, delta)

    def update(self, block: Block, grad: Any, a: Any, rate: float) -> tuple[Sequence[Any], Sequence[Any]]:
        d_sources, delta = block.core("update")(grad, a, *block.arrays(), rate, self.device)
        return d_sources, self._for_each_term(block, delta)

    def _for_each_term(self, block: Block, delta: np.ndarray) -> list[np.ndarray]:
        return [delta if i == 0 else delta.copy() for i in range(len(block.identity))]


@dataclass(frozen=True)
class Gpu:
    """A GPU's memory, and that GPU computes, in the order of `stream`; without one, the call waits for the work."""

    device: str
    stream: int | None = None

    def taken(self, operation: str, name: str, value: Any) -> DeviceArray:
        return as_neighbour(operation, name, value, self.device)

    def written(self, operation: str, name: str, value: Any) -> DeviceArray:
        return as_neighbour(operation, name, value, self.device, written=True)

    def made(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Room for a result, as the caller gets it."""
        return _core.zeros_on(self.device, shape, dtype)

    def view(self, made: Any) -> DeviceArray:
        """The memory of such room."""
        return made

    def deltas(self, block: Block) -> list[Any]:
        """Room for δ, and for the other copies of it."""
        return [self.made((block.rows, block.columns), block.dtype) for _ in range(max(1, len(block.identity)))]

    def forward(self, block: Block, out: Any) -> Any:
        result = self.made((block.rows, block.columns), block.dtype) if out is None else out
        block.core("forward_on_gpu")(*block.arrays(), self.view(result) if out is None else out, self.stream)
        return result

    def backward(self, block: Block, grad: Any, a: Any) -> Gradients:
        d_sources = [self.made(source.shape, block.dtype) for source in block.sources]
        d_weights = [self.made(weight.shape, block.dtype) for weight in block.weights]
        d_bias = None if block.bias is None else self.made(block.bias.shape, block.dtype)
        deltas = self.deltas(block)
        views = [list(map(self.view, made)) for made in (d_sources, d_weights, deltas)]
        bias = None if d_bias is None else self.view(d_bias)
        block.core("backward_on_gpu")(grad, a, *block.arrays(), *views[:2], bias, views[2], self.stream)
        return d_sources, d_weights, d_bias, deltas[: len(block.identity)]

    def update(self, block: Block, grad: Any, a: Any, rate: float) -> tuple[Sequence[Any], Sequence[Any]]:
        d_sources = [self.made(source.shape, block.dtype) for source in block.sources]
        deltas = self.deltas(block)
        views = [list(map(self.view, made)) for made in (d_sources, deltas)]
        block.core("update_on_gpu")(grad, a, *block.arrays(), *views, rate, self.stream)
        return d_sources, deltas[: len(block.identity)]


_HOST = Host()


def find_place(operation: str, sources: Any, weights: Any, device: str | None, stream: int | None) -> Place:
    """Where the first source is, or one that says more: everything else has to be there too.

    Raises:
        DeviceError: `device` cannot be had, or is another than that of a source on a GPU.
        ValueError: a stream for work that is the CPU's.
    """
    first = sources[0] if isinstance(sources, (list, tuple)) and sources else None
    if not is_on_gpu(first):
        if stream is not None:
            raise ValueError(
                f"{operation}: stream orders work on arrays that are on a GPU, and sources[0] is in the CPU's memory; "
                "leave stream out"
            )
        return _HOST if device is None or device == "cpu" else Host(check_device(operation, device))
    given = [*sources, *(weights if isinstance(weights, (list, tuple)) else ())]
    says = next((array for array in given if is_on_gpu(array) and says_where(array)), first)
    home = "cuda" if device is None or device == "cpu" else device
    where = check_device(operation, gpu_of(f"{operation}: sources[0]", says, home))
    if device is not None and check_device(operation, device) != where:
        raise ArrayDeviceError(
            f"{operation}: sources[0] is on {where}, and device is {device!r}; leave device out, or copy the arrays there"
        )
    _core.wait_for_stream(where, stream, operation)
    return Gpu(where, stream)


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have an element's memory in common."""
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK)  # type: ignore[arg-type]  # NumPy's stub knows 0 and -1
    except RuntimeError:  # TooHardError: their bounds overlap, and no sensible array has such strides
        return True


def _layout(array: Any) -> np.ndarray:
    """An array whose addresses and strides are the array's; of a GPU's, its elements must not be looked at."""
    return array if isinstance(array, np.ndarray) else _core.layout_of(array)


def _conversion(dtype: str) -> str:
    return f"convert it with .astype('{dtype}'), or a tensor of PyTorch's with .to(torch.{dtype})"


def _has_contiguous_rows_or_columns(array: np.ndarray) -> bool:
    lengths = [size for size in array.shape if size > 1]
    return len(lengths) < 2 or array.itemsize in array.strides


@dataclass
class Block:
    """The arguments of one block, checked; every array is of one dtype and fits the others."""

    operation: str
    place: Place
    sources: list[Any]  # NumPy's arrays, or a GPU's
    weights: list[Any]
    bias: Any
    identity: list[Any]
    activation: str
    check_finite: bool

    @classmethod
    def of(
        cls,
        operation: str,
        place: Place,
        sources: Sequence[Any],
        weights: Sequence[Any],
        bias: Any,
        identity: Sequence[Any],
        activation: str | None,
        check_finite: bool = False,
        trains: bool = False,
    ) -> Block:
        """`trains`: weights and bias are written to."""
        given = place.taken
        trained = place.written if trains else given
        for name, value in (("sources", sources), ("weights", weights), ("identity", identity)):
            if not isinstance(value, (list, tuple)):
                raise DTypeError(f"{operation}: {name} must be a list or tuple of arrays, got {type(value).__name__}")
        if not sources:
            raise ShapeError(f"{operation}: sources must not be empty")
        if len(sources) != len(weights):
            raise ShapeError(
                f"{operation}: there must be as many weights as sources, got {len(weights)} for {len(sources)}"
            )
        known = _core.activations()
        name = "identity" if activation is None else activation
        if name not in known:
            raise ValueError(f"{operation}: unknown activation {activation!r}; known are {', '.join(known)}")
        block = cls(
            operation,
            place,
            [given(operation, f"sources[{i}]", value) for i, value in enumerate(sources)],
            [trained(operation, f"weights[{i}]", value) for i, value in enumerate(weights)],
            None if bias is None else trained(operation, "bias", bias),
            [given(operation, f"identity[{i}]", value) for i, value in enumerate(identity)],
            name,
            check_finite,
        )
        block._check()
        return block

    @property
    def dtype(self) -> np.dtype:
        return self.sources[0].dtype

    @property
    def rows(self) -> int:
        return self.sources[0].shape[0]

    @property
    def columns(self) -> int:
        return self.weights[0].shape[1]

    def arrays(self) -> tuple[Any, ...]:
        return self.sources, self.weights, self.bias, self.identity, self.activation

    def core(self, function: str) -> Callable[..., Any]:
        """The compiled core's, for this dtype."""
        return getattr(_core, f"residual_{function}_{_SUFFIX[self.dtype]}")

    def output_pair(self, grad: Any, a: Any) -> tuple[Any, Any]:
        """∂E/∂a and a, as they are taken."""
        pair = self.place.taken(self.operation, "grad", grad), self.place.taken(self.operation, "a", a)
        for name, array in zip(("grad", "a"), pair, strict=True):
            self._check_array(name, array, (self.rows, self.columns))
        return pair

    def check_results(self, original: Any) -> None:
        """Results can be of the kind of `sources[0]`."""
        if self.dtype == BFLOAT16 and isinstance(self.sources[0], np.ndarray) and not has_bfloat16(original):
            raise DTypeError(
                f"{self.operation}: sources[0] is bfloat16 in an array of type {type(original).__name__}, and NumPy has "
                "none for the results; import ml_dtypes, whose bfloat16 they then are, or give PyTorch's tensors"
            )

    def check_trained(self) -> None:
        """Each element of the weights and the bias is written to once, and nothing else is written with it."""
        trained = {f"weights[{i}]": weight for i, weight in enumerate(self.weights)}
        if self.bias is not None:
            trained["bias"] = self.bias
        others = list(map(_layout, [*self.sources, *self.identity]))
        for name, memory in trained.items():
            what, array = f"{self.operation}: {name}", _layout(memory)
            repeated = any(step == 0 and size > 1 for step, size in zip(array.strides, array.shape, strict=True))
            if repeated or not array.flags.aligned:
                raise ShapeError(f"{what} must be aligned and have each element once, got strides {array.strides}")
            if isinstance(memory, DeviceArray) and not _has_contiguous_rows_or_columns(array):
                raise ShapeError(f"{what} must have contiguous rows or columns on a GPU, got strides {array.strides}")
            if any(overlap(array, other) for other in others):
                raise ValueError(f"{what} must not overlap an input, nor another weight")
            others.append(array)

    def checked_out(self, out: Any) -> Any:
        """The memory of `out`."""
        memory = self.place.written(self.operation, "out", out)
        result = _layout(memory)
        expected = (self.rows, self.columns)
        if result.shape != expected:
            raise ShapeError(f"{self.operation}: out must be {expected}, got {result.shape}")
        if result.dtype != self.dtype and (self.dtype, result.dtype) != (BFLOAT16, np.float32):
            unrounded = ", or float32" if self.dtype == BFLOAT16 else ""
            raise DTypeError(
                f"{self.operation}: out must be {dtype_name(self.dtype)} as the inputs are{unrounded}, "
                f"got {dtype_name(result.dtype)}"
            )
        item = result.itemsize
        rows_contiguous = result.shape[1] <= 1 or result.strides[1] == item
        rows_apart = result.shape[0] <= 1 or result.strides[0] >= result.shape[1] * item
        if not (rows_contiguous and rows_apart and result.strides[0] % item == 0 and result.flags.aligned):
            raise ShapeError(
                f"{self.operation}: out must have contiguous, aligned rows, got strides {result.strides}; "
                "leave out away and copy the result"
            )
        everything = [*self.sources, *self.weights, *self.identity, *([] if self.bias is None else [self.bias])]
        if any(overlap(result, _layout(array)) for array in everything):
            raise ValueError(f"{self.operation}: out must not overlap an input")
        return memory

    def _check(self) -> None:
        if self.dtype not in _SUFFIX:
            raise DTypeError(
                f"{self.operation}: sources[0] must be float32, float64 or bfloat16, got {self.dtype}; "
                + _conversion("float32")
            )
        for name, array in [("sources[0]", self.sources[0]), ("weights[0]", self.weights[0])]:
            if array.ndim != 2:
                raise ShapeError(f"{self.operation}: {name} must have 2 dimensions, got shape {array.shape}")
        for i, (source, weight) in enumerate(zip(self.sources, self.weights, strict=True)):
            inner = weight.shape[0] if weight.ndim == 2 else source.shape[-1] if source.ndim else 0
            self._check_array(f"weights[{i}]", weight, (inner, self.columns))
            self._check_array(f"sources[{i}]", source, (self.rows, inner))
        for i, term in enumerate(self.identity):
            self._check_array(f"identity[{i}]", term, (self.rows, self.columns))
        if self.bias is not None:
            self._check_array("bias", self.bias, (self.columns,))
        if min(self.columns, *(weight.shape[0] for weight in self.weights)) < 1:
            raise ShapeError(f"{self.operation}: widths must be at least 1, got {[w.shape for w in self.weights]}")

    def _check_array(self, name: str, array: Any, shape: tuple[int, ...]) -> None:
        if array.dtype != self.dtype:
            expected = dtype_name(self.dtype)
            raise DTypeError(
                f"{self.operation}: {name} must be {expected} as sources[0] is, got {dtype_name(array.dtype)}; "
                + _conversion(expected)
            )
        if array.shape != shape:
            raise ShapeError(f"{self.operation}: {name} must be {shape}, got {array.shape}")
        if self.check_finite and not all_finite(as_host(array) if isinstance(array, DeviceArray) else array):
            raise ValueError(f"{self.operation}: {name} holds NaN or infinite values")
