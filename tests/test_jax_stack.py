"""`resnetcore.jax.ResidualStack`: values, gradients, transformations and arguments, against JAX's own operations."""

import functools
import gc
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import resnetcore as rc
from comparison import BOUND, assert_within

jax = pytest.importorskip("jax", reason="JAX is not installed")
import jax.numpy as jnp  # noqa: E402
from jax import export  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from jax_network import (  # noqa: E402
    assert_close,
    few_layers,
    given,
    layers,
    loss_of,
    network,
    ours,
    relative,
    relu_layers,
    run_on_two_devices,
    theirs,
)
from resnetcore.jax import ResidualStack  # noqa: E402

pytestmark = pytest.mark.usefixtures("float64_in_jax")


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_differences(training):
    stack = ResidualStack(6, layers())
    parameters, x, buffers = given(stack)
    check_grads(lambda p, x: ours(stack, training, p, x, buffers), (parameters, x), order=1, modes=["rev"], eps=1e-5)


@pytest.mark.parametrize(
    ("kind", "training", "rows", "dtype"),
    [
        *((layers, True, rows, dtype) for rows, dtype in ((700, "float32"), (130, "float64"), (2, "float64"))),
        *((layers, False, rows, dtype) for rows, dtype in ((700, "float32"), (1, "float64"))),
        *((relu_layers, True, rows, dtype) for rows, dtype in ((700, "float32"), (2, "float32"), (130, "float64"))),
    ],
)
def test_values_and_gradients_are_those_of_jax_in_float64(kind, training, rows, dtype):
    stack = ResidualStack(6, kind())
    parameters, x, buffers = given(stack, dtype, rows)
    truth = jax.tree.map(lambda a: a.astype("float64"), (parameters, x, buffers))
    exact = there_and_back(theirs, stack, training, *truth)
    got = there_and_back(ours, stack, training, parameters, x, buffers)
    assert_within(
        got,
        exact,
        BOUND[dtype],
        lambda: errors(there_and_back(theirs, stack, training, parameters, x, buffers), exact),
    )


def there_and_back(run, stack, training, parameters, x, buffers):
    """The outputs and all gradients of one pass, of float64."""
    out = run(stack, training, parameters, x, buffers)
    d_parameters, d_x = jax.jit(jax.grad(loss_of(run, stack, training, buffers), (0, 1)))(parameters, x)
    assert d_x.dtype == x.dtype
    for name, d in d_parameters.items():
        assert d.dtype == x.dtype and d.shape == parameters[name].shape
    return jax.tree.map(lambda a: np.asarray(a, "float64"), {"output": out, "input": d_x, **d_parameters})


def errors(got, exact):
    return {name: float(np.linalg.norm(got[name] - exact[name])) for name in exact}


def test_running_statistics_are_carried_on():
    stack = ResidualStack(6, layers())
    parameters, x, buffers = given(stack, rows=50)
    out, moved = stack.training_pass(parameters, x, buffers)
    expected, statistics = network(stack.layers, {**parameters, **buffers}, x, True)
    assert_close(out, expected, 1e-12)
    assert_close({name: moved[name] for name in statistics}, statistics, 1e-12)
    assert len(statistics) == 4 and moved.keys() == buffers.keys()
    assert moved["4.skip.2.weight"] is buffers["4.skip.2.weight"]
    out, moved = stack.training_pass(parameters, x[:0], buffers)
    assert out.shape == (0, 3) and all((moved[name] == buffers[name]).all() for name in buffers)


def test_bfloat16_with_parameters_of_either_kind():
    stack = ResidualStack(6, relu_layers())
    parameters, x, _ = given(stack, "float32", 200)
    plain = stack(parameters, x)
    for dtype in ("float32", "bfloat16"):
        narrow = jax.tree.map(lambda p, dtype=dtype: p.astype(dtype), parameters)
        out, back = jax.vjp(stack, narrow, x.astype("bfloat16"))
        assert out.dtype == "bfloat16" and 0 < relative(out, plain) < 3e-2
        d_parameters, d_x = back(out)
        assert d_x.dtype == "bfloat16" and all(d.dtype == dtype for d in d_parameters.values())
        expected = jax.vjp(stack, parameters, x)[1](plain)[0]
        assert relative(d_parameters["7.weight"], expected["7.weight"]) < 3e-2


