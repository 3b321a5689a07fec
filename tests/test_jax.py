"""`resnetcore.jax.residual`: gradients, transformations, devices and arguments, against JAX's own operations."""

import functools
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import resnetcore as rc

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402
from jax import export  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from jax_network import ACTIVATIONS, assert_close, run_on_two_devices  # noqa: E402
from resnetcore.jax import residual  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64_in_jax")
BOUNDS = {"float32": 2e-6, "float64": 1e-14, "bfloat16": 1e-2}


def arguments(dtype="float64", rows=5, widths=(3, 4), columns=6, n_identity=2, seed=0):
    rng = np.random.default_rng(seed)

    def random(*shape):
        return jnp.asarray(rng.standard_normal(shape)).astype(dtype)

    return (
        [random(rows, k) for k in widths],
        [random(k, columns) for k in widths],
        random(columns),
        [random(rows, columns) for _ in range(n_identity)],
    )


def theirs(sources, weights, bias, identity, name="relu"):
    z = sum(a @ w for a, w in zip(sources, weights, strict=True)) + sum(identity)
    return ACTIVATIONS[name](z if bias is None else z + bias)


@pytest.mark.parametrize("name", rc.activations())
def test_gradients_are_those_of_differences(name):
    check_grads(lambda *given: residual(*given, name), arguments(), order=1, modes=["rev"])


@pytest.mark.parametrize(
    ("name", "rows", "dtype"),
    [
        *((name, 7, "float32") for name in ACTIVATIONS),
        *((name, rows, dtype) for name in ("relu", "gelu") for rows in (1, 300) for dtype in BOUNDS),
    ],
)
def test_values_and_gradients_are_those_of_jax_in_float64(name, rows, dtype):
    ours = arguments(dtype, rows, (40, 17), 33)
    truth = jax.tree.map(lambda x: x.astype("float64"), ours)
    direction = jnp.asarray(np.random.default_rng(1).standard_normal((rows, 33))).astype(dtype)
    if dtype == "bfloat16" and name in ("relu", "leaky_relu", "elu"):
        # Where rounding may not take the other branch.
        direction = direction * (abs(theirs(*truth, name)) > 0.1).astype(dtype)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(block, given, direction):
        a, backward = jax.vjp(lambda given: block(*given, name), given)
        return a, backward(direction)[0]

    a, gradients = value_and_gradients(residual, ours, direction)
    b, expected = value_and_gradients(theirs, truth, direction.astype("float64"))
    assert all(x.dtype == dtype for x in jax.tree.leaves((a, gradients)))
    assert_close(a, b, BOUNDS[dtype])
    assert_close(gradients, expected, 10 * BOUNDS[dtype])


@pytest.mark.parametrize(("has_bias", "n_identity"), [(True, 0), (False, 0), (False, 1)])
def test_terms_that_are_not_there(has_bias, n_identity):
    sources, weights, bias, identity = arguments(n_identity=n_identity)
    given = (sources, weights, bias if has_bias else None, identity)
    assert_close(residual(*given), theirs(*given))
    assert_close(
        jax.grad(lambda g: residual(*g).sum())(given),
        jax.grad(lambda g: theirs(*g).sum())(given),
    )


def test_only_what_is_asked_for_gets_a_gradient():
    sources, weights, bias, identity = arguments()
    gradient = jax.grad(lambda w: residual(sources, [w, weights[1]], bias, identity).sum())
    assert_close(
        gradient(weights[0]),
        jax.grad(lambda w: theirs(sources, [w, weights[1]], bias, identity).sum())(weights[0]),
    )
    # That of the sources is not even computed.
    assert "source_gradients=False" in str(jax.make_jaxpr(gradient)(weights[0]))
    assert "source_gradients=True" in str(jax.make_jaxpr(jax.grad(lambda s: residual(s, weights).sum()))(sources))


def test_a_batch_of_no_rows():
    given = arguments(rows=0)
    assert residual(*given).shape == (0, 6)
    gradient = jax.grad(lambda g: residual(*g).sum())(given)
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, given)
    assert not any(d.any() for d in jax.tree.leaves(gradient))


def mapped(block, axes, given):
    """Values of a block that is mapped, the gradient of that, and the gradient that is mapped."""
    of_all = jax.vmap(lambda given: block(*given, "silu"), in_axes=(axes,))
    of_each = jax.grad(lambda given: block(*given, "silu").sum())
    gradient = jax.grad(lambda given: jnp.sin(of_all(given)).sum())
    return of_all(given), gradient(given), jax.vmap(of_each, in_axes=(axes,))(given)


