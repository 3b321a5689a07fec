"""The block `a = g(Σ A·W + b + Σ identity)` on JAX's arrays. Checks are those of `resnetcore.ops`, made while JAX traces."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .. import ops
from .._errors import DTypeError
from .primitives import residual_forward

Array = Any  # jax.Array, traced or not, or NumPy's


def residual(
    sources: Sequence[Array],
    weights: Sequence[Array],
    bias: Array | None = None,
    identity: Sequence[Array] = (),
    activation: str | None = "relu",
) -> jax.Array:
    """The block's output, (batch, N), differentiable by every array: `resnetcore.ops.residual_forward` for JAX.

    Args:
        sources: non-empty, arrays of shape (batch, K_s), all float32, bfloat16, or float64 where JAX has it enabled.
        weights: as many arrays of shape (K_s, N).
        bias: (N,), or None.
        identity: arrays of shape (batch, N), added unweighted.
        activation: a name from `resnetcore.activations()`, or None for the identity.

    `jax.vmap` over sources and identity terms is one call on all rows; over weights too, it is a call for each. Derivatives
    are in reverse mode (`grad`, `vjp`, `jacrev`), and first ones.

    Raises:
        ShapeError, DTypeError, ValueError: as `resnetcore.ops.residual_forward`.
        DeviceError: it is compiled for another device than the CPU.
        NotImplementedError: a derivative in forward mode (`jvp`, `jacfwd`, `hessian`), or a second one.
    """
    for name, value in (("sources", sources), ("weights", weights), ("identity", identity)):
        if not isinstance(value, (list, tuple)) or not all(map(_is_array, value)):
            raise DTypeError(f"residual: {name} must be a list or tuple of arrays, got {value!r:.80}")
    if bias is not None and not _is_array(bias):
        raise DTypeError(f"residual: bias must be an array or None, got {type(bias).__name__}")
    return _traced(tuple(sources), tuple(weights), bias, tuple(identity), activation)


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


# Compiled by itself where it is not called from what is compiled anyway: looked up by shapes, it costs one dispatch.
@functools.partial(jax.jit, static_argnums=4, inline=True)
def _traced(
    sources: tuple[Array, ...],
    weights: tuple[Array, ...],
    bias: Array | None,
    identity: tuple[Array, ...],
    activation: str | None,
) -> jax.Array:
    name = ops.check_block("residual", sources, weights, bias, identity, activation)
    operands = [*sources, *weights, *identity, *([] if bias is None else [bias])]
    return residual_forward.bind(
        *_varying_alike(operands), sources=len(sources), identity=len(identity), activation=name
    )


def _varying_alike(operands: list[Array]) -> list[Array]:
    """Inside `shard_map`, as JAX's own operations see to: what is the same on all devices becomes each one's own copy.

    Its gradient is then the sum over the devices.
    """
    axes = [_varying_axes(x) for x in operands]
    every = frozenset[str]().union(*axes)
    if not every:
        return operands
    return [_varying(x, tuple(sorted(every - own))) for x, own in zip(operands, axes, strict=True)]


# JAX names these by other names in older versions.
def _varying(x: Array, axes: tuple[str, ...]) -> Array:
    if not axes:
        return x
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, axes, to="varying")
    return jax.lax.pvary(x, axes)  # type: ignore[attr-defined,unused-ignore]


def _varying_axes(x: Array) -> frozenset[str]:
    aval = jax.typeof(x)
    kind = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", frozenset()) if kind is None else kind.varying
