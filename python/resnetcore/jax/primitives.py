"""The block and its gradient as JAX primitives: what they give, what XLA calls for them, and how they are transformed.

Operands are in the order of the handlers in `csrc/xla/residual.h`: sources, weights, identity terms, and the bias if
there is one. `sources` and `identity` count them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad, batching
from jax.sharding import NamedSharding, PartitionSpec

from .shared import Array, as_operand, no_second_derivative, one_by_one, primitive, rows_are_split, tangent

Shape = jax.core.ShapedArray

# The parameters of a primitive are the handler's attributes.
residual_forward = primitive("residual_forward", "residual", dict)
residual_backward = primitive("residual_backward", "residual", dict)
residual_backward.multiple_results = True


@residual_forward.def_abstract_eval
def _(*operands: Shape, sources: int, identity: int, activation: str) -> Shape:
    rows, given = operands[0].shape[0], operands[0].sharding
    # With explicit sharding, rows lie as those of the source do; how its columns are split says nothing of ours.
    sharding = NamedSharding(given.mesh, PartitionSpec(*given.spec[:1], None))
    return operands[0].update(shape=(rows, operands[sources].shape[1]), sharding=sharding)


@residual_backward.def_abstract_eval
def _(
    grad: Shape, a: Shape, *operands: Shape, sources: int, identity: int, activation: str, source_gradients: bool
) -> list[Shape]:
    # Sums over rows are rounded where they are used: XLA may fuse that with what follows.
    sums = jnp.promote_types(grad.dtype, jnp.float32)
    trained = [*operands[sources : 2 * sources], *operands[2 * sources + identity :]]
    # They vary inside shard_map as the gradient does, whatever the weights do: JAX then sees where a sum is missing.
    gradients = [grad.update(shape=x.shape, dtype=sums, sharding=x.sharding) for x in trained]
    return [*(operands[:sources] if source_gradients else ()), *gradients[:sources], grad, *gradients[sources:]]


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], **block: Any) -> tuple[Array, Array]:
    a = residual_forward.bind(*primals, **block)
    given = [t for t in tangents if not isinstance(t, ad.Zero)]
    varied = tuple(not isinstance(t, ad.Zero) for t in tangents)
    return a, residual_tangent.bind(a, *primals, *given, varied=varied, **block)


def _transpose(grad: Any, a: Array, *given: Any, varied: tuple[bool, ...], **block: Any) -> list[Any]:
    """The gradients of what varies, and None for everything else."""
    operands = given[: len(varied)]
    nothing = [None] * (1 + len(operands))
    if isinstance(grad, ad.Zero):
        return nothing + [None] * sum(varied)
    n, n_identity = block["sources"], block["identity"]
    wanted = any(varied[:n])
    gradients = residual_backward.bind(grad, a, *operands, source_gradients=wanted, **block)
    if not wanted:
        gradients = [None] * n + gradients
    by_operand = [*gradients[: 2 * n], *[gradients[2 * n]] * n_identity, *gradients[2 * n + 1 :]]
    return nothing + [as_operand(d, x) for d, x, varies in zip(by_operand, operands, varied, strict=True) if varies]


residual_tangent = tangent("residual_tangent", "residual", _transpose)


def _batch_forward(operands: Sequence[Array], dims: Sequence[int | None], **block: Any) -> tuple[Array, int]:
    """Rows of all batches in one call, if nothing but rows is batched, and they are not split over devices."""
    n = block["sources"]
    has_rows = [i < n or 2 * n <= i < 2 * n + block["identity"] for i in range(len(operands))]
    if any(dim is not None and not rows for dim, rows in zip(dims, has_rows, strict=True)):
        return one_by_one(residual_forward, operands, dims, **block)
    size = next(x.shape[dim] for x, dim in zip(operands, dims, strict=True) if dim is not None)

    def stacked(x: Array, dim: int | None) -> Array:
        return jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)

    batches = [stacked(x, dim) if rows else x for x, dim, rows in zip(operands, dims, has_rows, strict=True)]
    if any(rows_are_split(x) for x, rows in zip(batches, has_rows, strict=True) if rows):
        return one_by_one(residual_forward, operands, dims, **block)
    rows = batches[0].shape[1]
    merged = [
        x.reshape(size * rows, x.shape[2]) if is_rows else x for x, is_rows in zip(batches, has_rows, strict=True)
    ]
    a = residual_forward.bind(*merged, **block)
    return a.reshape(size, rows, a.shape[1]), 0


ad.primitive_jvps[residual_forward] = _jvp
ad.primitive_jvps[residual_backward] = functools.partial(no_second_derivative, "residual")
batching.primitive_batchers[residual_forward] = _batch_forward
batching.primitive_batchers[residual_backward] = functools.partial(one_by_one, residual_backward)
