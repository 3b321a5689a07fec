"""The C interface: the formulas, Python's networks to the bit, every hostile file, and programs built with CMake alone."""

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import c_library as c
import resnetcore as rc
from reference import ACTIVATIONS, rounded
from resnetcore import _core, safetensors
from test_checkpoint import ARRAYS, NETWORKS, TOPOLOGIES, arrays_of, make_network, rewrite, set_layer
from test_safetensors import HOSTILE

ROOT = Path(__file__).parent.parent
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
TOLERANCE = {np.dtype("f4"): 2e-6, np.dtype("f8"): 1e-13}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def block(rng, dtype, rows=9, inner=(5, 3), columns=7, identities=2):
    """Sources and results are column blocks of wider arrays: every stride is another one."""

    def matrix(rows, columns):
        wide = np.full((rows, columns + int(rng.integers(0, 4))), 99.0, dtype)
        wide[:, :columns] = rng.standard_normal((rows, columns))
        return wide[:, :columns]

    sources, weights = [matrix(rows, k) for k in inner], [matrix(k, columns) for k in inner]
    bias, identity = rng.standard_normal(columns).astype(dtype), [matrix(rows, columns) for _ in range(identities)]
    return sources, weights, bias, identity, matrix


def distance(got, exact):
    return np.linalg.norm(np.asarray(got, np.float64) - exact) / max(np.linalg.norm(exact), 1e-30)


def in_float64(arrays):
    return [np.array(a, np.float64) for a in arrays]


def formula(sources, weights, bias, identity, activation, grad=None, a=None):
    """Float64: a, or the gradients in the order of the arguments."""
    sources, weights, identity = map(in_float64, (sources, weights, identity))
    z = sum(x @ w for x, w in zip(sources, weights, strict=True)) + np.asarray(bias, np.float64) + sum(identity)
    g, derivative = ACTIVATIONS[activation]
    if grad is None:
        return g(z)
    delta = np.asarray(grad, np.float64) * (a > 0 if activation == "relu" else derivative(z))
    return [delta @ w.T for w in weights], [x.T @ delta for x in sources], delta.sum(axis=0), [delta for _ in identity]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("activation", c.ACTIVATIONS)
def test_the_block_is_the_formula(rng, dtype, activation):
    sources, weights, bias, identity, matrix = block(rng, dtype)
    a, grad = matrix(9, 7), matrix(9, 7)
    c.forward(a, sources, weights, bias, identity, activation)
    assert distance(a, formula(sources, weights, bias, identity, activation)) < TOLERANCE[dtype]
    into = [matrix(*s.shape) for s in sources], [matrix(*w.shape) for w in weights], bias.copy(), [a.copy(), a.copy()]
    c.backward(grad, a, sources, weights, bias, identity, activation, into=into)
    exact = formula(sources, weights, bias, identity, activation, grad, a)
    for got, want in zip(
        [*into[0], *into[1], into[2], *into[3]], [*exact[0], *exact[1], exact[2], *exact[3]], strict=True
    ):
        assert distance(got, want) < 3 * TOLERANCE[dtype]
    before = in_float64([*weights, bias])
    c.update(grad, a, sources, weights, bias, identity, activation, lr=0.25)
    for got, old, gradient in zip([*weights, bias], before, [*exact[1], exact[2]], strict=True):
        assert distance(got, old - 0.25 * gradient) < 3 * TOLERANCE[dtype]


def test_bfloat16_is_rounded_once_or_not_at_all(rng):
    sources, weights, bias, identity, matrix = block(rng, BFLOAT16)
    wide, a = np.empty((9, 7), np.float32), matrix(9, 7)
    c.forward(wide, sources, weights, bias, identity, "gelu")
    c.forward(a, sources, weights, bias, identity, "gelu")
    assert distance(wide, formula(sources, weights, bias, identity, "gelu")) < 2e-6
    np.testing.assert_array_equal(a.astype(np.float32), rounded(wide))
    unrounded, stored = [np.empty(w.shape, np.float32) for w in weights], [np.empty(w.shape, BFLOAT16) for w in weights]
    d_bias = np.empty(7, np.float32)
    for d_weights in (unrounded, stored):
        c.backward(wide.astype(BFLOAT16), a, sources, weights, bias, identity, into=(None, d_weights, d_bias, None))
    exact = formula(sources, weights, bias, identity, "relu", wide.astype(BFLOAT16), a)
    for d, s, want in zip(unrounded, stored, exact[1], strict=True):
        assert distance(d, want) < 5e-3  # of δ as rounded
        np.testing.assert_array_equal(s.astype(np.float32), rounded(d))


def test_what_is_not_wanted_is_not_needed(rng):
    sources, weights, bias, identity, _ = block(rng, "f4")
    a, grad = np.empty((9, 7), "f4"), rng.standard_normal((9, 7)).astype("f4")
    c.forward(a, sources, weights, bias, identity)
    exact = formula(sources, weights, bias, identity, "relu", grad, a)
    results = [[np.empty(s.shape, "f4") for s in sources], [np.empty(w.shape, "f4") for w in weights]]
    results += [np.empty(7, "f4"), [np.empty((9, 7), "f4") for _ in identity]]
    for kept in range(4):
        into = [results[i] if i == kept else None for i in range(4)]
        c.backward(grad, a, sources, weights, bias, identity, into=into)
        for got, want in zip(np.atleast_1d(results[kept]) if kept == 2 else results[kept], exact[kept], strict=True):
            assert distance(got, want) < 1e-5