def test_parameters_are_those_of_networks():
    net = rc.Network(6, layers(), seed=3)
    stack = ResidualStack(net.inputs, net.layers)
    x = np.random.default_rng(0).standard_normal((9, 6)).astype("float32")
    assert relative(stack(net.parameters(), x, net.buffers()), net(x)) < 1e-6
    parameters, buffers = stack.init(jax.random.key(1))
    assert {name: a.shape for name, a in parameters.items()} == {name: a.shape for name, a in net.parameters().items()}
    net.set_parameters({**parameters, **buffers})
    assert relative(stack(parameters, x, buffers), net(x)) < 1e-6
    assert not (stack.init(jax.random.key(2))[0]["1.weight"] == parameters["1.weight"]).any()


def test_a_hundred_steps_end_where_jaxs_own_do():
    stack = ResidualStack(6, relu_layers(16, 5))
    parameters, x, _ = given(stack, "float32", 60)
    ends = []
    for run, dtype in ((ours, "float32"), (theirs, "float64"), (theirs, "float32")):
        loss = loss_of(run, stack, True, {})
        step = jax.jit(lambda p, x, loss=loss: jax.tree.map(lambda p, d: p - 0.05 * d, p, jax.grad(loss)(p, x)))
        now, rows = jax.tree.map(lambda a, dtype=dtype: a.astype(dtype), (parameters, x))
        for _ in range(100):
            now = step(now, rows)
        ends.append(jax.tree.map(lambda a: np.asarray(a, "float64"), {**now, "loss": loss(now, rows)}))
    got, exact, jaxs = ends
    assert_within(got, exact, BOUND["float32"], lambda: errors(jaxs, exact))
    assert exact["loss"] < 0.8 * loss_of(ours, stack, True, {})(parameters, x)


def test_one_pass_forward_and_any_number_back():
    """In any order, and with other passes of the same stack between: a pass's state is its own results."""
    stack = ResidualStack(6, few_layers())
    (parameters, x, buffers), other = given(stack), given(stack, rows=300, seed=1)
    _, back = jax.vjp(lambda p: ours(stack, True, p, x, buffers), parameters)
    _, expected = jax.vjp(lambda p: theirs(stack, True, p, x, buffers), parameters)
    first, second = (jnp.asarray(np.random.default_rng(n).standard_normal((7, 3))) for n in range(2))
    _, back_of_other = jax.vjp(lambda p: ours(stack, True, p, *other[1:]), other[0])
    for d in (second, first, second):
        assert_close(back(d), expected(d), 1e-11)
        back_of_other(jnp.ones((300, 3)))


def test_scan_checkpoint_and_jacobians():
    stack = ResidualStack(6, [rc.Layer(6, activation="tanh"), rc.Layer(6, activation="silu", skips={2: "identity"})])
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(given(stack, seed=seed)[0] for seed in range(3)))
    x = given(stack)[1]

    @functools.partial(jax.jit, static_argnums=0)
    def derivatives(run, many):
        def deep(many):
            step = jax.checkpoint(lambda h, p: (run(stack, False, p, h, {}), None))
            return jax.lax.scan(step, x, many)[0]

        return jax.grad(lambda many: deep(many).sum())(many), jax.jacrev(deep)(many)

    assert_close(derivatives(ours, many), derivatives(theirs, many), 1e-11)


