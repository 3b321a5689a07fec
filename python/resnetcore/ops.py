"""The block `a = g(Σ A·W + b + Σ identity)` as pure functions on anyone's arrays, for embedding.

Arrays are (batch, width), weights (in, out): they multiply from the right. NumPy arrays and CPU arrays of any library
that speaks DLPack or the buffer protocol are read where they lie; results are of the kind of `sources[0]`.

In bfloat16, PyTorch's, JAX's or that of ml_dtypes in NumPy's arrays, sums and what becomes of them are float32, and a
result is rounded once, to nearest. Products of δ are of δ as rounded; so is a bias's gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from ._errors import DTypeError, ShapeError
from .arrays import BFLOAT16, all_finite, as_array, as_memory, dtype_name, has_bfloat16, like
from .checks import as_number, check_device

__all__ = ["residual_backward", "residual_forward", "residual_update"]

_SUFFIX = {np.dtype("float32"): "f32", np.dtype("float64"): "f64", BFLOAT16: "bf16"}
# Steps of NumPy's search for a common element. Blocks of one matrix need one; hostile strides, exponentially many.
_OVERLAP_WORK = 10_000


def residual_forward(
    sources: Sequence[Any],
    weights: Sequence[Any],
    bias: Any = None,
    identity: Sequence[Any] = (),
    activation: str | None = "relu",
    out: Any = None,
    check_finite: bool = False,
    device: str = "cpu",
) -> Any:
    """The block's output, (batch, N): He et al. 2016, equation 1, with any number of weighted and identity terms.

    Args:
        sources: non-empty, arrays of shape (batch, K_s), all float32, all float64 or all bfloat16.
        weights: as many arrays of shape (K_s, N).
        bias: (N,), or None.
        identity: arrays of shape (batch, N), added unweighted.
        activation: a name from `resnetcore.activations()`, or None for the identity.
        out: where to write the result, (batch, N) with contiguous rows, not overlapping an input; returned itself. A
            NumPy array, or one that offers its memory by DLPack or the buffer protocol. Of the inputs' dtype, or
            float32 where that is bfloat16: the same numbers before they are rounded.
        check_finite: raise ValueError where an argument holds NaN or infinities.
        device: where it is computed; arrays are the CPU's, and go to a GPU and back.

    Raises:
        DeviceError: a device that is not there, or more terms than its kernels add.
        ShapeError: arrays that do not fit; the message names both.
        DTypeError: a dtype other than float32, float64 and bfloat16, or several; an `out` that NumPy could only copy;
            bfloat16 results where nobody has imported ml_dtypes, and so NumPy has no dtype for them.
        ValueError: an unknown activation, a read-only or overlapping `out`.
    """
    where = _device("residual_forward", device)
    block = _Block.of("residual_forward", sources, weights, bias, identity, activation, check_finite)
    if out is None:
        block.check_results(sources[0])
        result = np.empty((block.rows, block.columns), block.dtype)
    else:
        result = block.checked_out(out)
    block.call("forward", *block.arrays(), result, where)
    return like(result, sources[0]) if out is None else out


def residual_backward(
    grad: Any,
    a: Any,
    sources: Sequence[Any],
    weights: Sequence[Any],
    bias: Any = None,
    identity: Sequence[Any] = (),
    activation: str | None = "relu",
    check_finite: bool = False,
    device: str = "cpu",
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any, tuple[Any, ...]]:
    """Gradients of the block: `(d_sources, d_weights, d_bias, d_identity)`, tuples in the order of the arguments.

    With δ = grad ⊙ g′: d_source = δ·Wᵀ, d_weight = Aᵀ·δ, d_bias = Σ_batch δ (None without a bias), d_identity = δ.

    Args:
        grad: ∂E/∂a, (batch, N).
        a: what `residual_forward` returned for the same arguments, in their dtype.
        sources, weights, bias, identity, activation, check_finite, device: as of `residual_forward`.

    Raises:
        DeviceError, ShapeError, DTypeError, ValueError: as `residual_forward`.
    """
    where = _device("residual_backward", device)
    block = _Block.of("residual_backward", sources, weights, bias, identity, activation, check_finite)
    block.check_results(sources[0])
    d_sources, d_weights, d_bias, delta = block.call("backward", *block.output_pair(grad, a), *block.arrays(), where)

    def kind(array: Any) -> Any:
        return like(array, sources[0])

    return (
        tuple(map(kind, d_sources)),
        tuple(map(kind, d_weights)),
        None if d_bias is None else kind(d_bias),
        block.identity_gradients(delta, sources[0]),
    )


def residual_update(
    grad: Any,
    a: Any,
    sources: Sequence[Any],
    weights: Sequence[Any],
    bias: Any = None,
    identity: Sequence[Any] = (),
    activation: str | None = "relu",
    lr: float = 0.1,
    check_finite: bool = False,
    device: str = "cpu",
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Gradients first, then ΔW = −lr·Aᵀδ and Δb = −lr·Σ_batch δ in place; returns `(d_sources, d_identity)`.

    In bfloat16 gradient, product and sum are float32, and W + ΔW is rounded: steps below half its last place are lost.

    Args:
        lr: η > 0. (The source article prints η < 0 beside Δw = −η·∂E/∂w; the two contradict each other, and this
            descends.)
        grad, a, sources, weights, bias, identity, activation, check_finite, device: as of `residual_backward`; weights
            and bias are NumPy arrays, or offer their memory by DLPack or the buffer protocol, and must be writable.

    Raises:
        DeviceError, ShapeError, DTypeError, ValueError: as `residual_backward`; nothing has been changed then.
    """
    operation = "residual_update"
    rate = as_number(f"{operation}: lr", lr)
    where = _device(operation, device)
    block = _Block.of(operation, sources, weights, bias, identity, activation, check_finite, trained=as_memory)
    computed = np.dtype(np.float32) if block.dtype == BFLOAT16 else block.dtype
    with np.errstate(over="ignore"):
        in_dtype = computed.type(rate)
    if not 0 < in_dtype < np.inf:
        raise ValueError(f"{operation}: lr must be positive and finite in {computed}, got {rate}")
    block.check_trained()
    block.check_results(sources[0])
    d_sources, delta = block.call("update", *block.output_pair(grad, a), *block.arrays(), rate, where)
    return tuple(like(d, sources[0]) for d in d_sources), block.identity_gradients(delta, sources[0])


