"""The C interface on a GPU, or its emulation: the formulas, Python's networks to the bit, the caller's memory in place, the
order of streams, and what is refused."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import c_library as c
import resnetcore as rc
from gpu_memory import OtherStream, emulated, library
from reference import rounded
from resnetcore import _core
from test_capi import BFLOAT16, FLAGS, ROOT, TOLERANCE, TRAININGS, block, distance, formula, require, run
from test_checkpoint import make_network

pytestmark = pytest.mark.gpu
LEGACY = 1  # CUDA's default stream
BOUND = {**TOLERANCE, BFLOAT16: 4e-3}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.safetensors"


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def second(device, monkeypatch):
    monkeypatch.setenv("RESNETCORE_EMULATED_DEVICES", "2")
    try:
        return c.find_device("cuda:1")
    except c.Failed as error:
        pytest.skip(str(error))


def both(path, kind="batch norm", dtype="float32"):
    """One network on the GPU: Python's, and C's."""
    net = make_network(kind, dtype)
    net.save(path)
    return net.to("cuda"), c.Network(path).copied(c.CUDA)


def moved(arrays):
    return [c.OnGpu(a) for a in arrays]


def zeros_like(arrays):
    """Room for results in rows that are wider."""
    return [c.OnGpu(np.full((len(a), a.shape[1] + 2), 9, a.dtype)[:, : a.shape[1]]) for a in arrays]


def untouched(results):
    for result in results:
        around = result.around().astype(np.float64)
        assert (around == np.where(around == 0, 0, 9)).all() and (around == 9).sum() == 2 * len(result)


# ---- Devices -----------------------------------------------------------------------------------------------------


def test_devices_have_pythons_names(device):
    assert c.find_device("cuda") == c.find_device("cuda:0") == c.CUDA
    count = ctypes.c_int()
    c.check(c.lib.rc_cuda_count(ctypes.byref(count)))
    assert count.value == len(_core.cuda_info()["gpus"])
    with pytest.raises(rc.DeviceError) as theirs:
        _core.check_device("cuda:77")
    with pytest.raises(c.Failed) as ours:
        c.find_device("cuda:77")
    assert str(ours.value) == f"RC_DEVICE_ERROR: {theirs.value}"


def test_the_cuda_module_is_found_beside_the_folder_of_the_library(device, tmp_path):
    """As a wheel has it."""
    (tmp_path / "lib").mkdir()
    shutil.copy(rc.get_library(), tmp_path / "lib")
    code = """
