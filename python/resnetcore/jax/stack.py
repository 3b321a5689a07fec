"""A stack of layers as functions of a pytree: parameters are JAX's to keep, and one call of XLA's runs all layers."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import available_precision
from .._errors import DTypeError, ShapeError
from .._topology_text import Topology, decode, encode
from ..layers import Layer
from ..network import Network
from .shared import Array, is_array, varying_alike
from .stack_primitives import Program, stack_forward

Arrays = Mapping[str, Array]
_NONE: Arrays = MappingProxyType({})
_DTYPES = ("float32", "float64", "bfloat16")
# Of what `jax.default_matmul_precision` takes, what is not float32 on a CPU.
_PRECISIONS = {
    **dict.fromkeys(("high", "tensorfloat32", "TF32_TF32_F32", "BF16_BF16_F32_X3"), "high"),
    **dict.fromkeys(("bfloat16", "BF16_BF16_F32", "BF16_BF16_BF16"), "medium"),
}
_NO_SEED = np.zeros(2, "uint32")


class ResidualStack:
    """Layers as `rc.Network` takes them, and one call of XLA's for all of them. It holds no arrays.

    Args:
        inputs: number of columns of x.
        layers: `resnetcore.Layer`s, first to last.

    Parameters, what is trained, and buffers, running statistics and the matrices of fixed skips, are dicts with the names
    and shapes of `rc.Network`'s: "1.weight" (in, out), "1.bias", "3.skip.2.weight", "2.norm.running_mean". So
    `net.parameters()` and `net.buffers()` of a network of these layers can be given, and `net.set_parameters` takes what
    was trained. Stacks of equal layers are equal, and may be static arguments of `jax.jit`.

    float32 products are made of what `jax.default_matmul_precision` allows, "high" or "bfloat16", as those of an
    `rc.Network` of matmul precision "high" or "medium".

    Derivatives are in reverse mode, and first ones; none goes through the buffers. `jax.vmap` over x is one call on all
    rows where rows do not see each other, in inference and without norms and dropout; else it is a call for each.

    Raises:
        ShapeError, DTypeError, ValueError: as `rc.Network`; from a call, arrays that do not fit.
        DeviceError: it is compiled for another device than the CPU.
        NotImplementedError: a derivative in forward mode (`jvp`, `jacfwd`, `hessian`), or a second one.
    """

    def __init__(self, inputs: int, layers: Iterable[Layer]) -> None:
        net = Network(inputs, layers, seed=0, matmul_precision="highest")  # JAX says which, by call
        self.inputs, self.layers = net.inputs, tuple(net.layers)
        described = decode(Topology.to_json(net))
        self._topologies = {(name, "highest"): encode({**described, "dtype": name}) for name in _DTYPES}
        for precision in ("high", "medium"):
            self._topologies["float32", precision] = encode({**described, "matmul_precision": precision})
        self._trained = {name: array.shape for name, array in net.parameters().items()}
        self._kept = {name: array.shape for name, array in net.buffers().items()}
        self._norms = any(layer.norm for layer in self.layers)
        self._drops = any(layer.dropout or layer.branch_dropout for layer in self.layers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ResidualStack):
            return NotImplemented
        return self.inputs == other.inputs and self.layers == other.layers

    def __hash__(self) -> int:
        return hash((self.inputs, self.layers))

    def __repr__(self) -> str:
        return f"ResidualStack({self.inputs}, {list(self.layers)})"

    def init(self, key: Array, dtype: Any = "float32") -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Initial parameters and buffers, as `rc.Network` draws them. `key` is `jax.random`'s, and not traced."""
        seed = int(jax.random.bits(key, dtype="uint32"))
        net = Network(self.inputs, self.layers, seed, str(jnp.dtype(dtype)))
        parameters, buffers = (
            {name: jnp.asarray(array, dtype) for name, array in arrays.items()}
            for arrays in (net.parameters(), net.buffers())
        )
        return parameters, buffers

    def __call__(self, parameters: Arrays, x: Array, buffers: Arrays = _NONE) -> jax.Array:
        """(batch, inputs) to (batch, outputs), in inference: norms by the running statistics, and no dropout."""
        self._check(parameters, x, buffers)
        return _run(self, False, x, _NO_SEED, dict(parameters), dict(buffers))[0]

    def training_pass(
        self,
        parameters: Arrays,
        x: Array,
        buffers: Arrays = _NONE,
        key: Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The outputs in training, and the buffers with the running statistics carried on.

        Norms use the batch's statistics. `key`, of `jax.random`, is for the masks of dropout: another one for each step.
        """
        self._check(parameters, x, buffers)
        if self._norms and x.shape[0] == 1:
            raise ValueError(
                "ResidualStack: batch norm needs at least 2 rows in training, got 1; call stack(parameters, x, buffers) "
                "for inference"
            )
        # Without either, nothing is different in training.
        training = self._norms or self._drops
        out, moved = _run(self, training, x, self._seed(key), dict(parameters), dict(buffers))
        return out, {**buffers, **moved}

    def _seed(self, key: Array | None) -> Array:
        if not self._drops:
            return _NO_SEED
        if key is None:
            raise ValueError("ResidualStack: dropout needs key, a key of jax.random, got None")
        return jax.random.bits(key, (2,), "uint32")

    def _check(self, parameters: Arrays, x: Array, buffers: Arrays) -> None:
        if not is_array(x) or x.ndim != 2 or x.shape[1] != self.inputs:
            got = tuple(x.shape) if is_array(x) else type(x).__name__
            raise ShapeError(f"ResidualStack: x must be an array of shape (batch, {self.inputs}), got {got}")
        if _dtype(x) not in _DTYPES:
            raise DTypeError(f"ResidualStack: x must be float32, float64 or bfloat16, got {x.dtype}; use x.astype()")
        for what, arrays, shapes in (("parameters", parameters, self._trained), ("buffers", buffers, self._kept)):
            _check_arrays(what, arrays, shapes, _dtype(x))


def _products(dtype: str) -> str:
    """The matmul precision that is asked for, as far as the CPU gains by it. JAX traces again where it changes."""
    asked: Any = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return available_precision(_PRECISIONS.get(asked, "highest") if dtype == "float32" else "highest")


def _dtype(array: Array) -> str:
    """As JAX takes the array: NumPy's float64 is float32 where JAX has no float64 enabled."""
    return str(jax.dtypes.canonicalize_dtype(array.dtype))


def _check_arrays(what: str, arrays: Any, shapes: dict[str, tuple[int, ...]], dtype: str) -> None:
    if not isinstance(arrays, Mapping):
        raise DTypeError(f"ResidualStack: {what} must be a dict of arrays, got {type(arrays).__name__}")
    if arrays.keys() != shapes.keys():
        wrong = [f"lack {n!r}" for n in shapes if n not in arrays] + [f"have {n!r}" for n in arrays if n not in shapes]
        raise ValueError(f"ResidualStack: {what} must be those that init() gives, and {wrong[0]}")
    # Sums and statistics are float32 however narrow the activations are: values need not be rounded.
    taken = ("bfloat16", "float32") if dtype == "bfloat16" else (dtype,)
    for name, shape in shapes.items():
        value = arrays[name]
        if not is_array(value) or _dtype(value) not in taken:
            got = value.dtype if is_array(value) else type(value).__name__
            raise DTypeError(f"ResidualStack: {what}[{name!r}] must be {' or '.join(taken)} as x is {dtype}, got {got}")
        if value.shape != shape:
            raise ShapeError(f"ResidualStack: {what}[{name!r}] must be {shape}, got {value.shape}")


# Compiled by itself where it is not called from what is compiled anyway: looked up by shapes, it costs one dispatch.
@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _run(
    stack: ResidualStack, training: bool, x: Array, seed: Array, parameters: Arrays, buffers: Arrays
) -> tuple[jax.Array, dict[str, jax.Array]]:
    dtype = _dtype(x)
    program = Program(stack._topologies[dtype, _products(dtype)], training)
    names = [name for name, _, _ in program.core.parameters]
    wide = jnp.promote_types(dtype, jnp.float32)
    arrays = {**parameters, **jax.lax.stop_gradient(buffers)}
    values = [arrays[name].astype(wide) for name in names]
    out, *carried = stack_forward.bind(*varying_alike([x.astype(wide), seed, *values]), program=program, taped=False)
    moved = zip([names[i] for i in program.moved], carried, strict=True)
    return out.astype(dtype), {name: value.astype(_dtype(buffers[name])) for name, value in moved}