def test_input_strides_may_be_zero_or_negative(rng):
    sources, weights, bias, identity, _ = block(rng, "f8")
    views = [np.broadcast_to(sources[0][:1], sources[0].shape), sources[1][::-1]]
    out = np.empty((9, 7))
    c.forward(out, views, weights, bias, identity)
    assert distance(out, formula(views, weights, bias, identity, "relu")) < 1e-13


def test_column_blocks_of_one_matrix_do_not_overlap(rng):
    shared = rng.standard_normal((6, 20))
    weight = rng.standard_normal((8, 5))
    source, out = shared[:, :8], shared[:, 8:13]
    want = formula([source], [weight], np.zeros(5), [], "relu")
    c.forward(out, [source], [weight])
    assert distance(out, want) < 1e-13
    with pytest.raises(c.Failed, match=r"RC_VALUE_ERROR: .*out must not overlap sources\[0\]"):
        c.forward(shared[:, 7:12], [source], [weight])
    for first, second in [(shared[:3, :8], shared[2:5, 4:9]), (shared[3:6, :8], shared[1:4, 4:9])]:  # in one row only
        with pytest.raises(c.Failed, match="must not overlap"):
            c.forward(second, [first], [weight])
    # Rows twice as far apart meet every other row, or fall between them.
    apart = shared.reshape(3, 40)
    c.forward(apart[:, 20:25], [shared[:3, 12:20]], [weight])
    with pytest.raises(c.Failed, match="must not overlap"):
        c.forward(apart[:, 34:39], [shared[3:, 12:20]], [weight])


def test_an_empty_batch_is_fine(rng):
    sources, weights, bias, identity, _ = block(rng, "f4", rows=0)
    c.forward(np.empty((0, 7), "f4"), sources, weights, bias, identity)
    d_weights = [np.ones(w.shape, "f4") for w in weights]
    grad = np.empty((0, 7), "f4")
    d_bias = np.ones(7, "f4")
    c.backward(grad, grad, sources, weights, bias, identity, into=(None, d_weights, d_bias, None))
    assert not any(d.any() for d in [*d_weights, d_bias])


def spoiled(index, **changes):
    """The call of `refused` with fields of its argument `index` changed."""
    return lambda arguments: [setattr(arguments[index], name, value) for name, value in changes.items()]