import ctypes, sys
lib, count = ctypes.CDLL(sys.argv[1]), ctypes.c_int()
lib.rc_last_error.restype = ctypes.c_char_p
print(lib.rc_cuda_count(ctypes.byref(count)), count.value, lib.rc_last_error().decode())
"""
    command = [sys.executable, "-c", code, tmp_path / "lib" / Path(rc.get_library()).name]
    clean = {name: value for name, value in os.environ.items() if name != "RESNETCORE_CUDA_LIBRARY"}
    for text in ("4 0 this build of resnetcore has no CUDA", f"0 {len(_core.cuda_info()['gpus'])}"):
        done = subprocess.run(command, env=clean, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(text), done
        shutil.copy(library()._name, tmp_path / "libresnetcore_cuda.so")


def test_there_and_back_again(device, path, tmp_path, rng):
    net, there = both(path, "every setting")
    assert there.device == there.copied().device == c.CUDA and c.lib.rc_device_name(there.device) == device.encode()
    for copy in (there, there.copied(), there.copied(c.CPU), there.copied(c.CPU).copied(c.CUDA)):
        copy.save(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == path.read_bytes()
    x = rng.standard_normal((33, 5)).astype("f4")
    np.testing.assert_array_equal(there.predict(x), net.predict(x))
    np.testing.assert_array_equal(there.copied(c.CPU).predict(x), net.to("cpu").predict(x))


# ---- The block ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUND, ids=str)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_block_is_the_formula(device, rng, dtype, activation):
    sources, weights, bias, identity, matrix = block(rng, dtype)
    bound, grad = BOUND[dtype], matrix(9, 7)
    there = moved(sources), moved(weights), c.OnGpu(bias), moved(identity)
    (a,) = zeros_like([grad])
    c.forward(a, *there, activation)
    assert distance(a.numpy(), formula(sources, weights, bias, identity, activation)) < bound
    into = zeros_like(sources), zeros_like(weights), c.OnGpu(np.zeros(7, dtype)), zeros_like(identity)
    c.backward(c.OnGpu(grad), a, *there, activation, into=into)
    exact = formula(sources, weights, bias, identity, activation, grad, a.numpy())
    if dtype == BFLOAT16:  # products are of δ as it is rounded
        delta = into[3][0].numpy().astype(float)
        exact = [delta @ w.astype(float).T for w in weights], [s.astype(float).T @ delta for s in sources], delta.sum(0)
        exact = *exact, formula(sources, weights, bias, identity, activation, grad, a.numpy())[3]
    for got, want in zip(
        [*into[0], *into[1], into[2], *into[3]], [*exact[0], *exact[1], exact[2], *exact[3]], strict=True
    ):
        assert distance(got.numpy(), want) < 3 * bound
    untouched([a, *into[0], *into[1], *into[3]])
    c.update(c.OnGpu(grad), a, *there, activation, lr=0.25, into=(None, zeros_like(identity)))
    for got, old, gradient in zip([*there[1], there[2]], [*weights, bias], [*exact[1], exact[2]], strict=True):
        assert distance(got.numpy(), old.astype(float) - 0.25 * gradient) < 3 * bound


def test_bfloat16_is_rounded_once_or_not_at_all(device, rng):
    sources, weights, bias, identity, _ = block(rng, BFLOAT16)
    there = moved(sources), moved(weights), c.OnGpu(bias), moved(identity)
    wide, a = c.OnGpu(np.zeros((9, 7), "f4")), c.OnGpu(np.zeros((9, 7), BFLOAT16))
    for out in (wide, a):
        c.forward(out, *there)
    np.testing.assert_array_equal(a.numpy().astype("f4"), rounded(wide.numpy()))
    unrounded, stored = ([c.OnGpu(np.zeros(w.shape, t)) for w in weights] for t in ("f4", BFLOAT16))
    d_bias = c.OnGpu(np.zeros(7, "f4"))
    for d_weights in (unrounded, stored):
        c.backward(a, a, *there, into=(None, d_weights, d_bias, None))
    delta = a.numpy().astype(float) * (a.numpy() > 0)
    for d, s, source in zip(unrounded, stored, sources, strict=True):
        assert distance(d.numpy(), source.astype(float).T @ delta) < 2e-6
        np.testing.assert_array_equal(s.numpy().astype("f4"), rounded(d.numpy()))
    assert distance(d_bias.numpy(), delta.sum(axis=0)) < 2e-6


@pytest.mark.parametrize("kept", range(4))
def test_what_is_not_wanted_is_not_needed(device, rng, kept):
    sources, weights, bias, identity, _ = block(rng, "f4")
    there = moved(sources), moved(weights), c.OnGpu(bias), moved(identity)
    grad, a = rng.standard_normal((9, 7)).astype("f4"), c.OnGpu(np.zeros((9, 7), "f4"))
    c.forward(a, *there)
    exact = formula(sources, weights, bias, identity, "relu", grad, a.numpy())
    results = zeros_like(sources), zeros_like(weights), c.OnGpu(np.zeros(7, "f4")), zeros_like(identity)
    c.backward(c.OnGpu(grad), a, *there, into=[results[i] if i == kept else None for i in range(4)])
    ours, truth = ([results[2]], [exact[2]]) if kept == 2 else (results[kept], exact[kept])
    for got, want in zip(ours, truth, strict=True):
        assert distance(got.numpy(), want) < 1e-5


def test_inputs_of_any_stride_and_no_rows(device, rng):
    sources, weights, bias, identity, _ = block(rng, "f8")
    views = [np.broadcast_to(sources[0][:1].copy(), sources[0].shape), sources[1][::-1]]
    out = c.OnGpu(np.empty((9, 7)))
    c.forward(out, moved(views), moved(weights), c.OnGpu(bias), moved(identity))
    assert distance(out.numpy(), formula(views, weights, bias, identity, "relu")) < 1e-13
    nothing, d_bias = c.OnGpu(np.empty((0, 7))), c.OnGpu(np.ones(7))
    c.backward(
        nothing,
        nothing,
        [c.OnGpu(s[:0]) for s in sources],
        moved(weights),
        c.OnGpu(bias),
        into=(None,) * 2 + (d_bias, None),
    )
    assert not d_bias.numpy().any()


# ---- Networks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_predictions_are_pythons_wherever_the_rows_are(device, path, rng, dtype):
    net, there = both(path, dtype=dtype)
    wide = rng.standard_normal((33, 9)).astype(net.dtype)
    for x in (wide[:, 2:7], wide[::-2, :5], wide[:0, :5], np.broadcast_to(wide[:1, :5].copy(), (4, 5))):
        expected = net.predict(x)
        np.testing.assert_array_equal(there.predict(x), expected)
        np.testing.assert_array_equal(there.predict(c.OnGpu(x), np.empty_like(expected)), expected)
        for given in (x, c.OnGpu(x)):
            (out,) = zeros_like([expected])
            there.predict(given, out)
            np.testing.assert_array_equal(out.numpy(), expected)
            untouched([out])


def test_many_rows_in_parts(device, tmp_path, rng):
    rc.Network(1, [rc.Layer(1, activation=None)]).save(tmp_path / "net")
    net, x = c.Network(tmp_path / "net"), rng.standard_normal((16384 + 5, 1)).astype("f4")
    np.testing.assert_allclose(net.copied(c.CUDA).predict(x), net.predict(x), rtol=1e-6)


def test_parameters_in_and_out(device, path, rng):
    there = both(path)[1]
    weight, bias = rng.standard_normal((5, 8)).astype("f4")[:, 1:6], rng.standard_normal(2).astype("f4")
    there.set({"2.weight": c.OnGpu(weight), "3.bias": bias})
    results = *zeros_like([weight]), c.OnGpu(np.zeros(2, "f4"))
    there.get(["2.weight", "3.bias"], results)
    for got, want in zip(results, (weight, bias), strict=True):
        np.testing.assert_array_equal(got.numpy(), want)
    untouched(results[:1])
    here = np.zeros((5, 5), "f4")
    there.get(["2.weight"], [here])
    np.testing.assert_array_equal(here, weight)
    with pytest.raises(c.Failed, match=r"RC_DEVICE_ERROR: .*values must be on one device, got cuda:0 and cpu"):
        there.get(["2.weight", "3.bias"], [results[0], bias])
    with pytest.raises(c.Failed, match=r"RC_VALUE_ERROR: .*'1.norm.running_var'.*at least 0"):
        there.set({"3.bias": c.OnGpu(bias + 1), "1.norm.running_var": c.OnGpu(-np.ones(5, "f4"))})
    there.get(["3.bias"], results[1:])
    np.testing.assert_array_equal(results[1].numpy(), bias)


# ---- Training ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("kind", TRAININGS)
def test_steps_are_pythons_wherever_the_batch_is(device, path, tmp_path, rng, kind, dtype):
    loss, optimizer, number, changes = TRAININGS[kind]
    net, theirs = both(path, "batch norm" if loss == "cross_entropy" else "every setting", dtype)
    labels = loss == "cross_entropy"
    x = rng.standard_normal((12, 9)).astype(net.dtype)[:, 3:8]
    y = rng.integers(0, net.outputs, (12, 3)) if labels else rng.random((12, net.outputs + 2)).astype(net.dtype)
    y = y[:, 1:2] if labels else y[:, 2:]
    weight = rng.random((12, 2)).astype(net.dtype)[::-1, :1]
    shared = ("clip_norm", "accumulate", "seed", "class_weight", "label_smoothing")
    trainer = rc.Trainer(net, loss, optimizer, **{name: changes[name] for name in shared if name in changes})
    ours = c.Trainer(theirs, loss, number, **changes)
    there = [c.OnGpu(array) for array in (x, y, weight)]
    for on_gpu in ((0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)):
        batch = [there[i] if on_gpu[i] else array for i, array in enumerate((x, y, weight))]
        expected = trainer.step(x, y[:, 0] if labels else y, sample_weight=weight[:, 0])
        assert ours.step(*batch[:2], optimizer.lr, batch[2]) == expected
    assert ours.steps == 6
    net.to("cpu").save(path)
    theirs.save(tmp_path / "theirs")
    assert (tmp_path / "theirs").read_bytes() == path.read_bytes()


def test_bad_batches_change_nothing(device, path, tmp_path, rng):
    _, net = both(path)
    trainer = c.Trainer(net, "cross_entropy", c.SGD)
    x, y = rng.standard_normal((4, 5)).astype("f4"), np.array([[0], [1], [1], [0]])
    there = c.OnGpu(x)
    for batch, message in [
        ((there, c.OnGpu(y + 1)), "RC_VALUE_ERROR: .*y must hold labels from 0 to 1, got 2 in row 1"),
        ((there, c.OnGpu(np.full((4, 2), 1.5, "f4"))), r"RC_VALUE_ERROR: .*probabilities in \[0, 1\], got 1.5"),
        ((there, c.OnGpu(y[:3])), r"RC_SHAPE_ERROR: .*y must be \(4, 1\), got \(3, 1\)"),
        ((c.OnGpu(x * np.float32("inf")), y), "RC_NON_FINITE: rc_trainer_step: the loss became nan at step 1"),
    ]:
        for stream in (None, LEGACY):
            with pytest.raises(c.Failed, match=message):
                trainer.step(*batch, 0.1, stream=stream)
            net.save(tmp_path / "after")
            assert (tmp_path / "after").read_bytes() == path.read_bytes() and trainer.steps == 0
    assert trainer.step(there, y, 0.1) > 0


# ---- Streams -----------------------------------------------------------------------------------------------------


def late(other, values):
    """A GPU's memory that gets its values when that stream's turn comes."""
    there = c.OnGpu(np.zeros_like(values))
    other.write(there.memory.pointer, values)
    return there


def fetched(other, result):
    """What is there when that stream's turn comes."""
    values = np.empty(result.values.shape, result.values.dtype)
    other.read(values, result.memory.pointer)
    other.wait()
    return values


