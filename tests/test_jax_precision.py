"""A stack's float32 products by what JAX is asked for: `jax.default_matmul_precision`."""

import numpy as np
import pytest

import resnetcore as rc

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402
from jax import export  # noqa: E402

from jax_network import given, loss_of, ours, relative, theirs  # noqa: E402
from resnetcore.jax import ResidualStack  # noqa: E402
from resnetcore.jax import stack as stack_module  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64_in_jax", "everywhere", "high_kernels")
# Of outputs, and of gradients: docs/math.md, "Accuracy".
BOUNDS = {"high": (2e-5, 1e-4), "bfloat16": (1e-2, 3e-2)}


@pytest.fixture
def everywhere(monkeypatch):
    """The kernels of "high" are slow where there are no tiles, and so not taken; here they are, of stacks of this file alone,
    as JAX keeps what it has traced."""
    monkeypatch.setattr(stack_module, "available_precision", lambda asked: asked)


def stack_of(width=40):
    """Every kind of layer, whose widths fill panels and do not."""
    return ResidualStack(
        6,
        [
            rc.Layer(width, activation="tanh"),
            rc.Layer(width, activation="silu", norm="batch", skips={2: "learned"}),
            rc.Layer(33, activation="gelu", skips={2: "learned"}),
            rc.Layer(33, activation="softplus", gate=True),
            rc.Layer(3, activation=None, skips={3: "learned"}),
        ],
    )


def passed(stack, training, parameters, x, buffers, run=ours):
    out = run(stack, training, parameters, x, buffers)
    d_parameters, d_x = jax.jit(jax.grad(loss_of(run, stack, training, buffers), (0, 1)))(parameters, x)
    return {"output": out, "input": d_x, **d_parameters}


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("precision", list(BOUNDS))
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [8, 61, 700])
def test_within_the_bounds_of_what_was_asked_for(rows, training, precision):
    stack = stack_of()
    values = given(stack, "float32", rows)
    exact = jax.tree.map(lambda a: a.astype("float64"), values)
    truth, plain = passed(stack, training, *exact, run=theirs), passed(stack, training, *values)
    with jax.default_matmul_precision(precision):
        got = passed(stack, training, *values)
    of_outputs, of_gradients = BOUNDS[precision]
    for name, value in got.items():
        assert value.dtype == "float32"
        assert relative(value, truth[name]) < (of_outputs if name == "output" else of_gradients), name
    assert not np.array_equal(got["output"], plain["output"])
    assert same(plain, passed(stack, training, *values))  # traced again


@pytest.mark.parametrize("asked", ["default", "highest", "float32", "BF16_BF16_F32_X6"])
def test_what_is_float32_on_a_cpu(asked):
    stack = stack_of(41)
    values = given(stack, "float32", 50)
    plain = passed(stack, True, *values)
    with jax.default_matmul_precision(asked):
        assert same(plain, passed(stack, True, *values))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_other_dtypes_take_no_notice(dtype):
    stack = stack_of(42)
    values = jax.tree.map(lambda a: a.astype(dtype), given(stack, "float32", 50))
    plain = passed(stack, False, *values)
    with jax.default_matmul_precision("high"):
        assert same(plain, passed(stack, False, *values))


def test_a_cpu_that_gains_nothing_by_it_keeps_float32(monkeypatch):
    monkeypatch.setattr(stack_module, "available_precision", lambda asked: "highest")
    stack = stack_of(43)
    values = given(stack, "float32", 50)
    plain = passed(stack, True, *values)
    with jax.default_matmul_precision("high"):
        assert same(plain, passed(stack, True, *values))


def test_many_batches_at_once_and_exported():
    stack = stack_of(44)
    parameters, x, buffers = given(stack, "float32", 24)
    with jax.default_matmul_precision("high"):
        expected = stack(parameters, x, buffers)
        batched = jax.vmap(lambda x: stack(parameters, x, buffers))(x.reshape(4, 6, 6))
        check = export.DisabledSafetyCheck.custom_call("resnetcore_residual_stack_forward")
        exported = export.export(jax.jit(stack), disabled_checks=[check])(parameters, x, buffers)
    assert np.array_equal(batched.reshape(24, 3), expected)
    restored = export.deserialize(exported.serialize())
    assert np.array_equal(jnp.asarray(restored.call(parameters, x, buffers)), expected)