ODD = np.zeros(200, "f4").ctypes.data
SOURCE, WEIGHT, BIAS, SKIP, OUT = range(5)
REFUSED = {
    "rows negative": (spoiled(SOURCE, rows=-1), "SHAPE", r"sources\[0\] must have 0 rows or more"),
    "columns zero": (spoiled(SOURCE, columns=0), "SHAPE", r"sources\[0\] must have 1 column or more, got \(4, 0\)"),
    "weight too high": (spoiled(WEIGHT, rows=4), "SHAPE", r"weights\[0\] must be \(3, 2\), got \(4, 2\)"),
    "bias a column": (spoiled(BIAS, rows=2, columns=1), "SHAPE", r"bias must be \(1, 2\), got \(2, 1\)"),
    "skip too wide": (spoiled(SKIP, columns=3), "SHAPE", r"identity\[0\] must be \(4, 2\), got \(4, 3\)"),
    "out too low": (spoiled(OUT, rows=3), "SHAPE", r"out must be \(4, 2\), got \(3, 2\)"),
    "out's rows overlap": (
        spoiled(OUT, stride=1),
        "SHAPE",
        "out is written and must have a stride of at least 2, got 1",
    ),
    "out backwards": (spoiled(OUT, stride=-2), "SHAPE", "stride of at least 2, got -2"),
    "source null": (spoiled(SOURCE, data=None), "VALUE", r"sources\[0\]\.data must not be NULL"),
    "out null": (spoiled(OUT, data=None), "VALUE", r"out\.data must not be NULL"),
    "source unaligned": (
        spoiled(SOURCE, data=ODD + 2),
        "SHAPE",
        r"sources\[0\]\.data must lie at a multiple of 4 bytes",
    ),
    "another dtype": (spoiled(WEIGHT, dtype=1), "DTYPE", r"weights\[0\] must be float32, got float64"),
    "an unknown dtype": (spoiled(OUT, dtype=77), "DTYPE", "out must be float32, got the unknown dtype 77"),
    "labels": (spoiled(SOURCE, dtype=3), "DTYPE", r"sources\[0\] must be float32, float64 or bfloat16"),
    "stride beyond memory": (spoiled(SOURCE, stride=2**62), "SHAPE", r"must take less than 2\*\*60 bytes"),
    "one row as many": (spoiled(SOURCE, rows=2**60, stride=0), "SHAPE", r"must take less than 2\*\*60 bytes"),
    "stride of the lowest number": (spoiled(SOURCE, stride=-(2**63)), "SHAPE", r"must take less than 2\*\*60 bytes"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_changes_nothing(kind):
    spoil, code, message = REFUSED[kind]
    shapes = [(4, 3), (3, 2), (1, 2), (4, 2), (4, 2)]
    arrays = [np.full(shape, 7, "f4") for shape in shapes]
    arguments = [c.matrix(array) for array in arrays]
    spoil(arguments)
    source, weight, bias, skip, out = map(ctypes.byref, arguments)
    with pytest.raises(c.Failed, match=f"RC_{code}_ERROR: rc_residual_forward: .*{message}"):
        c.check(c.lib.rc_residual_forward(1, source, weight, bias, 1, skip, 1, out))
    assert all((array == 7).all() for array in arrays)


def test_a_view_of_one_row_is_refused_where_a_copy_has_no_place_in_64_bits():
    """Rows, columns and strides are small enough each; packed weights and δ would have 2⁶⁴ elements."""
    ones, tall, many, wide = np.ones((1, 2**10), "f4"), 2**60, 2**54, 2**10

    def view(rows, columns, data=ones):
        return ctypes.byref(c.Matrix(data.ctypes.data, rows, columns, 0, 0))

    nothing = view(0, 1)
    with pytest.raises(c.Failed, match=r"RC_SHAPE_ERROR: .*weights\[0\] must take less than 2\*\*60 bytes"):
        c.check(c.lib.rc_residual_forward(1, view(0, tall), view(tall, 1), None, 0, None, 1, nothing))
    d_weights = np.zeros((1, wide), "f4")
    operands = [view(many, wide), view(many, wide), 1, view(many, 1), view(1, wide), None, 0, None, 1]
    with pytest.raises(c.Failed, match=r"RC_SHAPE_ERROR: .*grad must take less than"):
        c.check(c.lib.rc_residual_backward(*operands, None, view(1, wide, d_weights), None, None))


def test_null_pointers_and_counts_are_refused():
    source, weight, out = (np.ones(shape, "f4") for shape in [(4, 3), (3, 2), (4, 2)])
    good = [1, c.pointer(source), c.pointer(weight), None, 0, None, 1, c.pointer(out)]
    c.check(c.lib.rc_residual_forward(*good))
    for index, value, message in [
        (0, 0, "n must be at least 1, got 0"),
        (0, -5, "n must be at least 1, got -5"),
        (1, None, "sources must not be NULL"),
        (2, None, "weights must not be NULL"),
        (4, -1, "n_identity must be at least 0, got -1"),
        (4, 1, "identity must not be NULL"),
        (6, 9, "there is no activation 9"),
        (7, None, "out must not be NULL"),
    ]:
        with pytest.raises(c.Failed, match=message):
            c.check(c.lib.rc_residual_forward(*good[:index], value, *good[index + 1 :]))
    assert c.lib.rc_network_predict(None, c.pointer(source), c.pointer(out)) == 1
    assert c.lib.rc_last_error() == b"rc_network_predict: network must not be NULL"
    assert c.lib.rc_network_inputs(None) == -1
    c.lib.rc_network_free(None)
    c.lib.rc_trainer_free(None)


@pytest.mark.parametrize("lr", [0.0, -1.0, np.nan, np.inf, 1e-60])
def test_an_update_wants_a_rate_of_its_dtype(rng, lr):
    sources, weights, bias, identity, _ = block(rng, "f4")
    a = np.ones((9, 7), "f4")
    before = [w.copy() for w in weights]
    with pytest.raises(c.Failed, match="RC_VALUE_ERROR: rc_residual_update: lr must be positive and finite"):
        c.update(a, a, sources, weights, bias, identity, lr=lr)
    for got, want in zip(weights, before, strict=True):
        np.testing.assert_array_equal(got, want)


def test_names_are_those_of_the_library():
    assert [c.lib.rc_activation_name(i).decode() for i in range(len(c.ACTIVATIONS))] == list(c.ACTIVATIONS)
    assert set(c.ACTIVATIONS) == set(rc.activations())
    assert set(c.LOSSES) == set(_core.losses())
    assert c.lib.rc_activation_name(len(c.ACTIVATIONS)) is None
    assert c.lib.rc_version().decode() == rc.__version__
    assert c.lib.rc_isa().decode() == _core.isa_info()["current"]
    with pytest.raises(c.Failed, match="RC_VALUE_ERROR: set_num_threads"):
        c.check(c.lib.rc_set_num_threads(0))


# ---- Devices and streams, as far as they go without a GPU -----------------------------------------------------------


def test_a_device_that_is_not_there_is_pythons_error(monkeypatch):
    """Of a build without CUDA, or of a computer without a GPU; tests/test_cuda_device.py has the other reasons."""
    monkeypatch.delenv("RESNETCORE_CUDA_LIBRARY", raising=False)
    code = f"""
import sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
import c_library as c, resnetcore as rc
from resnetcore import _core
try:
    _core.check_device("cuda:5")
except rc.DeviceError as error:
    print(error)
try:
    c.find_device("cuda:5")
except c.Failed as error:
    print(error)
"""
    told = run([sys.executable, "-c", code]).splitlines()
    if not told:
        pytest.skip("there is a cuda:5")
    told = [re.sub(r"there is no /\S+", "there is no file", line) for line in told]  # each library has its own folder
    assert told == [told[0], f"RC_DEVICE_ERROR: {told[0]}"] and "is not available: " in told[0]


def test_devices_and_their_names(path):
    assert c.find_device("cpu") == c.CPU
    names = {0: b"cpu", 1: b"cuda:0", 2: b"cuda:1", 1000: b"cuda:999", 1001: None, -1: None}
    assert {number: c.lib.rc_device_name(number) for number in names} == names
    for name in ("", "gpu", "cuda:", "cuda:-1", "cuda:1x"):
        with pytest.raises(c.Failed, match=f'RC_VALUE_ERROR: device must be "cpu", "cuda" or .* got "{name}"'):
            c.find_device(name)
    make_network("one layer").save(path)
    net = c.Network(path)
    assert net.device == net.copied().device == net.copied(c.CPU).device == c.CPU
    assert c.lib.rc_network_device(None) == -1
    handle = ctypes.c_void_p()
    for device, message in [(-1, "there is no device -1; RC_CPU is one"), (1001, "there is no device 1001")]:
        with pytest.raises(c.Failed, match=f"RC_VALUE_ERROR: rc_network_copy_to: device: {message}"):
            c.check(c.lib.rc_network_copy_to(net.handle, device, ctypes.byref(handle)))
    assert not handle


def test_the_cpus_work_takes_no_stream_and_no_gpus_memory(path, rng):
    make_network("one layer").save(path)
    net, x, out = c.Network(path), rng.random((4, 5)).astype("f4"), np.full((4, 3), 7, "f4")
    trainer, weight = c.Trainer(net, "mse", c.SGD), rng.random((5, 3)).astype("f4")
    for call in (
        lambda: net.predict(x, out, stream=1),
        lambda: trainer.step(x, out, 0.1, stream=1),
        lambda: c.forward(out, [x], [weight], stream=1),
        lambda: c.backward(out, out, [x], [weight], into=(None, [weight + 0], None, None), stream=1),
        lambda: c.update(out, out, [x], [weight], lr=0.1, stream=1),
    ):
        with pytest.raises(c.Failed, match=r"RC_VALUE_ERROR: .*stream orders work on a GPU, and this is the CPU's"):
            call()
    elsewhere = c.matrix(x)
    elsewhere.device = c.CUDA
    with pytest.raises(
        c.Failed, match=r"RC_DEVICE_ERROR: .*x is on cuda:0, and the work is done on cpu; copy it there"
    ):
        c.check(c.lib.rc_network_predict(net.handle, ctypes.byref(elsewhere), c.pointer(out)))
    elsewhere.device = -5
    with pytest.raises(c.Failed, match=r"RC_VALUE_ERROR: .*sources\[0\]: there is no device -5"):
        c.check(c.lib.rc_residual_forward(1, elsewhere, c.pointer(weight), None, 0, None, 1, c.pointer(out)))
    assert (out == 7).all() and trainer.steps == 0


# ---- Networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_is_the_same_through_both_doors(path, tmp_path, rng, kind, dtype):
    net = make_network(kind, dtype)
    net.save(path)
    loaded = c.Network(path)
    x = rng.standard_normal((33, 5)).astype(net.dtype)
    np.testing.assert_array_equal(loaded.predict(x), net.predict(x))
    again = tmp_path / "again"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    trained = set(net.parameters())
    assert {name: shape for name, shape, _ in loaded.described()} == {n: a.shape for n, a in arrays_of(net).items()}
    assert {name for name, _, is_trained in loaded.described() if is_trained} == trained
    assert c.lib.rc_network_inputs(loaded.handle) == 5 and c.lib.rc_network_layers(loaded.handle) == len(net.layers)


def test_a_trainers_file_holds_a_network(path, rng):
    trainer = rc.Trainer(make_network("batch norm"), "mse", rc.Adam(lr=0.01), batch_size=4)
    trainer.fit(rng.random((8, 5)), rng.random((8, 2)), epochs=1, progress=False)
    trainer.save(path)
    x = rng.standard_normal((3, 5)).astype("f4")
    np.testing.assert_array_equal(c.Network(path).predict(x), trainer.net.predict(x))


def test_a_name_that_json_escapes_survives(path):
    # None of ours does; texts do, and quotes are in every topology.
    safetensors.write(path, {'a"\\\n\u2028é\x7f': np.ones(2, "f4")}, {"k\t": "\u0001"})
    with pytest.raises(c.Failed, match="has no topology of a network"):
        c.Network(path)


def test_parameters_in_and_out(path, rng):
    make_network("batch norm").save(path)
    net = c.Network(path)
    wide = np.full((5, 9), 3.0, "f4")
    weight, bias = rng.standard_normal((5, 5)).astype("f4"), rng.standard_normal(2).astype("f4")
    net.set({"2.weight": weight, "3.bias": bias})
    net.get(["2.weight"], [wide[:, 2:7]])
    np.testing.assert_array_equal(wide[:, 2:7], weight)
    assert (wide[:, :2] == 3).all() and (wide[:, 7:] == 3).all()
    net.save(path)
    np.testing.assert_array_equal(rc.load(path).parameters()["3.bias"], bias)
    for values, message in [
        ({"3.bias": bias, "nowhere": bias}, "RC_VALUE_ERROR: .*the network has no 'nowhere'; it has 1.weight"),
        ({"3.bias": bias, "2.weight": bias}, r"RC_SHAPE_ERROR: .*'2.weight' must be \(5, 5\), got \(1, 2\)"),
        ({"3.bias": bias.astype("f8")}, "RC_DTYPE_ERROR: .*'3.bias' must be float32, got float64"),
        ({"3.bias": bias, "1.norm.running_var": -np.ones(5, "f4")}, "a variance, must be at least 0"),
    ]:
        before = path.read_bytes()
        with pytest.raises(c.Failed, match=message):
            net.set({**values, "1.norm.bias": np.full(5, 55, "f4")})
        net.save(path)
        assert path.read_bytes() == before


def load_code(path):
    with pytest.raises(c.Failed, match=re.escape(str(path))) as error:
        c.Network(path)
    return error.value.code


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_checkpoint_errors(path, kind):
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(c.Failed, match=r"RC_CHECKPOINT_ERROR: .*net\.safetensors': ") as error:
        c.Network(path)
    # What comes after the header: none of these gets so far.
    assert "topology" not in str(error.value)


@pytest.mark.parametrize("kind", TOPOLOGIES)
def test_hostile_topologies_are_checkpoint_errors(path, kind):
    make_network("batch norm").save(path)
    rewrite(path, TOPOLOGIES[kind])
    assert load_code(path) == "RC_CHECKPOINT_ERROR"


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_do_not_fit_are_checkpoint_errors(path, kind):
    make_network("batch norm").save(path)
    rewrite(path, None, ARRAYS[kind])
    assert load_code(path) == "RC_CHECKPOINT_ERROR"


def test_a_key_of_the_topology_that_comes_twice_is_refused(path):
    make_network("one layer").save(path)
    rewrite(path, lambda value: '{"version":1,"inputs":5,"inputs":5,"dtype":"float32","seed":7,"layers":[]}')
    assert load_code(path) == "RC_CHECKPOINT_ERROR"


def test_a_number_is_shown_as_it_is(path):
    make_network("one layer").save(path)
    rewrite(path, set_layer(0, dropout=-1e-9))
    with pytest.raises(c.Failed, match=r"dropout must be in \[0, 1\), got -1e-09"):
        c.Network(path)


def test_what_is_not_a_regular_file_is_an_os_error_at_once(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    make_network("one layer").save(tmp_path / "net")
    net = c.Network(tmp_path / "net")
    for path in (fifo, tmp_path, Path("/dev/null"), tmp_path / "no" / "folder"):
        assert load_code(path) == "RC_OS_ERROR"
        with pytest.raises(c.Failed, match="RC_OS_ERROR"):
            net.save(path)
    assert load_code(tmp_path / "missing") == "RC_OS_ERROR"


def test_saving_replaces_a_file_whole_or_not_at_all(tmp_path):
    target, link, orphan = tmp_path / "target", tmp_path / "link", tmp_path / ".resnetcore-0123456789abcdef.tmp"
    make_network("one layer").save(target)
    net = c.Network(target)
    target.chmod(0o640)
    link.symlink_to("target")
    orphan.write_bytes(b"of a writer that was killed")
    net.save(link)
    assert link.is_symlink() and target.stat().st_mode & 0o777 == 0o640 and not orphan.exists()
    script = f"""
import resource, sys
sys.path[:0] = [{str(ROOT / "tests")!r}]
import c_library as c
net = c.Network({str(target)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    net.save({str(target)!r})
except c.Failed as error:
    print(error)
"""
    before = target.read_bytes()
    # ctypes' Python ignores SIGXFSZ; a program in C does not.
    code = f"import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n{script}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "RC_OS_ERROR" in done.stdout and "File too large" in done.stdout, done
    assert target.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["link", "target"]


def test_a_file_whose_owner_a_container_does_not_know_is_replaced(path):
    namespace = ["unshare", "--user", "--map-root-user"]
    require("unshare")
    if os.geteuid() != 0 or subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("there is no user namespace here, or no right to give a file away")
    net = make_network("one layer")
    net.save(path)
    whole = path.read_bytes()
    code = f"import sys; sys.path[:0] = [{str(ROOT / 'tests')!r}]; import c_library as c, resnetcore as rc; "
    for save in ("c.Network(sys.argv[1]).save(sys.argv[2])", "rc.load(sys.argv[1]).save(sys.argv[2])"):
        target = path.with_name("target")
        target.write_bytes(b"old")
        target.chmod(0o666)
        os.chown(target, 1234, 2345)
        run([*namespace, sys.executable, "-c", code + save, path, target])
        assert target.read_bytes() == whole and target.stat().st_mode & 0o777 == 0o666


# ---- Training ----------------------------------------------------------------------------------------------------

TRAININGS = {
    "sgd": ("mse", rc.SGD(lr=0.05), c.SGD, {}),
    "momentum": ("huber", rc.SGD(lr=0.05, momentum=0.9, nesterov=True), c.SGD, {"momentum": 0.9, "nesterov": 1}),
    "adam": ("cross_entropy", rc.Adam(lr=0.01, weight_decay=0.1), c.ADAM, {"weight_decay": 0.1}),
    "adamw": ("binary_cross_entropy", rc.AdamW(lr=0.01, decay="weights"), c.ADAMW, {"decay_weights_only": 1}),
    "weighted": ("cross_entropy", rc.SGD(lr=0.1), c.SGD, {"class_weight": [0.3, 2.5], "label_smoothing": 0.1}),
    "weighted binary": ("binary_cross_entropy", rc.Adam(lr=0.01), c.ADAM, {"class_weight": [1.7, 0.0]}),
    "clipped": ("mae", rc.SGD(lr=0.1), c.SGD, {"clip_norm": 0.1, "accumulate": 2, "seed": 4}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", TRAININGS)
def test_steps_are_pythons_to_the_bit(path, tmp_path, rng, kind, dtype):
    loss, optimizer, number, changes = TRAININGS[kind]
    net = make_network("batch norm" if loss == "cross_entropy" else "every setting", dtype)
    net.save(path)
    x = rng.standard_normal((12, 5)).astype(net.dtype)
    outputs = net.outputs
    y = rng.integers(0, outputs, 12) if loss == "cross_entropy" else rng.random((12, outputs)).astype(net.dtype)
    weight = rng.random(12).astype(net.dtype)
    shared = ("clip_norm", "accumulate", "seed", "class_weight", "label_smoothing")
    further = {name: changes[name] for name in shared if name in changes}
    trainer = rc.Trainer(net, loss, optimizer, **further)
    theirs = c.Network(path)
    ours = c.Trainer(theirs, loss, number, **changes)
    for _ in range(5):
        assert ours.step(x, y, optimizer.lr, weight) == trainer.step(x, y, sample_weight=weight)
    assert ours.steps == 5
    net.save(path)
    theirs.save(tmp_path / "theirs")
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()


def test_a_trainer_outlives_its_networks_handle(path, rng):
    make_network("one layer").save(path)
    net = c.Network(path)
    trainer = c.Trainer(net, "mse", c.SGD)
    c.lib.rc_network_free(net.handle)
    net.handle = None
    x, y = rng.random((4, 5)).astype("f4"), rng.random((4, 3)).astype("f4")
    assert trainer.step(x, y, 0.1) > trainer.step(x, y, 0.1)


def test_bad_batches_change_nothing(path, rng):
    make_network("batch norm").save(path)
    before = path.read_bytes()
    net = c.Network(path)
    trainer = c.Trainer(net, "cross_entropy", c.SGD)
    x, y = rng.standard_normal((4, 5)).astype("f4"), np.array([0, 1, 1, 0])
    for arguments, message in [
        ((x[:, :4], y, 0.1), r"RC_SHAPE_ERROR: rc_trainer_step: x must be \(4, 5\), got \(4, 4\)"),
        ((x[:0], y[:0], 0.1), "RC_SHAPE_ERROR: .*x must have at least 1 row, got 0"),
        ((x[:1], y[:1], 0.1), "RC_SHAPE_ERROR: .*batch normalisation needs at least 2 rows"),
        ((x, y[:3], 0.1), r"RC_SHAPE_ERROR: .*y must be \(4, 1\), got \(3, 1\)"),
        ((x, y + 1, 0.1), "RC_VALUE_ERROR: .*y must hold labels from 0 to 1, got 2 in row 1"),
        ((x, y - 1, 0.1), "RC_VALUE_ERROR: .*y must hold labels from 0 to 1, got -1 in row 0"),
        ((x, np.full((4, 2), 1.5, "f4"), 0.1), r"RC_VALUE_ERROR: .*probabilities in \[0, 1\], got 1.5"),
        ((x, y, 0.0), "RC_VALUE_ERROR: .*lr must be positive"),
        ((x, y, 0.1, np.array([1, 1, -1, 1], "f4")), "RC_VALUE_ERROR: .*sample_weight must be finite and not negative"),
        ((x * np.float32("inf"), y, 0.1), "RC_NON_FINITE: rc_trainer_step: the loss became nan at step 1"),
    ]:
        with pytest.raises(c.Failed, match=message):
            trainer.step(*arguments)
        net.save(path)
        assert path.read_bytes() == before
    for loss, changes, message in [
        ("mse", {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ("mse", {"nesterov": 1}, "nesterov needs a momentum above 0"),
        ("mse", {"eps": 0.0}, "eps must be positive and finite, got 0"),
        ("mse", {"label_smoothing": 0.1}, "label_smoothing belongs to cross_entropy, not to mse"),
        ("huber", {"delta": -1.0}, "delta must be positive and finite, got -1"),
        ("mse", {"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ("mse", {"clip_norm": -1.0}, "clip_norm must be"),
        ("mse", {"loss": 5}, "there is no loss 5"),
        ("mse", {"optimizer": 3}, "there is no optimizer 3"),
    ]:
        with pytest.raises(c.Failed, match=f"RC_VALUE_ERROR: rc_trainer_create: {message}"):
            c.Trainer(net, loss, c.SGD, **changes)


@pytest.mark.parametrize(
    ("loss", "changes", "message"),
    [
        (
            "mse",
            {"class_weight": [1, 1]},
            "VALUE_ERROR: .*belongs to cross_entropy and binary_cross_entropy, not to mse",
        ),
        ("cross_entropy", {"class_weight": [1, 1, 1]}, "SHAPE_ERROR: .*must have 2 weights, one a class, got 3"),
        ("binary_cross_entropy", {"class_weight": [1]}, "SHAPE_ERROR: .*must have 2 weights, one a class, got 1"),
        ("cross_entropy", {"class_weight": [1, -1]}, "VALUE_ERROR: .*must be finite and not negative, got -1"),
        ("cross_entropy", {"class_weight": [np.nan, 1]}, "VALUE_ERROR: .*must be finite and not negative"),
        ("cross_entropy", {"class_weight": [1, 1e39]}, "VALUE_ERROR: .*largest weight in the range .* got 1e.?39"),
        ("cross_entropy", {"class_weight": [0, 1e-60]}, "VALUE_ERROR: .*largest weight in the range"),
        (  # before any of them is read
            "cross_entropy",
            {"class_weight": [1, 1], "classes": 1 << 40},
            "SHAPE_ERROR: .*must have 2 weights, one a class, got 1099511627776",
        ),
        ("cross_entropy", {"classes": 2}, "VALUE_ERROR: .*got classes = 2"),
        ("cross_entropy", {"class_weight": [1, 1], "classes": -1}, "VALUE_ERROR: .*got classes = -1"),
    ],
)
def test_bad_class_weights(path, loss, changes, message):
    make_network("batch norm").save(path)
    with pytest.raises(c.Failed, match=f"RC_{message}") as failed:
        c.Trainer(c.Network(path), loss, c.SGD, **changes)
    assert "rc_trainer_create: class_weight" in str(failed.value)


# ---- What is installed -------------------------------------------------------------------------------------------


def test_only_the_interface_is_exported():
    header = re.sub(r"/\*.*?\*/", "", (Path(rc.get_include()) / "resnetcore.h").read_text(), flags=re.S)
    declared = set(re.findall(r"^RC_API [^;(]*?(\w+)\(", header, re.M))
    assert declared == c.DECLARED
    if shutil.which("nm") is None:
        pytest.skip("there is no nm (binutils) to list symbols with")
    listed = subprocess.run(
        ["nm", "-DP", "--defined-only", rc.get_library()], capture_output=True, text=True, check=True
    )
    exported = {line.split()[0].partition("@")[0] for line in listed.stdout.splitlines()}
    version = "rc_" + ".".join(rc.__version__.split(".")[:2])  # the symbols' version, itself a symbol
    assert exported == declared | {version}


def test_no_python_is_needed():
    if shutil.which("ldd") is None:
        pytest.skip("there is no ldd to list libraries with")
    needed = subprocess.run(["ldd", rc.get_library()], capture_output=True, text=True, check=True).stdout
    assert "libc.so" in needed and "python" not in needed


def test_the_command_line_says_where_it_is():
    for option, place in [
        ("--include-dir", rc.get_include()),
        ("--lib-dir", os.path.dirname(rc.get_library())),
        ("--cmake-dir", rc.get_cmake_dir()),
    ]:
        done = subprocess.run([sys.executable, "-m", "resnetcore", option], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == place and os.path.exists(place)


def require(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")


FLAGS = "-Wall -Wextra -pedantic -Werror"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """{"c", "cpp": folder of programs}, built by CMake from the installed package."""
    require("cmake", "cc", "c++")
    folders = {}
    for name in ("c", "cpp"):
        folders[name] = tmp_path_factory.mktemp(name)
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        configure = ["cmake", "-S", ROOT / "examples" / name, "-B", folders[name], *generator]
        configure += [
            f"-Dresnetcore_DIR={rc.get_cmake_dir()}",
            f"-DCMAKE_C_FLAGS={FLAGS}",
            f"-DCMAKE_CXX_FLAGS={FLAGS}",
        ]
        run(configure)
        run(["cmake", "--build", folders[name]])
    return folders


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def grid():
    index = np.arange(64)
    return np.stack([(index % 8 * 2 - 7) / 8, (index // 8 * 2 - 7) / 8], axis=1).astype("f4")


def test_the_example_in_c_trains_and_predicts_as_python_does(examples, tmp_path):
    start, result = tmp_path / "start", tmp_path / "result"
    net = rc.models.resnet(2, 2, width=16, depth=6, norm="batch", seed=1)
    net.save(start)
    losses = [float(line) for line in run([examples["c"] / "train", start, result]).split()]
    x = grid()
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    trainer = rc.Trainer(net, "cross_entropy", rc.SGD(lr=0.05, momentum=0.9))
    assert losses == [trainer.step(x, y) for _ in range(100)]
    assert losses[-1] < 0.1 * losses[0]
    loaded = rc.load(result)
    for name, array in arrays_of(net).items():
        np.testing.assert_array_equal(arrays_of(loaded)[name], array)
    text = "\n".join(" ".join(map(repr, row)) for row in x.tolist())
    printed = run([examples["c"] / "predict", result], input=text)
    np.testing.assert_array_equal(np.loadtxt(printed.splitlines(), dtype="f4"), net.predict(x))


def test_the_example_in_cpp_trains_as_python_does(examples, tmp_path):
    start, result = tmp_path / "start", tmp_path / "result"
    net = rc.models.plain(2, 1, width=16, depth=3, activation="tanh", seed=1)
    net.save(start)
    numbers = [float(line) for line in run([examples["cpp"] / "train", start, result]).split()]
    x = grid()
    y = x[:, :1] * x[:, 1:]
    trainer = rc.Trainer(net, "mse", rc.Adam(lr=0.01))
    assert numbers[:100] == [trainer.step(x, y) for _ in range(100)]
    np.testing.assert_array_equal(np.array(numbers[100:], "f4")[:, None], net.predict(x))
    net.save(start)
    assert start.read_bytes() == result.read_bytes()


def wheel_of_what_is_installed(folder):
    """The wheel that the package was installed from, made again of its files."""
    installed = importlib.metadata.distribution("resnetcore")
    tag = re.search(r"^Tag: (\S+)", installed.read_text("WHEEL"), re.M)[1]
    wheel = folder / f"resnetcore-{installed.version}-{tag}.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in installed.files:
            if file.parts[0].startswith("resnetcore") and "__pycache__" not in file.parts:
                archive.write(file.locate(), str(file))
    if Path(rc.get_library()).name not in {Path(name).name for name in archive.namelist()}:
        pytest.skip("the package is not installed from a wheel, but from its sources in place")
    return wheel


def test_the_examples_need_a_wheel_cmake_and_a_compiler_alone(tmp_path):
    """In an environment that has neither NumPy nor PyTorch nor JAX, nor anything of this one's."""
    require("cmake", "cc", "c++", "ldd")
    wheel, environment = wheel_of_what_is_installed(tmp_path), tmp_path / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", environment])
    python = environment / "bin" / "python"
    if importlib.util.find_spec("pip") is None:
        pytest.skip("there is no pip to install a wheel with")
    run([sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps", wheel])
    (package,) = environment.glob("lib/python*/site-packages/resnetcore")
    assert [p.name for p in package.parent.iterdir() if p.suffix != ".dist-info"] == ["resnetcore"]
    folder = package / Path(rc.get_cmake_dir()).relative_to(Path(rc.__file__).parent)
    programs = {str(Path(shutil.which(name)).parent) for name in ("cmake", "cc", "c++")}
    clean = {"PATH": os.pathsep.join([*sorted(programs), os.defpath]), "HOME": str(tmp_path)}
    rc.models.resnet(2, 2, width=16, depth=6, seed=1).save(tmp_path / "start")
    for name in ("c", "cpp"):
        run(["cmake", "-S", ROOT / "examples" / name, "-B", tmp_path / name, f"-Dresnetcore_DIR={folder}"], env=clean)
        run(["cmake", "--build", tmp_path / name], env=clean)
    losses = run([tmp_path / "c" / "train", tmp_path / "start", tmp_path / "result"], env=clean).split()
    assert len(losses) == 100 and float(losses[-1]) < float(losses[0])
    assert rc.load(tmp_path / "result").outputs == 2
    assert str(package) in run(["ldd", tmp_path / "cpp" / "train"], env=clean)


@pytest.mark.gpu
def test_the_examples_train_on_a_gpu(device, examples, tmp_path):
    rc.models.resnet(2, 2, width=16, depth=6, seed=1).save(tmp_path / "start")
    x, trained = grid(), rc.load(tmp_path / "start", device=device)
    trainer = rc.Trainer(trained, "cross_entropy", rc.SGD(lr=0.05, momentum=0.9))
    losses = [trainer.step(x, (x[:, 0] * x[:, 1] > 0).astype(int)) for _ in range(100)]
    printed = run([examples["c"] / "train", tmp_path / "start", tmp_path / "result", device])
    assert [float(line) for line in printed.split()] == losses
    np.testing.assert_array_equal(rc.load(tmp_path / "result").predict(x), trained.to("cpu").predict(x))
    rc.models.plain(2, 1, width=16, depth=3, activation="tanh", seed=1).save(tmp_path / "start")
    numbers = [
        float(line) for line in run([examples["cpp"] / "train", tmp_path / "start", tmp_path / "x", device]).split()
    ]
    found = rc.load(tmp_path / "x", device=device).predict(x)
    np.testing.assert_array_equal(np.array(numbers[100:], "f4")[:, None], found)


def test_an_example_reports_what_is_wrong(examples, tmp_path):
    for program in (examples["c"] / "train", examples["cpp"] / "train"):
        done = subprocess.run([program, tmp_path / "missing", tmp_path / "x"], capture_output=True, text=True)
        assert done.returncode == 1 and "missing': No such file or directory" in done.stderr
    rc.models.plain(2, 1, width=4, depth=2).save(tmp_path / "net")
    for text, rows in [("1 2\n3 4\n", 2), ("1 2\n3", 1), ("1 2\n3 x\n", 1), ("x", 0)]:
        command = [examples["c"] / "predict", tmp_path / "net"]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        assert done.stdout.count("\n") == rows and done.returncode == (rows < 2)
        assert ("a row is incomplete" in done.stderr) == (rows < 2)


def test_the_example_of_the_documentation_runs(tmp_path):
    require("c++", "pkg-config")
    code = re.search(r"```cpp\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text(), re.S)[1]
    source = tmp_path / "main.cpp"
    source.write_text(code)
    folder = Path(rc.get_library()).parent
    flags = run(
        ["pkg-config", "--cflags", "--libs", "resnetcore"], env={**os.environ, "PKG_CONFIG_PATH": folder / "pkgconfig"}
    )
    run(["c++", "-std=c++17", *FLAGS.split(), source, "-o", tmp_path / "main", *flags.split(), f"-Wl,-rpath,{folder}"])
    rc.models.resnet(4, 3, width=16, depth=4).save(tmp_path / "net.safetensors")
    run([tmp_path / "main"], cwd=tmp_path)
    assert rc.load(tmp_path / "trained.safetensors").outputs == 3
