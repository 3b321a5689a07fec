"""resnetcore inside JAX: a `ResidualStack`, in a training step that XLA compiles."""

from __future__ import annotations

import resnetcore as rc
from resnetcore.jax import ResidualStack

from . import jax_jit
from .resnetcore import network


def logits_of(case, problem, trained, running, inputs):
    net = network(problem, "float32")
    stack, inputs = ResidualStack(net.inputs, net.layers), inputs.astype(case.precision)
    if case.mode == "infer":
        return stack(trained, inputs, running).astype("float32"), {}
    logits, moved = stack.training_pass(trained, inputs, running)
    return logits.astype("float32"), moved


def build(case, problem, threads):
    rc.set_num_threads(threads)
    return jax_jit.build(case, problem, threads, logits_of)