@pytest.mark.parametrize("function", ["forward", "backward", "update"])
def test_work_comes_in_the_order_of_the_stream_that_is_named(device, rng, function):
    other, (sources, weights, bias, identity, _) = OtherStream(), block(rng, "f8")
    sources[0] = sources[0].copy()
    first, rest = late(other, sources[0]), moved(sources[1:])
    there = [first, *rest], moved([w.copy() for w in weights]), c.OnGpu(bias), moved(identity)
    exact = formula(sources, weights, bias, identity, "relu")
    grad, a = c.OnGpu(np.ones((9, 7))), c.OnGpu(exact)
    gradients = formula(sources, weights, bias, identity, "relu", np.ones((9, 7)), exact)
    out, results = c.OnGpu(np.zeros((9, 7))), [c.OnGpu(np.zeros(w.shape)) for w in weights]
    before = emulated("waits")
    if function == "forward":
        result, truth = out, exact
        c.forward(result, *there, stream=other.handle)
    elif function == "backward":
        result, truth = results[0], gradients[1][0]
        c.backward(grad, a, *there, into=(None, results, None, None), stream=other.handle)
    else:
        result, truth = there[1][0], weights[0] - 0.5 * gradients[1][0]
        c.update(grad, a, *there, lr=0.5, stream=other.handle)
    assert emulated("waits") == before
    np.testing.assert_allclose(fetched(other, result), truth, rtol=1e-11, atol=1e-12)