@pytest.mark.parametrize(
    ("axes", "training"),
    [((None, 0), True), ((None, 0), False), ((None, 1), False), ((0, None), True), ((0, 0), False)],
)
def test_batched_by_vmap(axes, training):
    stack = ResidualStack(6, few_layers())
    batches = [given(stack, seed=seed) for seed in range(3)]
    buffers = batches[0][2]
    parameters = jax.tree.map(lambda *p: jnp.stack(p), *(b[0] for b in batches)) if axes[0] == 0 else batches[0][0]
    x = batches[0][1] if axes[1] is None else jnp.stack([b[1] for b in batches], axes[1])

    @functools.partial(jax.jit, static_argnums=0)
    def mapped(run, parameters, x):
        of_all = jax.vmap(lambda p, x: run(stack, training, p, x, buffers), axes)
        of_each = jax.vmap(jax.grad(loss_of(run, stack, training, buffers), (0, 1)), axes)
        gradient = jax.grad(lambda *at: jnp.sin(of_all(*at)).sum(), (0, 1))
        return of_all(parameters, x), gradient(parameters, x), of_each(parameters, x)

    assert_close(mapped(ours, parameters, x), mapped(theirs, parameters, x), 1e-10)
    text = str(jax.make_jaxpr(jax.vmap(lambda p, x: ours(stack, training, p, x, buffers), axes))(parameters, x))
    at_once = not training and axes[0] is None
    assert ("scan[" not in text) == at_once and ("f64[21,3] = residual_stack_forward" in text) == at_once
    gradient = jax.grad(
        lambda p: jax.vmap(lambda x: ours(stack, False, p, x, buffers))(jnp.stack([b[1] for b in batches])).sum()
    )
    assert "scan[" not in str(jax.make_jaxpr(gradient)(batches[0][0]))  # one call back as well


def test_dropout_is_the_keys():
    stack = ResidualStack(
        6, [rc.Layer(40, activation="tanh", dropout=0.5), rc.Layer(3, activation=None, branch_dropout=0.2)]
    )
    parameters, x, _ = given(stack, rows=30)
    first, second = jax.random.split(jax.random.key(0))
    run = jax.jit(lambda p, key: stack.training_pass(p, x, key=key)[0])
    a = run(parameters, first)
    assert (a == run(parameters, first)).all() and not (a == run(parameters, second)).all()
    assert not (a == stack(parameters, x)).any()
    check_grads(lambda p: run(p, first), (parameters,), order=1, modes=["rev"], eps=1e-5)
    # Under vmap every key has masks of its own, as without it.
    keys = jnp.stack([first, second])
    assert_close(jax.vmap(run, (None, 0))(parameters, keys), jnp.stack([a, run(parameters, second)]))
    with pytest.raises(ValueError, match="dropout needs key"):
        stack.training_pass(parameters, x)


def test_only_what_is_asked_for_is_made():
    stack = ResidualStack(6, relu_layers())
    parameters, x, _ = given(stack, "float32")
    program = lambda f: jax.jit(f).lower(parameters, x).compile().as_text()  # noqa: E731
    assert "u8[" not in program(stack)  # no tape
    of_parameters = program(jax.grad(lambda p, x: stack(p, x).sum()))
    assert (
        "u8[" in of_parameters and "input_gradient = 0" in of_parameters and "input_gradient = 1" not in of_parameters
    )
    assert "input_gradient = 1" in program(jax.grad(lambda p, x: stack(p, x).sum(), 1))


def test_nothing_is_copied():
    stack = ResidualStack(6, relu_layers())
    parameters, x, _ = given(stack, "float32")
    text = jax.jit(jax.grad(lambda p, x: stack(p, x).sum())).lower(parameters, x).compile().as_text()
    operations = re.findall(r"^ .* = \S+ ([\w-]+)\(|^ .* = \(.*\) (custom-call)\(", text[text.index("ENTRY") :], re.M)
    assert sum("custom-call" in found for found in operations) == 2
    assert not {"copy", "transpose"} & {one for found in operations for one in found}


def test_prediction_in_parts_gives_what_one_pass_does():
    stack = ResidualStack(6, relu_layers())
    parameters, x, _ = given(stack, "float32", 30_000)
    (_, row), most = program_of(stack, "float32").tape_bytes, 1 << 24
    assert row * len(x) > 2 * most
    whole = jax.vjp(stack, parameters, x)[0]  # with a tape
    assert (stack(parameters, x) == whole).all()
    assert jax.jit(stack)(parameters, x[:0]).shape == (0, 4)


