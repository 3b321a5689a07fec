"""resnetcore inside JAX: a call of the block for every layer, in a training step that XLA compiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax

import resnetcore as rc
from resnetcore.jax import residual

from . import Unable, jax_jit


@dataclass(frozen=True)
class Sum:
    """A layer's terms before they are added up: the block takes all of them, and the activation, in one call."""

    sources: tuple
    weights: tuple
    bias: jax.Array | None
    identity: tuple = ()

    def through(self, activation):
        return residual(list(self.sources), list(self.weights), self.bias, list(self.identity), activation)

    def astype(self, dtype):
        return self.through(None).astype(dtype)


class Block(jax_jit.Pure):
    def product(self, a, weight, bias):
        return Sum((a,), (weight,), bias)

    def add(self, z, a):
        return replace(z, identity=(*z.identity, a))

    def add_product(self, z, a, weight):
        return replace(z, sources=(*z.sources, a), weights=(*z.weights, weight))

    def relu(self, z):
        return z.through("relu")


def build(case, problem, threads):
    if (case.variant == "norm" and case.mode == "train") or case.precision != "float32":
        raise Unable("inside JAX there is the block alone, and it is measured in float32")
    rc.set_num_threads(threads)
    return jax_jit.build(case, problem, threads, use=Block)
