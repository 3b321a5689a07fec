"""What every primitive here shares: how XLA calls it, what it refuses, how batches and devices are seen to. Nothing here
computes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla
from jax.sharding import NamedSharding

from .. import _core
from .._errors import ArrayDeviceError, BuildFeatureError

Array = Any  # jax.Array, traced or not, or NumPy's
_HANDLERS = _core.xla_handlers()


def is_array(value: Any) -> bool:
    """Whether it is one of those that are taken."""
    return isinstance(value, (jax.Array, np.ndarray))


def primitive(name: str, operation: str, attributes: Callable[..., dict[str, Any]]) -> Primitive:
    """A primitive that is a call of the handler of that name on the CPU, and an error elsewhere.

    `attributes` gives XLA's attributes from the primitive's parameters.
    """
    target = f"resnetcore_{name}"
    try:
        jax.ffi.register_ffi_target(target, _HANDLERS[target], platform="cpu")
    except Exception as error:  # of no public type
        raise BuildFeatureError(
            f"resnetcore.jax: this version of JAX, {jax.__version__}, does not take this build's kernels ({error}); upgrade "
            "resnetcore, or install an older JAX"
        ) from error
    rule = jax.ffi.ffi_lowering(target)

    def lower(context: Any, *operands: Any, **parameters: Any) -> Any:
        given = attributes(**parameters)
        return rule(context, *operands, **{k: v if isinstance(v, str) else np.int64(v) for k, v in given.items()})

    made = Primitive(name)
    made.def_impl(functools.partial(xla.apply_primitive, made))
    mlir.register_lowering(made, functools.partial(_refuse_device, operation))
    mlir.register_lowering(made, lower, platform="cpu")
    return made


def _refuse_device(operation: str, context: Any, *_: Any, **__: Any) -> NoReturn:
    raise ArrayDeviceError(
        f"{operation}: arrays must be in the CPU's memory, and this is compiled for "
        f"{'/'.join(context.module_context.platforms)}; move them with jax.device_put(x, jax.devices('cpu')[0]), or use "
        "jax.default_device"
    )


def no_second_derivative(operation: str, *_: Any, **__: Any) -> NoReturn:
    """Raises what a derivative of a gradient gets."""
    raise NotImplementedError(
        f"{operation}: its gradient cannot be differentiated again; use JAX's own operations where second derivatives are "
        "needed"
    )


def _no_forward_mode(operation: str, *_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError(
        f"{operation}: there are no derivatives in forward mode (jvp, jacfwd, hessian); use grad, vjp or jacrev, or JAX's "
        "own operations where forward mode is needed"
    )


def tangent(name: str, operation: str, transpose: Callable[..., list[Any]]) -> Primitive:
    """A derivative, linear in the tangents: all that is ever done with it is to transpose it, which gives the gradient.

    Its first operand is of the output's shape. Where a tangent is asked for itself, that is an error.
    """
    made = Primitive(name)
    refused = functools.partial(_no_forward_mode, operation)
    made.def_abstract_eval(lambda out, *_, **__: out)
    made.def_impl(refused)
    mlir.register_lowering(made, refused)
    batching.primitive_batchers[made] = refused
    ad.primitive_transposes[made] = transpose
    ad.primitive_jvps[made] = functools.partial(no_second_derivative, operation)
    return made


def as_operand(gradient: Array, operand: Array) -> Array:
    """Of the operand's dtype and, where shardings are explicit, with its sharding: δ lies as the output does."""
    spec, given = jax.typeof(operand).sharding.spec, jax.typeof(gradient).sharding
    if given.spec != spec:
        gradient = jax.sharding.reshard(gradient, NamedSharding(given.mesh, spec))
    return gradient.astype(operand.dtype)


def rows_are_split(x: Array) -> bool:
    """Whether the rows of a batch of batches lie on several devices, by an explicit sharding.

    JAX has no way to say how rows that are merged with the batches would then be split.
    """
    return jax.typeof(x).sharding.spec[1] is not None


def one_by_one(call: Primitive, operands: Sequence[Array], dims: Sequence[int | None], **parameters: Any) -> Any:
    """A call for each batch, one after the other: each has all the threads."""
    batched = [jnp.moveaxis(x, dim, 0) for x, dim in zip(operands, dims, strict=True) if dim is not None]

    def one(given: list[Array]) -> Any:
        rest = iter(given)
        return call.bind(
            *(x if dim is None else next(rest) for x, dim in zip(operands, dims, strict=True)), **parameters
        )

    results = jax.lax.map(one, batched)
    return results, [0] * len(results) if call.multiple_results else 0


def varying_alike(operands: list[Array]) -> list[Array]:
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