def program_of(stack, dtype):
    return rc._core.XlaStack(stack._topologies[dtype, "highest"], False, False)


def test_several_threads_at_once():
    """They share one program, whose room every call fills anew."""
    stack = ResidualStack(6, layers())
    gradient = jax.jit(jax.grad(loss_of(ours, stack, True, given(stack, "float32")[2])))
    at = [given(stack, "float32", 50 + 90 * seed, seed)[:2] for seed in range(3)]
    expected = [gradient(*one) for one in at]
    with ThreadPoolExecutor(4) as pool:
        for n, result in enumerate(pool.map(lambda n: gradient(*at[n % 3]), range(30))):
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), result, expected[n % 3]))


def test_two_passes_of_one_compiled_step():
    """XLA may run both at the same time."""
    stack = ResidualStack(6, relu_layers())
    parameters, x, _ = given(stack, "float32", 300)
    both = jax.jit(lambda p, x: (jax.grad(lambda p: stack(p, x).sum())(p), jax.grad(lambda p: stack(p, -x).sum())(p)))
    expected = both(parameters, x)
    assert_close(expected[1], jax.grad(lambda p: stack(p, -x).sum())(parameters), 1e-6)
    for _ in range(20):
        assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), both(parameters, x), expected))


def test_an_exported_program_runs_where_nobody_has_made_the_stack():
    described = [rc.Layer(6, activation="tanh"), rc.Layer(2, activation=None, skips={2: "learned"})]
    targets = [f"resnetcore_residual_stack_{name}" for name in ("forward", "backward")]
    checks = [export.DisabledSafetyCheck.custom_call(target) for target in targets]
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("batch, 6"), jnp.float32)

    def exported():
        stack = ResidualStack(6, described)
        gradient = jax.jit(jax.grad(lambda p, x: stack(p, x).sum()))
        return export.export(gradient, disabled_checks=checks)(given(stack, "float32")[0], rows).serialize()

    program = exported()
    jax.clear_caches()
    gc.collect()
    stack = ResidualStack(6, described)
    for n in (1, 9):
        parameters, x, _ = given(stack, "float32", n)
        expected = jax.grad(lambda p, x=x: theirs(stack, False, p, x, {}).sum())(parameters)
        assert_close(export.deserialize(program).call(parameters, x), expected, 1e-6)


def test_a_batch_whose_rows_nobody_knew_is_refused_where_it_is_one_row():
    stack = ResidualStack(6, layers())
    parameters, x, buffers = given(stack)
    check = export.DisabledSafetyCheck.custom_call("resnetcore_residual_stack_forward")
    rows = jax.ShapeDtypeStruct(export.symbolic_shape("batch, 6"), x.dtype)
    program = export.export(jax.jit(stack.training_pass), disabled_checks=[check])(parameters, rows, buffers)
    assert_close(program.call(parameters, x, buffers), stack.training_pass(parameters, x, buffers))
    with pytest.raises(Exception, match=r"batch normalisation needs at least 2 rows in every .* got 1"):
        jax.block_until_ready(program.call(parameters, x[:1], buffers))


def test_a_tape_of_another_version_is_refused(monkeypatch):
    from resnetcore.jax import stack_primitives

    stack = ResidualStack(6, [rc.Layer(5), rc.Layer(3, activation=None)])
    parameters, x, _ = given(stack)
    layout = rc._core.tape_layout()
    monkeypatch.setattr(stack_primitives._core, "tape_layout", lambda: layout - 1)
    with pytest.raises(Exception, match=f"layout {layout - 1}, here {layout}.; export it again with this version"):
        jax.block_until_ready(jax.jit(jax.grad(lambda p: stack(p, x).sum()))(parameters))
    stack(parameters, x)  # which has none


def test_matmul_precision_is_no_part_of_a_stack():
    plain = ResidualStack(6, layers())._topologies
    before = rc.get_matmul_precision()
    rc.set_matmul_precision("high")
    try:
        assert ResidualStack(6, layers())._topologies == plain
    finally:
        rc.set_matmul_precision(before)


