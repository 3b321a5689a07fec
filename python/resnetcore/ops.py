"""The block `a = g(Σ A·W + b + Σ identity)` as pure functions on anyone's arrays, for embedding.

Arrays are (batch, width), weights (in, out): they multiply from the right. NumPy arrays and CPU arrays of any library
that speaks DLPack or the buffer protocol are read where they lie; results are of the kind of `sources[0]`. So are arrays
on a GPU that speak DLPack or have a `__cuda_array_interface__`: the block is computed there, and results stay there.

In bfloat16, PyTorch's, JAX's or that of ml_dtypes in NumPy's arrays, sums and what becomes of them are float32, and a
result is rounded once, to nearest. Products of δ are of δ as rounded; so is a bias's gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._blocks import Block, Host, find_place
from .arrays import BFLOAT16, like
from .checks import as_number

__all__ = ["residual_backward", "residual_forward", "residual_update"]


def residual_forward(
    sources: Sequence[Any],
    weights: Sequence[Any],
    bias: Any = None,
    identity: Sequence[Any] = (),
    activation: str | None = "relu",
    out: Any = None,
    check_finite: bool = False,
    device: str | None = None,
    stream: int | None = None,
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
        device: where it is computed: None for where the arrays are. The CPU's may go to a GPU named here, and back.
        stream: of arrays on a GPU, a cudaStream_t's address (1 the legacy default stream, 2 the thread's): what it was
            given before the call comes before this work, and what it is given after the call, after it. None waits.

    Raises:
        DeviceError: a device that is not there, or more terms than its kernels add; arrays on several devices.
        ShapeError: arrays that do not fit; the message names both.
        DTypeError: a dtype other than float32, float64 and bfloat16, or several; an `out` that NumPy could only copy;
            bfloat16 results where nobody has imported ml_dtypes, and so NumPy has no dtype for them.
        ValueError: an unknown activation, a read-only or overlapping `out`.
    """
    operation = "residual_forward"
    place = find_place(operation, sources, weights, device, stream)
    block = Block.of(operation, place, sources, weights, bias, identity, activation, check_finite)
    if out is not None:
        place.forward(block, block.checked_out(out))
        return out
    block.check_results(sources[0])
    return like(place.forward(block, None), sources[0])


def residual_backward(
    grad: Any,
    a: Any,
    sources: Sequence[Any],
    weights: Sequence[Any],
    bias: Any = None,
    identity: Sequence[Any] = (),
    activation: str | None = "relu",
    check_finite: bool = False,
    device: str | None = None,
    stream: int | None = None,
) -> tuple[tuple[Any, ...], tuple[Any, ...], Any, tuple[Any, ...]]:
    """Gradients of the block: `(d_sources, d_weights, d_bias, d_identity)`, tuples in the order of the arguments.

    With δ = grad ⊙ g′: d_source = δ·Wᵀ, d_weight = Aᵀ·δ, d_bias = Σ_batch δ (None without a bias), d_identity = δ.

    Args:
        grad: ∂E/∂a, (batch, N).
        a: what `residual_forward` returned for the same arguments, in their dtype.
        sources, weights, bias, identity, activation, check_finite, device, stream: as of `residual_forward`.

    Raises:
        DeviceError, ShapeError, DTypeError, ValueError: as `residual_forward`.
    """
    operation = "residual_backward"
    place = find_place(operation, sources, weights, device, stream)
    block = Block.of(operation, place, sources, weights, bias, identity, activation, check_finite)
    block.check_results(sources[0])
    d_sources, d_weights, d_bias, d_identity = place.backward(block, *block.output_pair(grad, a))

    def kind(array: Any) -> Any:
        return like(array, sources[0])

    return (
        tuple(map(kind, d_sources)),
        tuple(map(kind, d_weights)),
        None if d_bias is None else kind(d_bias),
        tuple(map(kind, d_identity)),
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
    device: str | None = None,
    stream: int | None = None,
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Gradients first, then ΔW = −lr·Aᵀδ and Δb = −lr·Σ_batch δ in place; returns `(d_sources, d_identity)`.

    In bfloat16 gradient, product and sum are float32, and W + ΔW is rounded: steps below half its last place are lost.

    Args:
        lr: η > 0. (The source article prints η < 0 beside Δw = −η·∂E/∂w; the two contradict each other, and this
            descends.)
        grad, a, sources, weights, bias, identity, activation, check_finite, device, stream: as of `residual_backward`; weights
            and bias are NumPy arrays, or offer their memory by DLPack or the buffer protocol, and must be writable.

    Raises:
        DeviceError, ShapeError, DTypeError, ValueError: as `residual_backward`; nothing has been changed then.
    """
    operation = "residual_update"
    rate = as_number(f"{operation}: lr", lr)
    place = find_place(operation, sources, weights, device, stream)
    block = Block.of(operation, place, sources, weights, bias, identity, activation, check_finite, trains=True)
    computed = np.dtype(np.float32) if block.dtype == BFLOAT16 else block.dtype
    with np.errstate(over="ignore"):
        in_dtype = computed.type(rate)
    if not 0 < in_dtype < np.inf:
        raise ValueError(f"{operation}: lr must be positive and finite in {computed}, got {rate}")
    block.check_trained()
    block.check_results(sources[0])
    d_sources, d_identity = place.update(block, *block.output_pair(grad, a), rate)
    return tuple(like(d, sources[0]) for d in d_sources), tuple(like(d, sources[0]) for d in d_identity)


def check_block(operation: str, sources: Any, weights: Any, bias: Any, identity: Any, activation: str | None) -> str:
    """The activation's name, where arrays of such shapes and dtypes are a block's; else raises as `residual_forward`.

    For arrays that have no values yet, as while a framework traces: only `shape` and `dtype` are looked at.
    """
    return Block.of(operation, _NOWHERE, sources, weights, bias, identity, activation).activation


class _Nowhere(Host):
    def taken(self, operation: str, name: str, value: Any) -> Any:
        return _Abstract(value.shape, BFLOAT16 if value.dtype.name == "bfloat16" else value.dtype)


_NOWHERE = _Nowhere()


@dataclass
class _Abstract:
    """What is checked of an array that has no values."""

    shape: tuple[Any, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)
