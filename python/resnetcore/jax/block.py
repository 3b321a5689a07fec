"""The block `a = g(Σ A·W + b + Σ identity)` on JAX's arrays. Checks are those of `resnetcore.ops`, made while JAX traces."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax

from .. import ops
from .._errors import DTypeError
from .primitives import residual_forward
from .shared import Array, is_array, varying_alike


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
        if not isinstance(value, (list, tuple)) or not all(map(is_array, value)):
            raise DTypeError(f"residual: {name} must be a list or tuple of arrays, got {value!r:.80}")
    if bias is not None and not is_array(bias):
        raise DTypeError(f"residual: bias must be an array or None, got {type(bias).__name__}")
    return _traced(tuple(sources), tuple(weights), bias, tuple(identity), activation)


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
        *varying_alike(operands), sources=len(sources), identity=len(identity), activation=name
    )