def test_numpys_float64_is_float32_where_jax_has_no_other():
    stack = ResidualStack(6, layers())
    parameters, x, buffers = given(stack)
    expected = stack(parameters, x, buffers)
    in_numpy = jax.tree.map(np.asarray, (parameters, x, buffers))
    jax.config.update("jax_enable_x64", False)
    try:
        assert in_numpy[1].dtype == "float64"
        for at in (in_numpy, ({n: p.astype("float32") for n, p in in_numpy[0].items()}, *in_numpy[1:])):
            out, moved = stack.training_pass(*at)
            assert out.dtype == "float32" and all(m.dtype == "float32" for n, m in moved.items() if "running" in n)
            assert relative(stack(*at), expected) < 1e-5
            with jax.disable_jit():
                assert relative(stack(*at), expected) < 1e-5
    finally:
        jax.config.update("jax_enable_x64", True)


AT_EXIT = """
import jax, numpy as np, resnetcore as rc
from resnetcore.jax import ResidualStack

block = [rc.Layer(256), rc.Layer(256, skips={2: "identity"})]
stack = ResidualStack(64, [rc.Layer(256), *block * 3, rc.Layer(8, activation=None)])
p, _ = stack.init(jax.random.key(0))
x = np.ones((2000, 64), "float32")
step = jax.jit(lambda p: jax.tree.map(lambda p, d: p - 0.01 * d, p, jax.grad(lambda p: stack(p, x).mean())(p)))
for _ in range(20):
    p = step(p)
print("dispatched")
"""


def test_a_process_may_end_while_steps_are_under_way():
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "dispatched\n", done.stderr


def test_equal_stacks_are_one_static_argument():
    first, second = (ResidualStack(6, layers()) for _ in range(2))
    assert first == second and hash(first) == hash(second) and first != ResidualStack(6, layers(None))
    traced = []
    run = jax.jit(lambda stack, p, x, b: traced.append(stack) or stack(p, x, b), static_argnums=0)
    assert (run(first, *given(first)) == run(second, *given(second))).all()
    assert len(traced) == 1


def test_without_jit():
    stack = ResidualStack(6, few_layers())
    with jax.disable_jit():
        assert_close(ours(stack, True, *given(stack)), theirs(stack, True, *given(stack)), 1e-12)


def test_forward_mode_and_second_derivatives_say_what_to_do():
    stack = ResidualStack(6, layers(None))
    parameters, x, buffers = given(stack)
    run = lambda x: stack(parameters, x, buffers)  # noqa: E731
    for derivative in (lambda: jax.jvp(run, (x,), (x,)), lambda: jax.jacfwd(run)(x)):
        with pytest.raises(NotImplementedError, match=r"ResidualStack: .*no derivatives in forward mode .*; use grad"):
            derivative()
    for derivative in (
        jax.grad(lambda x: jax.grad(lambda x: run(x).sum())(x).sum()),
        jax.hessian(lambda x: run(x).sum()),
    ):
        with pytest.raises(NotImplementedError, match=r"ResidualStack: .*differentiated again"):
            derivative(x)


def test_buffers_have_no_gradient():
    stack = ResidualStack(6, layers())
    parameters, x, buffers = given(stack)
    gradient = jax.grad(lambda b: stack(parameters, x, b).sum())(buffers)
    assert gradient.keys() == buffers.keys() and not any(d.any() for d in gradient.values())


