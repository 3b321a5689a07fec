"""A whole stack of layers as one JAX primitive, and its gradient as another.

Operands are in the order of the handlers in `csrc/xla/stack.h`: x, the seed, then every parameter and buffer. What
backward needs of a forward pass is one of its results, the tape: XLA may keep it, drop it, or make it again. Nobody asks
for it but a derivative, so that what only predicts has none.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching
from jax.sharding import NamedSharding, PartitionSpec

from .. import _core
from .shared import Array, as_operand, no_second_derivative, one_by_one, primitive, rows_are_split, tangent

Shape = jax.core.ShapedArray
_OPERATION = "ResidualStack"
_FIRST_VALUE = 2  # after x and the seed


@dataclass(frozen=True)
class Program:
    """What is run, by the names that the handlers find it by. JAX's traces hold it, and so it keeps the core's object."""

    topology: str
    training: bool
    input_gradient: bool = False

    @functools.cached_property
    def core(self) -> _core.XlaStack:
        """Shared by all that are equal."""
        return _core.XlaStack(self.topology, self.training, self.input_gradient)

    @functools.cached_property
    def trained(self) -> list[int]:
        """Which values have gradients."""
        return [i for i, (_, _, trained) in enumerate(self.core.parameters) if trained]

    @functools.cached_property
    def moved(self) -> list[int]:
        """Which values are running statistics that a pass carries on."""
        return [i for i, (name, _, _) in enumerate(self.core.parameters) if self.training and ".running_" in name]


def _attributes(program: Program, **others: bool) -> dict[str, Any]:
    return {
        "topology": program.topology,
        "training": program.training,
        "input_gradient": program.input_gradient,
        "tape_layout": _core.tape_layout(),
        **others,
    }


stack_forward = primitive("residual_stack_forward", _OPERATION, _attributes)
stack_backward = primitive("residual_stack_backward", _OPERATION, _attributes)
stack_forward.multiple_results = stack_backward.multiple_results = True


def _whole(like: Shape, shape: tuple[Any, ...], dtype: Any = None) -> Shape:
    """An array that is not split where shardings are explicit, and varies inside shard_map as `like` does."""
    sharding = NamedSharding(like.sharding.mesh, PartitionSpec(*[None] * len(shape)))
    return like.update(shape=shape, dtype=dtype or like.dtype, sharding=sharding)


@stack_forward.def_abstract_eval
def _(x: Shape, seed: Shape, *values: Shape, program: Program, taped: bool) -> list[Shape]:
    rows, core = x.shape[0], program.core
    sharding = NamedSharding(x.sharding.mesh, PartitionSpec(*x.sharding.spec[:1], None))
    results = [x.update(shape=(rows, core.outputs), sharding=sharding)]
    if taped:
        whole, row = core.tape_bytes
        results.append(_whole(x, (whole + row * rows,), np.dtype("uint8")))
    return results + [_whole(x, values[i].shape) for i in program.moved]


@stack_backward.def_abstract_eval
def _(grad: Shape, tape: Shape, x: Shape, seed: Shape, *values: Shape, program: Program) -> list[Shape]:
    # They vary inside shard_map as the gradient does, whatever the values do: JAX then sees where a sum is missing.
    gradients = [grad.update(shape=values[i].shape, sharding=values[i].sharding) for i in program.trained]
    return [*([x] if program.input_gradient else []), *gradients]


def _jvp(
    primals: Sequence[Array], tangents: Sequence[Any], program: Program, taped: bool
) -> tuple[list[Array], list[Any]]:
    if taped:  # made for a gradient, of which this is a derivative
        no_second_derivative(_OPERATION)
    varied = tuple(not isinstance(t, ad.Zero) for t in tangents)
    program = replace(program, input_gradient=varied[0])
    out, tape, *carried = stack_forward.bind(*primals, program=program, taped=True)
    given = [t for t in tangents if not isinstance(t, ad.Zero)]
    moved = stack_tangent.bind(out, tape, *primals, *given, varied=varied, program=program)
    return [out, *carried], [moved, *(ad.Zero(jax.typeof(c).to_tangent_aval()) for c in carried)]


def _transpose(
    grad: Any, out: Array, tape: Array, *given: Any, varied: tuple[bool, ...], program: Program
) -> list[Any]:
    """The gradients of what varies, and None for everything else."""
    operands = given[: len(varied)]
    nothing = [None] * (2 + len(operands))
    if isinstance(grad, ad.Zero):
        return nothing + [None] * sum(varied)
    places = [*([0] if program.input_gradient else []), *(_FIRST_VALUE + i for i in program.trained)]
    gradients = dict(zip(places, stack_backward.bind(grad, tape, *operands, program=program), strict=True))
    return nothing + [as_operand(gradients[i], operands[i]) for i, varies in enumerate(varied) if varies]


def _batch_forward(
    operands: Sequence[Array], dims: Sequence[int | None], program: Program, taped: bool
) -> tuple[list[Array], list[int]]:
    """Rows of all batches in one call, where rows do not see each other and nothing else is batched; a tape is not cut."""
    whole = taped or program.training or any(dim is not None for dim in dims[1:])
    x = operands[0] if dims[0] is None else jnp.moveaxis(operands[0], dims[0], 0)
    if whole or rows_are_split(x):
        return one_by_one(stack_forward, operands, dims, program=program, taped=taped)
    (out,) = stack_forward.bind(
        x.reshape(x.shape[0] * x.shape[1], x.shape[2]), *operands[1:], program=program, taped=False
    )
    return [out.reshape(*x.shape[:2], out.shape[1])], [0]


stack_tangent = tangent("residual_stack_tangent", _OPERATION, _transpose)
ad.primitive_jvps[stack_forward] = _jvp
ad.primitive_jvps[stack_backward] = functools.partial(no_second_derivative, _OPERATION)
batching.primitive_batchers[stack_forward] = _batch_forward
batching.primitive_batchers[stack_backward] = functools.partial(one_by_one, stack_backward)
