"""Networks in JAX's own operations, and how results are compared with them."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

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