SHARDED = """
import jax, jax.numpy as jnp, resnetcore as rc
from jax.sharding import NamedSharding, PartitionSpec as P
from resnetcore.jax import ResidualStack

stack = ResidualStack(4, [rc.Layer(4, activation="tanh"), rc.Layer(3, activation=None, skips={2: "learned"})])
p, _ = stack.init(jax.random.key(0))
x = jax.random.normal(jax.random.key(1), (8, 4))

def theirs(p, x):
    return jnp.tanh(x @ p["1.weight"] + p["1.bias"]) @ p["2.weight"] + x @ p["2.skip.2.weight"] + p["2.bias"]

def close(a, b):
    return jax.tree.all(jax.tree.map(lambda a, b: jnp.allclose(a, b, atol=1e-5), a, b))

loss = lambda run: lambda p, x: jnp.sin(run(p, x)).sum()
truth = jax.grad(loss(theirs), (0, 1))(p, x)
for type in (jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto):
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(type,))
    spread = jax.device_put(x, NamedSharding(mesh, P("rows")))
    assert close(jax.jit(jax.grad(loss(stack), (0, 1)))(p, spread), truth)
    batches = jax.device_put(jnp.stack([x, -x]), NamedSharding(mesh, P(None, "rows")))
    assert close(jax.vmap(stack, (None, 0))(p, batches), jax.vmap(theirs, (None, 0))(p, batches))
for check in (True, False):
    mapped = jax.shard_map(stack, mesh=mesh, in_specs=(P(), P("rows")), out_specs=P("rows"), check_vma=check)
    assert close(mapped(p, x), theirs(p, x))
    assert close(jax.grad(loss(mapped), (0, 1))(p, x), truth)
"""


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="this JAX has no jax.shard_map")
def test_rows_on_several_devices():
    run_on_two_devices(SHARDED)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_another_device_says_what_to_do(platform):
    stack = ResidualStack(6, layers(None))
    with pytest.raises(
        rc.DeviceError, match=rf"ResidualStack: .*compiled for {platform}; move them with jax\.device_put"
    ):
        export.export(jax.jit(stack), platforms=[platform])(*given(stack))


STACK = ResidualStack(6, layers(None))
PARAMETERS, BUFFERS = ({name: np.array(a) for name, a in arrays.items()} for arrays in STACK.init(jax.random.key(0)))
X = np.ones((5, 6), "float32")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X[0]}, rc.ShapeError, r"x must be an array of shape \(batch, 6\), got \(6,\)"),
        ({"x": X[:, :5]}, rc.ShapeError, r"got \(5, 5\)"),
        ({"x": X.tolist()}, rc.ShapeError, "got list"),
        ({"x": X.astype("int32")}, rc.DTypeError, "x must be float32, float64 or bfloat16, got int32"),
        (
            {"x": X.astype("float64")},
            rc.DTypeError,
            r"parameters\['1.weight'\] must be float64 as x is .*, got float32",
        ),
        ({"parameters": [X]}, rc.DTypeError, "parameters must be a dict of arrays, got list"),
        ({"parameters": {}}, ValueError, "parameters must be those that init.. gives, and lack '1.weight'"),
        ({"parameters": {**PARAMETERS, "9.bias": X}}, ValueError, "have '9.bias'"),
        ({"parameters": {**PARAMETERS, "1.bias": X}}, rc.ShapeError, r"\['1.bias'\] must be \(6,\), got \(5, 6\)"),
        (
            {"parameters": {**PARAMETERS, "1.bias": [0.0] * 6}},
            rc.DTypeError,
            r"\['1.bias'\] must be float32 .*, got list",
        ),
        ({"buffers": {}}, ValueError, "buffers must be those that init.. gives, and lack '4.skip.2.weight'"),
    ],
)
def test_bad_arguments(change, error, message):
    given = {"parameters": PARAMETERS, "x": X, "buffers": BUFFERS, **change}
    for run in (STACK, STACK.training_pass):
        with pytest.raises(error, match="ResidualStack: .*" + message):
            run(**given)


def test_bad_stacks():
    with pytest.raises(ValueError, match="before the input"):
        ResidualStack(4, [rc.Layer(4, skips={2: "identity"})])
    stack = ResidualStack(6, layers())
    parameters, x, buffers = given(stack, rows=1)
    with pytest.raises(ValueError, match=r"at least 2 rows in training, got 1; call stack"):
        stack.training_pass(parameters, x, buffers)
    assert stack(parameters, x, buffers).shape == (1, 3)