@pytest.mark.parametrize(
    ("axes", "how"),
    [
        (((0, 0), (None, None), None, (0, 0)), "at once"),
        (((1, None), (None, None), None, (None, 2)), "at once"),
        (((None, None), (None, None), None, (None, 0)), "at once"),
        (((0, 0), (0, None), None, (0, 0)), "one by one"),
        (((None, None), (None, 1), 0, (None, None)), "one by one"),
        (((None, 0), (None, None), 1, (0, 0)), "one by one"),
    ],
)
def test_batched_by_vmap(axes, how):
    # Batches of each operand lie along the axis that is named; of an operand without one, the first is everybody's.
    axes = tuple(list(a) if isinstance(a, tuple) else a for a in axes)
    batches = [arguments(seed=seed) for seed in range(3)]
    given = jax.tree.map(
        lambda axis, *one: one[0] if axis is None else jnp.stack(one, axis), axes, *batches, is_leaf=lambda x: x is None
    )
    ours, truth = (jax.jit(functools.partial(mapped, block, axes)) for block in (residual, theirs))
    assert_close(ours(given), truth(given), 1e-12)
    forward = str(jax.make_jaxpr(jax.vmap(lambda given: residual(*given), in_axes=(axes,)))(given))
    assert ("scan[" in forward) == (how == "one by one")
    assert ("f64[15,6] = residual_forward" in forward) == (how == "at once")


def test_vmap_of_no_batches_and_of_batches_of_batches():
    x, (w, *_) = jnp.ones((2, 3, 5, 4)), arguments(widths=(4,))[1]
    block = lambda x: residual([x], [w])  # noqa: E731
    assert jax.vmap(block)(jnp.ones((0, 5, 4))).shape == (0, 5, 6)
    assert_close(jax.vmap(jax.vmap(block))(x), jax.nn.relu(x @ w))


def test_scan_checkpoint_and_jacobians():
    x, weights = arguments()[0][1], jnp.stack([w @ w.T for w in arguments(widths=(4, 4), seed=3)[1]])

    def deep(block, weights):
        step = jax.checkpoint(lambda h, w: (block([h], [w], None, [h]), None))
        return jax.lax.scan(step, x, weights)[0]

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(block, weights):
        gradient = jax.grad(lambda w: deep(block, w).sum())
        return jax.jacrev(functools.partial(deep, block))(weights), jax.vmap(gradient)(jnp.stack([weights, -weights]))

    assert_close(derivatives(residual, weights), derivatives(theirs, weights), 1e-12)


def test_without_jit():
    given = arguments()
    with jax.disable_jit():
        assert_close(residual(*given), theirs(*given))


def test_nothing_is_copied():
    given = arguments("float32")
    text = jax.jit(residual).lower(*given).compile().as_text()
    entry = text[text.index("ENTRY") :]
    (operands,) = re.findall(r"custom-call\((.*?)\)", entry)
    parameters = re.findall(r"(\S+) = \S+ parameter\(", entry)
    assert len(parameters) == 7 and sorted(re.findall(r"%[\w.]+", operands)) == sorted(parameters)
    assert "copy" not in entry and "transpose" not in entry


def test_several_threads_at_once():
    given = arguments("float32", 300, (64, 64), 64)
    gradient = jax.jit(jax.grad(lambda g: residual(*g).sum()))
    expected = gradient(given)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: gradient(given), range(20)):
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), result, expected))


def test_arrays_of_numpy():
    given = jax.tree.map(np.asarray, arguments("float32"))
    assert isinstance(residual(*given), jax.Array)
    assert_close(residual(*given), theirs(*given), 2e-6)


def test_a_batch_of_any_size_in_an_exported_program():
    _, (w, *_), bias, _ = arguments("float32", widths=(4,))
    target = export.DisabledSafetyCheck.custom_call("resnetcore_residual_forward")
    x = jax.ShapeDtypeStruct(export.symbolic_shape("batch, 4"), jnp.float32)
    program = export.export(jax.jit(lambda x: residual([x], [w], bias)), disabled_checks=[target])(x)
    for rows in (1, 9):
        x = jnp.ones((rows, 4), "float32")
        assert_close(program.call(x), jax.nn.relu(x @ w + bias), 2e-6)


