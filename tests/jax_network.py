"""Networks in JAX's own operations, how results are compared with them, and stacks to compare."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

import resnetcore as rc

ACTIVATIONS = {
    "identity": lambda z: z,
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "softplus": lambda z: jnp.where(z > 20, z, jax.nn.softplus(z)),  # PyTorch's
}


def relative(a, b):
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-300)


def assert_close(ours, truth, bound=1e-13):
    leaves, expected = jax.tree.leaves(ours), jax.tree.leaves(truth)
    assert jax.tree.structure(ours) == jax.tree.structure(truth)
    for a, b in zip(leaves, expected, strict=True):
        assert a.shape == b.shape
        assert relative(a, b) < bound


def run_on_two_devices(program):
    """A program in a process where JAX sees two CPU devices."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", program], env=flags, check=True)


def network(layers, arrays, x, training):
    """`rc.Layer`s without dropout: the outputs, and running statistics carried on by name; arrays by `rc.Network`'s names."""
    moved = {}

    def norm(z, number):
        weight, bias, mean, var = (
            arrays[f"{number}.norm.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        if training:
            unbiased = z.var(0) * (len(z) / (len(z) - 1))
            moved[f"{number}.norm.running_mean"] = mean + 0.1 * (z.mean(0) - mean)
            moved[f"{number}.norm.running_var"] = var + 0.1 * (unbiased - var)
            mean, var = z.mean(0), z.var(0)
        return (z - mean) * (weight * jax.lax.rsqrt(var + 1e-5)) + bias

    outputs = [x]
    for number, layer in enumerate(layers, 1):
        g, before = ACTIVATIONS[layer.activation], outputs[-1]
        if layer.pre:
            before = g(norm(before, number) if layer.norm else before)
        z = before @ arrays[f"{number}.weight"] + arrays.get(f"{number}.bias", 0)
        if layer.norm and not layer.pre:
            z = norm(z, number)
        for back, kind in layer.skips.items():
            earlier = outputs[number - back]
            identity = isinstance(kind, str) and kind == "identity"
            z = z + (earlier if identity else earlier @ arrays[f"{number}.skip.{back}.weight"])
        a = z if layer.pre else g(z)
        if layer.gate:
            share = jax.nn.sigmoid(before @ arrays[f"{number}.gate.weight"] + arrays[f"{number}.gate.bias"])
            a = share * a + (1 - share) * before
        outputs.append(a)
    return outputs[-1], moved


def layers(norm="batch"):
    """Every kind of layer, smooth enough for differences."""
    return [
        rc.Layer(6, activation="tanh"),
        rc.Layer(6, activation="silu", norm=norm, skips={2: "identity"}),
        rc.Layer(5, activation="gelu", skips={2: "learned", 3: "learned"}),
        rc.Layer(5, activation="tanh", norm=norm, pre=True, skips={2: np.linspace(-1, 1, 30).reshape(6, 5)}),
        rc.Layer(5, activation="softplus", gate=True),
        rc.Layer(3, activation=None, skips={5: "learned"}),
    ]


def few_layers():
    return [*layers()[:2], rc.Layer(3, activation=None)]


def relu_layers(width=40, depth=7):
    """Wide enough for several panels and a tail, and without norms: tiles of rows go through all layers."""
    skips = [{}, {2: "identity"}, {3: "learned"}]
    return [
        *(rc.Layer(width, skips=skips[n % 3] if n > 2 else {}) for n in range(1, depth)),
        rc.Layer(4, activation=None),
    ]


def given(stack, dtype="float64", rows=7, seed=0):
    """Parameters, x and buffers; running statistics are not those of the start."""
    parameters, buffers = stack.init(jax.random.key(seed), dtype)
    rng = np.random.default_rng(seed)
    for name, value in buffers.items():
        if ".running_" in name:
            buffers[name] = jnp.asarray(rng.uniform(0.5, 1.5, value.shape), dtype)
    return parameters, jnp.asarray(rng.standard_normal((rows, stack.inputs)), dtype), buffers


def ours(stack, training, parameters, x, buffers):
    return stack.training_pass(parameters, x, buffers)[0] if training else stack(parameters, x, buffers)


def theirs(stack, training, parameters, x, buffers):
    return network(stack.layers, {**parameters, **buffers}, x, training)[0]


def loss_of(run, stack, training, buffers):
    return lambda parameters, x: jnp.square(run(stack, training, parameters, x, buffers)).mean()