def test_a_prediction_comes_in_the_order_of_its_stream_and_waits_for_nothing(device, path, rng):
    net, there = both(path)
    x = rng.standard_normal((9, 5)).astype("f4")
    out, expected, other = c.OnGpu(np.zeros((9, 2), "f4")), net.predict(x), OtherStream()
    there.predict(x)  # norms are folded into weights once
    for given in (late(other, x), x):
        before = emulated("waits")
        there.predict(given, out, other.handle)
        assert emulated("waits") == before
        np.testing.assert_array_equal(fetched(other, out), expected)
        out.memory.write(out.values)
    np.testing.assert_array_equal(there.predict(late(other, x), np.empty_like(expected), other.handle), expected)


def test_a_step_comes_in_the_order_of_its_stream(device, path, rng):
    (net, there), other = both(path), OtherStream()
    x, y, weight = rng.standard_normal((9, 5)).astype("f4"), rng.integers(0, 2, (9, 1)), rng.random((9, 1)).astype("f4")
    expected = rc.Trainer(net, "cross_entropy", rc.SGD(lr=0.1)).step(x, y[:, 0], sample_weight=weight[:, 0])
    batch = [late(other, array) for array in (x, y, weight)]
    assert c.Trainer(there, "cross_entropy", c.SGD).step(*batch[:2], 0.1, batch[2], other.handle) == expected