SHARDED = """
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from resnetcore.jax import residual

Type = jax.sharding.AxisType
x, w = jax.random.normal(jax.random.key(0), (8, 4)), jax.random.normal(jax.random.key(1), (4, 4))
ours, theirs = lambda x, w: residual([x], [w], None, [x]), lambda x, w: jax.nn.relu(x @ w + x)
truth = jax.grad(lambda w: jnp.sin(theirs(x, w)).sum())(w)
for type in (Type.Explicit, Type.Auto):
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(type,))
    spread = jax.device_put(x, NamedSharding(mesh, P("rows")))
    assert jnp.allclose(jax.jit(jax.grad(lambda w: jnp.sin(ours(spread, w)).sum()))(w), truth, atol=1e-5)
    batches = jax.device_put(jnp.stack([x, -x]), NamedSharding(mesh, P(None, "rows")))
    assert jnp.allclose(jax.vmap(ours, in_axes=(0, None))(batches, w), jax.vmap(theirs, in_axes=(0, None))(batches, w), atol=1e-5)
    each = lambda block: jax.vmap(jax.grad(lambda w, x: block(x, w).sum()), in_axes=(None, 0))
    want = each(theirs)(w, jnp.stack([x, -x]))
    with jax.set_mesh(mesh):
        assert jnp.allclose(each(ours)(w, batches), want, atol=1e-5)
    # Columns of the source, and rows of the identity term, are split: the output's are not.
    given = jax.device_put(x, NamedSharding(mesh, P(None, "rows"))), w[:, :3], jax.device_put(x[:, :3], spread.sharding)
    loss = lambda block: lambda given: jnp.sin(block(*given)).sum()
    gradient = jax.jit(jax.grad(loss(lambda x, w, h: residual([x], [w], None, [h]))))(given)
    for got, want in zip(gradient, jax.grad(loss(lambda x, w, h: jax.nn.relu(x @ w + h)))((x, w[:, :3], x[:, :3]))):
        assert jnp.allclose(got, want, atol=1e-5)
for check in (True, False):
    mapped = jax.shard_map(ours, mesh=mesh, in_specs=(P("rows"), P()), out_specs=P("rows"), check_vma=check)
    assert jnp.allclose(mapped(x, w), theirs(x, w), atol=1e-5)
    assert jnp.allclose(jax.grad(lambda w: jnp.sin(mapped(x, w)).sum())(w), truth, atol=1e-5)
"""


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="this JAX has no jax.shard_map")
def test_rows_on_several_devices():
    run_on_two_devices(SHARDED)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_another_device_says_what_to_do(platform):
    program = jax.jit(lambda g: residual(*g))
    with pytest.raises(rc.DeviceError, match=rf"compiled for {platform}; move them with jax\.device_put"):
        export.export(program, platforms=[platform])(arguments())


def test_forward_mode_says_what_to_do():
    given = arguments()
    for derivative in (
        lambda: jax.jvp(residual, given, given),
        lambda: jax.jit(lambda g: jax.jvp(residual, g, g))(given),
        lambda: jax.jacfwd(lambda g: residual(*g))(given),
        lambda: jax.hessian(lambda g: residual(*g).sum())(given),
    ):
        with pytest.raises(NotImplementedError, match=r"no derivatives in forward mode .*; use grad"):
            derivative()


def test_a_second_derivative_says_what_to_do():
    sources, weights, bias, _ = arguments()
    gradient = jax.grad(lambda b: residual(sources, weights, b, (), "tanh").sum())
    for derivative in (jax.grad(lambda b: gradient(b).sum()), jax.jit(jax.grad(lambda b: gradient(b).sum()))):
        with pytest.raises(NotImplementedError, match="second derivatives"):
            derivative(bias)


def test_a_gradient_beside_others_second_derivatives():
    """What does not go through the block may be differentiated as often as it can."""
    sources, weights, *_ = arguments()
    constant = residual(sources, weights)
    assert jax.grad(jax.grad(lambda s: (s**3 * residual(sources, weights)).sum()))(2.0) == pytest.approx(
        float(12 * constant.sum())
    )


SOURCES, WEIGHTS, BIAS, IDENTITY = (jax.tree.map(np.asarray, one) for one in arguments("float32"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"sources": []}, rc.ShapeError, "sources must not be empty"),
        ({"weights": WEIGHTS[:1]}, rc.ShapeError, "as many weights as sources, got 1 for 2"),
        ({"sources": SOURCES[0]}, rc.DTypeError, "sources must be a list or tuple"),
        ({"sources": [SOURCES[0].tolist(), SOURCES[1]]}, rc.DTypeError, "sources must be a list or tuple of arrays"),
        ({"bias": [0.0] * 6}, rc.DTypeError, "bias must be an array or None, got list"),
        ({"bias": BIAS.astype("float64")}, rc.DTypeError, "bias must be float32 as sources.0. is, got float64"),
        ({"bias": BIAS[:5]}, rc.ShapeError, r"bias must be \(6,\), got \(5,\)"),
        ({"weights": [WEIGHTS[0].T, WEIGHTS[1]]}, rc.ShapeError, r"sources\[0\]|weights"),
        ({"sources": [SOURCES[0][0], SOURCES[1]]}, rc.ShapeError, r"sources\[0\] must have 2 dimensions"),
        ({"identity": [IDENTITY[0][:, :5]]}, rc.ShapeError, r"identity\[0\] must be \(5, 6\), got \(5, 5\)"),
        ({"activation": "swish"}, ValueError, "unknown activation 'swish'; known are"),
        ({"sources": [SOURCES[0].astype("float16"), SOURCES[1]]}, rc.DTypeError, "or bfloat16, got float16"),
        ({"sources": [SOURCES[0].astype("int32"), SOURCES[1]]}, rc.DTypeError, "or bfloat16, got int32"),
    ],
)
def test_bad_arguments(change, error, message):
    given = {"sources": SOURCES, "weights": WEIGHTS, "bias": BIAS, "identity": IDENTITY, "activation": "relu", **change}
    with pytest.raises(error, match="residual: .*" + message):
        residual(**given)


def test_shapes_are_checked_while_jax_traces():
    with pytest.raises(rc.ShapeError, match=r"residual: sources\[0\] must be \(5, 4\), got \(5, 3\)"):
        jax.eval_shape(residual, SOURCES[:1], WEIGHTS[1:])