def _device(operation: str, device: str) -> str:
    # Small blocks feel every check.
    return device if device == "cpu" else check_device(operation, device)


def _as_array(operation: str, name: str, value: Any) -> np.ndarray:
    # Results are of the inputs' dtype and `out` is written in place: nothing may be converted on the way in.
    return as_array(operation, name, value, widen=False)


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    try:
        return np.shares_memory(a, b, max_work=_OVERLAP_WORK)  # type: ignore[arg-type]  # NumPy's stub knows 0 and -1
    except RuntimeError:  # TooHardError: their bounds overlap, and no sensible array has such strides
        return True


def check_block(operation: str, sources: Any, weights: Any, bias: Any, identity: Any, activation: str | None) -> str:
    """The activation's name, where arrays of such shapes and dtypes are a block's; else raises as `residual_forward`.

    For arrays that have no values yet, as while a framework traces: only `shape` and `dtype` are looked at.
    """
    return _Block.of(operation, sources, weights, bias, identity, activation, False, _Abstract.of).activation


@dataclass
class _Abstract:
    """What is checked of an array that has no values."""

    shape: tuple[Any, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, operation: str, name: str, value: Any) -> Any:
        return cls(value.shape, BFLOAT16 if value.dtype.name == "bfloat16" else value.dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)


@dataclass
class _Block:
    """The arguments of one block, checked; every array is of one dtype and fits the others."""

    operation: str
    sources: list[np.ndarray]
    weights: list[np.ndarray]
    bias: np.ndarray | None
    identity: list[np.ndarray]
    activation: str
    check_finite: bool

    @classmethod
    def of(
        cls,
        operation: str,
        sources: Sequence[Any],
        weights: Sequence[Any],
        bias: Any,
        identity: Sequence[Any],
        activation: str | None,
        check_finite: bool,
        given: Callable[[str, str, Any], np.ndarray] = _as_array,
        trained: Callable[[str, str, Any], np.ndarray] | None = None,
    ) -> _Block:
        """`given` takes the arrays; the weights and the bias only where `trained` is not there to do so."""
        trained = trained or given
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

    def call(self, function: str, *arguments: Any) -> Any:
        return getattr(_core, f"residual_{function}_{_SUFFIX[self.dtype]}")(*arguments)

    def identity_gradients(self, delta: np.ndarray, original: Any) -> tuple[Any, ...]:
        return tuple(like(delta if i == 0 else delta.copy(), original) for i in range(len(self.identity)))

    def output_pair(self, grad: Any, a: Any) -> tuple[np.ndarray, np.ndarray]:
        pair = _as_array(self.operation, "grad", grad), _as_array(self.operation, "a", a)
        for name, array in zip(("grad", "a"), pair, strict=True):
            self._check_array(name, array, (self.rows, self.columns))
        return pair

    def check_results(self, original: Any) -> None:
        """Results can be of the kind of `sources[0]`."""
        if self.dtype == BFLOAT16 and not has_bfloat16(original):
            raise DTypeError(
                f"{self.operation}: sources[0] is bfloat16 in an array of type {type(original).__name__}, and NumPy has "
                "none for the results; import ml_dtypes, whose bfloat16 they then are, or give PyTorch's tensors"
            )

    def check_trained(self) -> None:
        """Each element of the weights and the bias is written to once, and nothing else is written with it."""
        trained = {f"weights[{i}]": weight for i, weight in enumerate(self.weights)}
        if self.bias is not None:
            trained["bias"] = self.bias
        others = [*self.sources, *self.identity]
        for name, array in trained.items():
            what = f"{self.operation}: {name}"
            repeated = any(step == 0 and size > 1 for step, size in zip(array.strides, array.shape, strict=True))
            if repeated or not array.flags.aligned:
                raise ShapeError(f"{what} must be aligned and have each element once, got strides {array.strides}")
            if any(_overlap(array, other) for other in others):
                raise ValueError(f"{what} must not overlap an input, nor another weight")
            others.append(array)

    def checked_out(self, out: Any) -> np.ndarray:
        result = as_memory(self.operation, "out", out)
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
        if any(_overlap(result, array) for array in everything):
            raise ValueError(f"{self.operation}: out must not overlap an input")
        return result

    def _check(self) -> None:
        if self.dtype not in _SUFFIX:
            raise DTypeError(
                f"{self.operation}: sources[0] must be float32, float64 or bfloat16, got {self.dtype}; "
                "convert it with .astype('float32')"
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

    def _check_array(self, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
        if array.dtype != self.dtype:
            expected = dtype_name(self.dtype)
            raise DTypeError(
                f"{self.operation}: {name} must be {expected} as sources[0] is, got {dtype_name(array.dtype)}; "
                f"convert it with .astype('{expected}')"
            )
        if array.shape != shape:
            raise ShapeError(f"{self.operation}: {name} must be {shape}, got {array.shape}")
        if self.check_finite and not all_finite(array):
            raise ValueError(f"{self.operation}: {name} holds NaN or infinite values")