def test_without_a_stream_work_comes_after_the_default_ones(device, path, rng):
    (net, there), other = both(path), OtherStream(LEGACY)
    x, y = rng.standard_normal((9, 5)).astype("f4"), rng.integers(0, 2, (9, 1))
    expected = net.predict(x)
    np.testing.assert_array_equal(there.predict(late(other, x), np.empty_like(expected)), expected)
    bias = rng.standard_normal(2).astype("f4")
    there.set({"3.bias": late(other, bias)})
    net.set_parameters({"3.bias": bias})
    loss = rc.Trainer(net, "cross_entropy", rc.SGD(lr=0.1)).step(x, y[:, 0])
    assert c.Trainer(there, "cross_entropy", c.SGD).step(late(other, x), late(other, y), 0.1) == loss
    out = c.OnGpu(np.zeros((9, 3)))
    c.forward(out, [late(other, np.ones((9, 2)))], [late(other, np.ones((2, 3)))])
    np.testing.assert_array_equal(out.numpy(), np.full((9, 3), 2.0))


def test_a_stream_that_is_none(device, path):
    OtherStream()  # or skipped: CUDA does not look at what an address points to
    net, x = both(path)[1], np.ones((2, 5), "f4")
    trainer, out = c.Trainer(net, "mse", c.SGD), c.OnGpu(np.full((2, 2), 7, "f4"))
    for call in (
        lambda: net.predict(x, out, 12345),
        lambda: trainer.step(x, np.ones((2, 2), "f4"), 0.1, stream=12345),
        lambda: c.forward(out, [c.OnGpu(x)], [c.OnGpu(np.ones((5, 2), "f4"))], stream=12345),
    ):
        with pytest.raises(c.Failed, match=r"RC_DEVICE_ERROR: .*there is no such stream"):
            call()
    assert (out.numpy() == 7).all() and trainer.steps == 0


