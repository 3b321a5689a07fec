"""Networks on a GPU do what they do on the CPU: the same truth, masks, errors and files. Small, as the emulation of a GPU
is slow."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import resnetcore as rc
from comparison import (
    BOUND,
    HIGH,
    NARROW,
    OPTIMIZERS,
    assert_within,
    first_clear_case,
    our_gradients,
    our_weights,
    rounding_errors,
    torch_gradients,
    torch_weights,
    true_gradients,
    true_weights,
    worst_errors,
)
from resnetcore import _core
from strategies import random_case

pytestmark = pytest.mark.gpu

ROWS = 40


def problem(dtype="float32"):
    rng = np.random.default_rng(0)
    return rng.standard_normal((ROWS, 6)).astype(dtype), rng.integers(0, 3, ROWS)


def network(device="cpu", dtype="float32", norm="batch"):
    layers = [
        rc.Layer(9, norm=norm),
        rc.Layer(9, skips={2: "learned"}, dropout=0.25),
        rc.Layer(9, skips={2: "identity"}, gate=True, activation="gelu"),
        rc.Layer(3, activation=None),
    ]
    return rc.Network(6, layers, seed=3, dtype=dtype, device=device)


def everything(trainer):
    """All that a step changes."""
    return {**trainer.net.parameters(), **trainer.net.buffers(), **trainer.state()["optimizer"]}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("seed", range(5))
def test_outputs_and_gradients(device, seed, dtype):
    case, exact = first_clear_case(true_gradients, seed)

    def theirs():
        return worst_errors(lambda order: torch_gradients(case, dtype, order), case, exact)

    assert_within(our_gradients(case, dtype, device), exact, BOUND[dtype], theirs)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize(("seed", "optimizer"), list(enumerate(OPTIMIZERS)))
def test_five_steps(device, seed, optimizer, dtype):
    ours, settings = OPTIMIZERS[optimizer]
    case, exact = first_clear_case(lambda case: true_weights(case, settings, ours.lr, 7, 5), seed)

    def theirs():
        return worst_errors(lambda o: torch_weights(case, dtype, settings, ours.lr, 7, 5, o), case, exact)

    assert_within(our_weights(case, dtype, ours, 7, 5, device), exact, BOUND[dtype], theirs)


def test_bfloat16_of_more_tiles_than_multiprocessors(device):
    emulated = "emulated" in str(_core.cuda_info()["gpus"])  # slow, and of three multiprocessors
    rows, width, outputs = (300, 150, 260) if emulated else (16384, 1700, 260)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((rows, width)).astype("float32"), rng.integers(0, outputs, rows)
    layers = [rc.Layer(width), rc.Layer(width, skips={2: "identity"}), rc.Layer(outputs, activation=None)]
    there, here = (rc.Network(width, layers, dtype="bfloat16", device=place) for place in (device, "cpu"))
    found, expected = there.gradients(x, y), here.gradients(x, y)
    pairs = [(there.predict(x), here.predict(x))] + [(found[1][n], expected[1][n]) for n in expected[1]]
    for one, other in pairs:  # of 400 tiles, one that is wrong would be a twentieth of the norm
        assert np.linalg.norm(one - other) <= 2e-2 * np.linalg.norm(other)


def test_bfloat16_rounds_where_the_formulas_say(device):
    for seed in range(4):
        worst = max(ours / (rounding + NARROW.flips) for ours, _, rounding in rounding_errors(seed, NARROW, device))
        assert worst < 0.6, seed


def test_high_is_as_near_as_rounding_lets_it(device):
    """Also where the CPU multiplies floats for it: the network changes what it stores with the device."""
    case = random_case(0, smooth=True)
    net, _, _ = case.in_precision("float32", "high", device)
    assert "products of bfloat16x2" in str(net.explain())
    assert same(net.to("cpu")._arrays(), net._arrays())
    for seed in range(3):
        assert max(ours / (rounding + HIGH.flips) for _, ours, rounding in rounding_errors(seed, HIGH, device)) < 2.5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (2, 3), (17, 33), (131, 65)])
def test_small_integers_are_exact(device, rows, width, dtype):
    rng = np.random.default_rng(width)
    net = rc.Network(width, [rc.Layer(3, activation=None)], dtype=dtype, device=device)
    w, b = rng.integers(-1, 2, (width, 3)).astype("f4"), rng.integers(-1, 2, 3).astype("f4")
    net.set_parameters({"1.weight": w, "1.bias": b})
    x = rng.integers(-1, 2, (rows, width)).astype("f4")
    z = x @ w + b
    assert np.array_equal(net(x), z)
    # A target one away: the gradient of the mean is 2 / (3 · rows), which lr takes away.
    rc.Trainer(net, loss="mse", optimizer=rc.SGD(lr=1.5 * rows, momentum=0.0)).step(x, z + 1)
    np.testing.assert_allclose(net.parameters()["1.weight"], w + x.sum(axis=0)[:, None], rtol=4e-3, atol=4e-3)


def test_norms_of_more_rows_than_one_launch_takes(device):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8200, 2)), rng.integers(0, 2, 8200)
    layers = [rc.Layer(2, norm="batch"), rc.Layer(2, norm="batch", skips={2: "identity"}), rc.Layer(2, activation=None)]
    trainers = [rc.Trainer(rc.Network(2, layers, dtype="float64", device=where)) for where in ("cpu", device)]
    for trainer in trainers:
        trainer.step(x, y)
    here, there = map(everything, trainers)
    for name in here:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("options", [{"clip_norm": 0.1}, {"accumulate": 3}, {"clip_norm": 0.1, "accumulate": 2}])
def test_clipping_and_accumulation(device, options):
    x, y = problem("float64")
    trainers = [
        rc.Trainer(network(where, "float64"), optimizer=rc.Adam(lr=0.01), class_weight=[1.0, 2.0, 3.0], **options)
        for where in ("cpu", device)
    ]
    for _ in range(4):
        losses = [trainer.step(x, y) for trainer in trainers]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-11)
        np.testing.assert_allclose(trainers[1].last_gradient_norm, trainers[0].last_gradient_norm, rtol=1e-11)
    here, there = map(everything, trainers)
    for name in here:
        np.testing.assert_allclose(there[name], here[name], rtol=1e-8, atol=1e-10, err_msg=name)


def test_dropout_masks_are_the_cpus(device):
    layers = [rc.Layer(37, dropout=0.5, activation=None, bias=False), rc.Layer(2)]
    x = np.ones((70, 37), "float32")
    masks = []
    for where in ("cpu", device):
        net = rc.Network(37, layers, seed=3, device=where)
        net.set_parameters({"1.weight": np.eye(37, dtype="float32")})
        masks.append(net._core.activations(x, True)["1"])
    assert np.array_equal(*masks) and 0 < (masks[0] == 0).mean() < 1


def test_a_step_is_one_of_the_same_bits(device):
    """The first of a kind is done call by call, the second recorded, later ones are played; other sizes come between."""
    x, y = problem()
    sizes = [40, 40, 40, 17, 40, 17, 17, 40]
    known = rc.Trainer(network(device), optimizer="adam")
    for number, rows in enumerate(sizes):
        fresh = rc.Trainer(network(device), optimizer="adam")  # all of whose kinds are new
        fresh.net.set_parameters(known.net._arrays())
        fresh.set_state({**known.state(), "position": fresh.state()["position"], "history": {}})
        assert known.step(x[:rows], y[:rows]) == fresh.step(x[:rows], y[:rows]), number
        assert same(everything(known), everything(fresh)), number


TRAIN = """
import hashlib
import numpy as np
import resnetcore as rc
rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 6)).astype("f4"), rng.integers(0, 3, 40)
net = rc.models.resnet(6, 3, 8, 6, norm="batch", dropout=0.1, device="cuda")
history = rc.Trainer(net, optimizer="adam", batch_size=8).fit(X, y, epochs=2, progress=False)
print(history["loss"], {name: hashlib.sha256(array).hexdigest() for name, array in net.parameters().items()})
print(rc.config.config()["CUDA"])
"""


@pytest.mark.skipif("RESNETCORE_CUDA_LIBRARY" not in os.environ, reason="a GPU cannot be told not to record")
def test_steps_that_cannot_be_recorded_have_the_same_bits(device):
    told = []
    for fails in ({}, {"RESNETCORE_EMULATED_RECORDING_FAILS": "1"}):
        command = [sys.executable, "-c", TRAIN]
        done = subprocess.run(
            command, env={**os.environ, **fails}, check=True, capture_output=True, text=True, timeout=60
        )
        told.append(done.stdout.splitlines())
    (recorded, fast), (launched, slow) = told
    assert recorded == launched
    assert "kernel by kernel" not in fast
    assert slow.endswith("steps on cuda:0 are launched kernel by kernel: the emulation is told not to record")


def test_nan_and_overflow_change_nothing(device):
    x, y = problem()
    trainer = rc.Trainer(network(device), optimizer="adam")
    for _ in range(3):
        trainer.step(x, y)
    before = everything(trainer)
    bad = x.copy()
    bad[7, 2] = np.nan
    for _ in range(2):
        with pytest.raises(FloatingPointError, match=r"step 4; the first layer .* is layer 0"):
            trainer.step(bad, y)
        assert same(everything(trainer), before)
    trainer.step(x, y)
    trainer = rc.Trainer(network(device, norm=None), optimizer=rc.SGD(lr=3e38, momentum=0.0))
    before = everything(trainer)
    with pytest.raises(FloatingPointError, match="the update makes"):
        trainer.step(1e6 * x, y)
    assert same(everything(trainer), before)


def test_files_and_copies_know_no_device(device, tmp_path):
    x, y = problem()
    trainer = rc.Trainer(network(device), optimizer="adamw", batch_size=16)
    trainer.fit(x, y, epochs=1, progress=False)
    trainer.save(tmp_path / "training")
    trainer.fit(x, y, epochs=2, progress=False)
    resumed = rc.Trainer.resume(tmp_path / "training", device=device)
    resumed.fit(x, y, epochs=2, progress=False)
    assert resumed.net.device == device and same(everything(resumed), everything(trainer))
    here = rc.Trainer.resume(tmp_path / "training")
    here.fit(x, y, epochs=2, progress=False)
    assert here.net.device == "cpu"
    for name, array in everything(here).items():
        np.testing.assert_allclose(everything(trainer)[name], array, rtol=1e-3, atol=1e-5, err_msg=name)

    net = trainer.net
    net.save(tmp_path / "network")
    places = {
        "cpu": [rc.load(tmp_path / "network"), net.to("cpu"), pickle.loads(pickle.dumps(net))],
        device: [rc.load(tmp_path / "network", device=device), net.copy(), copy.deepcopy(net), net.astype("float64")],
    }
    for where, nets in places.items():
        for other in nets:
            assert other.device == where
            for name, array in net._arrays().items():
                np.testing.assert_array_equal(other._arrays()[name], array)
    np.testing.assert_allclose(net.to("cpu").predict(x), net.predict(x), rtol=1e-4, atol=1e-5)
    assert repr(net).endswith(f"on {device}>") and device in str(net.explain())


def test_diagnose_and_evaluate(device):
    x, y = problem("float64")
    here, there = network("cpu", "float64"), network(device, "float64")
    a, b = (rc.Trainer(net).evaluate(x, y) for net in (here, there))
    assert a.keys() == b.keys()
    np.testing.assert_allclose(list(b.values()), list(a.values()), rtol=1e-11)
    assert str(here.diagnose(x, y)) == str(there.diagnose(x, y))


def test_refusals(device):
    layers = [*[rc.Layer(1) for _ in range(514)], rc.Layer(1, skips=dict.fromkeys(range(2, 515), "identity"))]
    with pytest.raises(rc.DeviceError, match=r'at most \d+; use fewer skips side by side, or device="cpu"'):
        rc.Network(1, layers, device=device)
    with pytest.raises(rc.DeviceError, match=r'a width is 4194241, .* take at most 4194240; .* or device="cpu"'):
        rc.Network(1, [rc.Layer(4194241), rc.Layer(1)], device=device)
    with pytest.raises(rc.DeviceError, match="must be on the CPU"):
        rc.tune(network(device), 32)
    with pytest.raises(rc.ShapeError):
        network(device).predict(np.zeros((2, 5), "float32"))
