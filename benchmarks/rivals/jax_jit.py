from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ..networks import EPS, MOMENTUM, OPTIMIZERS, forward, is_trained


class Pure:
    """The parts of a layer as functions; running statistics that a norm has moved on are left in `moved`."""

    def __init__(self):
        self.moved = {}

    def product(self, a, weight, bias):
        return a @ weight + bias if bias is not None else a @ weight

    def add(self, z, a):
        return z + a

    def add_product(self, z, a, weight):
        return z + a @ weight

    relu = staticmethod(jax.nn.relu)

    def norm(self, z, arrays, names):
        weight, bias, mean, var = (arrays[name] for name in names)
        batch_mean, batch_var = z.mean(0), z.var(0)
        unbiased = batch_var * (len(z) / (len(z) - 1))
        self.moved[names[2]] = mean + MOMENTUM * (batch_mean - mean)
        self.moved[names[3]] = var + MOMENTUM * (unbiased - var)
        return (z - batch_mean) * (weight * jax.lax.rsqrt(batch_var + EPS)) + bias


# An optimizer's rule: (parameter, gradient, states, number of the step, numbers) to (parameter, states).


def sgd(p, g, states, step, lr):
    return p - lr * g, states


def momentum(p, g, states, step, lr, momentum):
    velocity = momentum * states[0] + g
    return p - lr * velocity, (velocity,)


def adamw(p, g, states, step, lr, betas, eps, weight_decay):
    first = betas[0] * states[0] + (1 - betas[0]) * g
    second = betas[1] * states[1] + (1 - betas[1]) * g * g
    scale = jnp.sqrt(second) / jnp.sqrt(1 - betas[1] ** step) + eps
    return p * (1 - lr * weight_decay) - lr / (1 - betas[0] ** step) * first / scale, (first, second)


RULES = {"sgd": (sgd, 0), "momentum": (momentum, 1), "adamw": (adamw, 2)}


def narrow(case, arrays):
    """Matrices and activations in the precision of the case; vectors stay float32, as does what is made of them."""
    return {name: a.astype(case.precision) if a.ndim == 2 else a for name, a in arrays.items()}


def logits_of(case, problem, trained, running, inputs):
    """In training, also the running statistics that norms have moved on."""
    arrays, use = narrow(case, {**trained, **running}), Pure()
    if case.precision != "float32":
        use.product = lambda a, w, b: (a.astype(w.dtype) @ w).astype(w.dtype) + (0 if b is None else b.astype(w.dtype))
        inputs = inputs.astype(case.precision)
    return forward(problem.layers, arrays, inputs, use).astype("float32"), use.moved


def build(case, problem, threads, logits_of=logits_of):
    del threads  # XLA's CPU client takes what affinity gives it
    # Its permission for float32 products of less, for what asks: its own products on a CPU stay float32.
    permission = {"highest": None, "high": "high", "medium": "bfloat16"}[case.products]
    jax.config.update("jax_default_matmul_precision", permission)
    return infer(case, problem.folded(), logits_of) if case.mode == "infer" else train(case, problem, logits_of)


def infer(case, problem, logits_of):
    inputs, arrays = jnp.asarray(problem.x), jax.tree.map(jnp.asarray, problem.arrays)
    run = jax.jit(lambda arrays, inputs: logits_of(case, problem, arrays, {}, inputs)[0])
    return lambda: np.asarray(run(arrays, inputs)), dict


def train(case, problem, logits_of):
    rule, count = RULES[case.optimizer]
    numbers = OPTIMIZERS[case.optimizer]
    inputs, target = jnp.asarray(problem.x), jnp.asarray(problem.labels)
    arrays = {name: jnp.array(array) for name, array in problem.arrays.items()}
    trained = {name: array for name, array in arrays.items() if is_trained(name)}
    running = {name: array for name, array in arrays.items() if not is_trained(name)}
    states = {name: tuple(jnp.zeros_like(array) for _ in range(count)) for name, array in trained.items()}

    def loss_of(trained, running, inputs, target):
        logits, moved = logits_of(case, problem, trained, running, inputs)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), target[:, None], axis=1).mean(), moved

    @partial(jax.jit, donate_argnums=(0, 1, 2))
    def update(trained, running, states, step, inputs, target):
        (loss, running), gradients = jax.value_and_grad(loss_of, has_aux=True)(trained, running, inputs, target)
        new = {name: rule(p, gradients[name], states[name], step, **numbers) for name, p in trained.items()}
        return loss, {n: p for n, (p, _) in new.items()}, running, {n: s for n, (_, s) in new.items()}

    now = (trained, running, states)
    count = 0

    def step():
        nonlocal now, count
        count += 1
        loss, *now = update(*now, np.float32(count), inputs, target)
        return float(loss)

    return step, lambda: {name: np.asarray(array) for name, array in {**now[0], **now[1]}.items()}