@pytest.fixture
def captured(device):
    """A stream of the driver's that is being captured into a graph."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        pytest.skip("there is no driver, and the emulation captures nothing")
    c.find_device("cuda")
    context, stream, graph = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0 and driver.cuCtxSetCurrent(context) == 0
    assert driver.cuStreamCreate(ctypes.byref(stream), 1) == 0  # CU_STREAM_NON_BLOCKING
    assert driver.cuStreamBeginCapture_v2(stream, 2) == 0  # CU_STREAM_CAPTURE_MODE_RELAXED
    yield stream.value
    assert driver.cuStreamEndCapture(stream, ctypes.byref(graph)) == 0 and driver.cuStreamDestroy_v2(stream) == 0


def test_a_captured_stream_is_refused(captured, path, tmp_path):
    net, x, y = both(path)[1], c.OnGpu(np.ones((2, 5), "f4")), np.ones((2, 2), "f4")
    out, weight = c.OnGpu(np.full((2, 2), 7, "f4")), c.OnGpu(np.ones((5, 2), "f4"))
    trainer = c.Trainer(net, "mse", c.SGD)
    for call in (
        lambda: net.predict(x, out, captured),
        lambda: trainer.step(x, y, 0.1, stream=captured),
        lambda: c.forward(out, [x], [weight], stream=captured),
        lambda: c.update(out, out, [x], [weight], lr=0.1, stream=captured),
    ):
        with pytest.raises(c.Failed, match=r"RC_DEVICE_ERROR: .*captured into a CUDA graph"):
            call()
    net.save(tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == path.read_bytes() and (out.numpy() == 7).all()
    assert (weight.numpy() == 1).all()


# ---- What is refused ---------------------------------------------------------------------------------------------


def said_to_be(there, device):
    there.matrix.device = device
    return there


def test_memory_in_the_wrong_place_is_refused(device, path, tmp_path):
    net, x = both(path)[1], np.ones((2, 5), "f4")
    here, out, weight = c.Network(path), c.OnGpu(np.full((2, 2), 7, "f4")), c.OnGpu(np.ones((5, 2), "f4"))
    gpus = c.OnGpu(x)
    host = c.OnGpu(x)
    host.matrix.data = x.ctypes.data
    trainer = c.Trainer(net, "mse", c.SGD)
    for call, message in [
        (lambda: here.predict(gpus, np.empty((2, 2), "f4")), f"x is on {device}, and the work is done on cpu; copy it"),
        (lambda: here.predict(x, out), f"out is on {device}, and the work is done on cpu"),
        (lambda: net.predict(host, out), f"x.data is memory of cpu, and x.device says {device}"),
        (lambda: trainer.step(host, np.ones((2, 2), "f4"), 0.1), "x.data is memory of cpu"),
        (lambda: net.set({"3.bias": said_to_be(c.OnGpu(np.ones(2, "f4")), c.CPU)}), f"memory of {device}.*says cpu"),
        (
            lambda: net.predict(said_to_be(c.OnGpu(x), c.CPU), out),
            f"x.data is memory of {device}, and x.device says cpu",
        ),
        (lambda: c.forward(out, [gpus], [np.ones((5, 2), "f4")]), rf"weights\[0\] is on cpu, and .* done on {device}"),
        (lambda: c.forward(out, [x], [weight]), rf"weights\[0\] is on {device}, and the work is done on cpu"),
        (lambda: c.forward(out, [host], [weight]), r"sources\[0\].data is memory of cpu"),
        (lambda: c.forward(np.empty((2, 2), "f4"), [gpus], [weight]), "out is on cpu"),
    ]:
        with pytest.raises(c.Failed, match=f"RC_DEVICE_ERROR: .*{message}"):
            call()
    with pytest.raises(c.Failed, match=r"RC_VALUE_ERROR: rc_network_predict: x: there is no device -3"):
        net.predict(said_to_be(c.OnGpu(x), -3), out)
    assert (out.numpy() == 7).all() and trainer.steps == 0
    net.save(tmp_path / "after")
    assert (tmp_path / "after").read_bytes() == path.read_bytes()


def test_the_other_gpus_memory_is_refused(device, second, path, rng):
    net, x = both(path)[1], rng.standard_normal((4, 5)).astype("f4")
    other = net.copied(second)
    assert other.device == second == c.CUDA + 1
    np.testing.assert_array_equal(other.predict(x), net.predict(x))
    with pytest.raises(c.Failed, match=f"RC_DEVICE_ERROR: .*x is on {device}, and the work is done on cuda:1; copy it"):
        other.predict(c.OnGpu(x), np.empty((4, 2), "f4"))
    with pytest.raises(c.Failed, match=f"RC_DEVICE_ERROR: .*x.data is memory of {device}, and x.device says cuda:1"):
        other.predict(c.OnGpu(x, second), np.empty((4, 2), "f4"))


def test_overlaps_and_layouts_are_refused_there_too(device, rng):
    shared, weight = c.OnGpu(rng.standard_normal((6, 20))), c.OnGpu(rng.standard_normal((8, 5)))
    before = shared.numpy()

    def part(begin, end, **changes):
        view = c.Matrix.from_buffer_copy(shared.matrix)
        view.data, view.columns = view.data + 8 * begin, end - begin
        for name, value in changes.items():
            setattr(view, name, value)
        return ctypes.byref(view)

    def forward(source, out):
        c.check(c.lib.rc_residual_forward(1, source, c.pointer(weight), None, 0, None, 1, out))

    for out, message in [
        (part(7, 12), r"VALUE_ERROR: .*out must not overlap sources\[0\]"),
        (part(8, 13, stride=3), "SHAPE_ERROR: .*stride of at least 5, got 3"),
        (part(8, 13, dtype=0), "DTYPE_ERROR: .*out must be float64, got float32"),
        (part(8, 13, data=shared.memory.pointer + 4), "SHAPE_ERROR: .*at a multiple of 8 bytes"),
    ]:
        with pytest.raises(c.Failed, match=f"RC_{message}"):
            forward(part(0, 8), out)
    np.testing.assert_array_equal(shared.numpy(), before)
    forward(part(0, 8), part(8, 13))
    np.testing.assert_array_equal(shared.numpy()[:, 13:], before[:, 13:])


def test_more_than_the_kernels_take(device):
    source, weight, out = (c.OnGpu(np.ones(shape, "f4")) for shape in [(2, 3), (3, 2), (2, 2)])
    with pytest.raises(c.Failed, match=r'RC_DEVICE_ERROR: .*device "cuda:0" adds at most \d+ sources.*on the CPU'):
        c.forward(out, [source] * 2000, [weight] * 2000)


def test_memory_that_ends_is_an_error_and_smaller_batches_go_on(device, path, tmp_path, monkeypatch, rng):
    if "emulated" not in str(_core.cuda_info()["gpus"]):
        pytest.skip("only the emulation's memory is little by command")
    net, x, y = both(path)[1], rng.standard_normal((5000, 5)).astype("f4"), rng.integers(0, 2, 5000)
    trainer = c.Trainer(net, "cross_entropy", c.ADAM)
    first = trainer.step(x[:8], y[:8], 0.01)
    net.save(path)
    monkeypatch.setenv("RESNETCORE_EMULATED_MEMORY", "200000")
    for call in (lambda: trainer.step(x, y, 0.01), lambda: net.copied().copied().copied() and net.predict(x)):
        with pytest.raises(c.Failed, match="RC_MEMORY_ERROR"):
            call()
        net.save(tmp_path / "after")
        assert (tmp_path / "after").read_bytes() == path.read_bytes() and trainer.steps == 1
    monkeypatch.delenv("RESNETCORE_EMULATED_MEMORY")
    assert trainer.step(x[:8], y[:8], 0.01) < first


def test_the_example_of_the_documentation_runs(device, path, tmp_path, rng):
    require("c++")
    code = re.findall(r"```cpp\n(.*?)```", (ROOT / "docs" / "embedding.md").read_text(), re.S)[1]
    (tmp_path / "example.cpp").write_text(f"""
