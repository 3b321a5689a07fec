"""The block and its gradient as JAX primitives: what they give, what XLA calls for them, and how they are transformed.

Operands are in the order of the handlers in `csrc/xla/residual.h`: sources, weights, identity terms, and the bias if
there is one. `sources` and `identity` count them. The derivative is a primitive of its own, `residual_tangent`, linear
in the tangents: all that is ever done with it is to transpose it, which gives the gradient.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla
from jax.sharding import NamedSharding, PartitionSpec

from .. import _core
from .._errors import ArrayDeviceError, BuildFeatureError

Array = Any
Shape = jax.core.ShapedArray
_FORWARD_MODE = (
    "residual: there are no derivatives in forward mode (jvp, jacfwd, hessian); use grad, vjp or jacrev, or JAX's own "
    "operations where forward mode is needed"
)
_SECOND = "residual: its gradient cannot be differentiated again; use JAX's own operations where second derivatives are needed"


def _refuse(message: str, *_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError(message)


def _refuse_device(context: Any, *_: Any, **__: Any) -> NoReturn:
    raise ArrayDeviceError(
        f"residual: arrays must be in the CPU's memory, and this is compiled for {'/'.join(context.module_context.platforms)}; "
        "move them with jax.device_put(x, jax.devices('cpu')[0]), or use jax.default_device"
    )


def _primitive(name: str, handler: Any) -> Primitive:
    """A primitive that is a call of `handler` on the CPU, and an error elsewhere."""
    target = f"resnetcore_{name}"
    try:
        jax.ffi.register_ffi_target(target, handler, platform="cpu")
    except Exception as error:  # of no public type
        raise BuildFeatureError(
            f"resnetcore.jax: this version of JAX, {jax.__version__}, does not take this build's kernels ({error}); upgrade "
            "resnetcore, or install an older JAX"
        ) from error
    primitive = Primitive(name)
    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    mlir.register_lowering(primitive, _refuse_device)
    mlir.register_lowering(primitive, functools.partial(_lower, jax.ffi.ffi_lowering(target)), platform="cpu")
    return primitive


def _lower(rule: Any, context: Any, *operands: Any, activation: str, **counts: int) -> Any:
    return rule(context, *operands, activation=activation, **{k: np.int64(v) for k, v in counts.items()})


_HANDLERS = _core.xla_handlers()
residual_forward = _primitive("residual_forward", _HANDLERS["resnetcore_residual_forward"])
residual_backward = _primitive("residual_backward", _HANDLERS["resnetcore_residual_backward"])
residual_backward.multiple_results = True
residual_tangent = Primitive("residual_tangent")


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


@residual_tangent.def_abstract_eval
def _(a: Shape, *_: Shape, **__: Any) -> Shape:
    return a


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
    return nothing + [_as_operand(d, x) for d, x, varies in zip(by_operand, operands, varied, strict=True) if varies]


def _as_operand(gradient: Array, operand: Array) -> Array:
    """Of the operand's dtype and, where shardings are explicit, with its sharding: δ lies as the output does."""
    spec, given = jax.typeof(operand).sharding.spec, jax.typeof(gradient).sharding
    if given.spec != spec:
        gradient = jax.sharding.reshard(gradient, NamedSharding(given.mesh, spec))
    return gradient.astype(operand.dtype)


def _batch_forward(operands: Sequence[Array], dims: Sequence[int | None], **block: Any) -> tuple[Array, int]:
    """Rows of all batches in one call, if nothing but rows is batched, and they are not split over devices."""
    n = block["sources"]
    has_rows = [i < n or 2 * n <= i < 2 * n + block["identity"] for i in range(len(operands))]
    if any(dim is not None and not rows for dim, rows in zip(dims, has_rows, strict=True)):
        return _one_by_one(residual_forward, operands, dims, **block)
    size = next(x.shape[dim] for x, dim in zip(operands, dims, strict=True) if dim is not None)

    def stacked(x: Array, dim: int | None) -> Array:
        return jnp.broadcast_to(x, (size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)

    batches = [stacked(x, dim) if rows else x for x, dim, rows in zip(operands, dims, has_rows, strict=True)]
    # With explicit sharding, JAX has no way to say how the merged rows would then be split.
    if any(jax.typeof(x).sharding.spec[1] is not None for x, rows in zip(batches, has_rows, strict=True) if rows):
        return _one_by_one(residual_forward, operands, dims, **block)
    rows = batches[0].shape[1]
    merged = [
        x.reshape(size * rows, x.shape[2]) if is_rows else x for x, is_rows in zip(batches, has_rows, strict=True)
    ]
    a = residual_forward.bind(*merged, **block)
    return a.reshape(size, rows, a.shape[1]), 0


def _one_by_one(primitive: Primitive, operands: Sequence[Array], dims: Sequence[int | None], **block: Any) -> Any:
    """A call for each batch, one after the other: each has all the threads."""
    batched = [jnp.moveaxis(x, dim, 0) for x, dim in zip(operands, dims, strict=True) if dim is not None]

    def one(given: list[Array]) -> Any:
        rest = iter(given)
        return primitive.bind(
            *(x if dim is None else next(rest) for x, dim in zip(operands, dims, strict=True)), **block
        )

    results = jax.lax.map(one, batched)
    return results, [0] * len(results) if primitive.multiple_results else 0


ad.primitive_jvps[residual_forward] = _jvp
ad.primitive_jvps[residual_tangent] = functools.partial(_refuse, _SECOND)
ad.primitive_jvps[residual_backward] = functools.partial(_refuse, _SECOND)
ad.primitive_transposes[residual_tangent] = _transpose
batching.primitive_batchers[residual_forward] = _batch_forward
batching.primitive_batchers[residual_backward] = functools.partial(_one_by_one, residual_backward)
# Where a tangent is asked for itself, and not to be transposed.
residual_tangent.def_impl(functools.partial(_refuse, _FORWARD_MODE))
mlir.register_lowering(residual_tangent, functools.partial(_refuse, _FORWARD_MODE))
batching.primitive_batchers[residual_tangent] = functools.partial(_refuse, _FORWARD_MODE)