#include "resnetcore.hpp"
{code}
extern "C" void example(const char* path, const float* x, const std::int64_t* y, float* logits) {{
    run_on_gpu(rc::Network::load(path), x, y, logits, RC_STREAM_LEGACY);
}}
""")
    command = [
        "c++",
        "-std=c++17",
        *FLAGS.split(),
        "-shared",
        "-fPIC",
        f"-I{rc.get_include()}",
        tmp_path / "example.cpp",
    ]
    run([*command, "-o", tmp_path / "example.so", rc.get_library(), f"-Wl,-rpath,{Path(rc.get_library()).parent}"])
    net = rc.models.resnet(4, 3, width=16, depth=4)
    net.save(path)
    x, y = rng.standard_normal((128, 4)).astype("f4"), rng.integers(0, 3, 128)
    rows, labels, logits = c.OnGpu(x), c.OnGpu(y), c.OnGpu(np.zeros((128, 3), "f4"))
    example = ctypes.CDLL(tmp_path / "example.so").example
    example.argtypes = [ctypes.c_char_p] + [ctypes.c_void_p] * 3
    example(os.fsencode(path), *(array.memory.pointer for array in (rows, labels, logits)))
    trainer = rc.Trainer(net.to(device), optimizer=rc.Adam(lr=0.01))
    for _ in range(100):
        trainer.step(x, y)
    np.testing.assert_array_equal(logits.numpy(), trainer.net.predict(x))


# ---- Threads -----------------------------------------------------------------------------------------------------


def test_threads_share_a_network_and_a_trainer(device, path, rng):
    _, net = both(path)
    trainer = c.Trainer(net.copied(), "cross_entropy", c.SGD)
    x, y = rng.standard_normal((20, 5)).astype("f4"), rng.integers(0, 2, (20, 1))
    expected, wrong = net.predict(x), []

    def work():
        given, out = c.OnGpu(x), c.OnGpu(np.zeros((20, 2), "f4"))
        for i in range(5):
            net.predict(given, out, LEGACY if i % 2 else None)
            trainer.step(given, y, 0.01)
            wrong.extend([] if np.array_equal(out.numpy(), expected) else [i])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and trainer.steps == 20
