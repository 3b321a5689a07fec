"""Networks in bfloat16: against NumPy that rounds where they round, against float64, and their promises."""

import copy
import pickle

import numpy as np
import pytest

import resnetcore as rc
from comparison import OPTIMIZERS, true_gradients
from reference import Optimizer, Pass, distance, loss_and_gradient, rounded
from resnetcore import _core
from strategies import random_case

SEEDS = range(60)
# One bfloat16 in hundreds is rounded the other way, where float32 and float64 sums lie on two sides of a tie.
FLIPS = 2e-3


@pytest.mark.parametrize("width", [1, 2, 7, 16, 33])
def test_rounding_of_what_comes_in(width):
    rng = np.random.default_rng(width)
    x = (rng.standard_normal((40, width)) * 2.0 ** rng.integers(-60, 60, (40, width))).astype("float32")
    ties = (rounded(x) * (1 + 2.0**-8)).astype("float32")  # half way between two neighbours
    net = rc.Network(width, [rc.Layer(width, activation=None, bias=False)], dtype="bfloat16")
    net.set_parameters({"1.weight": np.eye(width, dtype="float32")})
    for values in (x, ties):
        assert np.array_equal(net(values), rounded(values))
    special = np.full((3, width), [[np.nan], [np.inf], [-np.inf]], "float32")
    if width == 1:  # elsewhere the zeros of the matrix make NaN of infinity
        assert np.array_equal(net(special), special, equal_nan=True)


@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 65])
@pytest.mark.parametrize("strategy", ["by_layer", "by_tile"])
def test_small_integers_are_exact(width, strategy):
    """Forward, backward and the update, at every tail: nothing here needs more than eight bits."""
    rng = np.random.default_rng(width)
    outputs = 3
    _core.set_strategy(strategy)
    for rows in (1, 2, 17, 131):
        net = rc.Network(width, [rc.Layer(outputs, activation=None)], dtype="bfloat16")
        w, b = rng.integers(-1, 2, (width, outputs)).astype("f4"), rng.integers(-1, 2, outputs).astype("f4")
        net.set_parameters({"1.weight": w, "1.bias": b})
        x, y = (rng.integers(-1, 2, (rows, n)).astype("f4") for n in (width, outputs))
        z = x @ w + b
        assert np.array_equal(net(x), z)
        delta = 2 * (z - y)  # times the mean's 1 / (rows · outputs), which lr takes away
        trainer = rc.Trainer(net, loss="mse", optimizer=rc.SGD(lr=float(rows * outputs), momentum=0.0))
        scale = np.float32(1 / (rows * outputs))
        trainer.step(x, y)
        expected = w - rows * outputs * (x.T @ rounded(delta * scale))
        assert distance(net.parameters()["1.weight"], expected) < 1e-6
    _core.set_strategy("auto")


def emulated(case):
    """What the network gives where every sum is exact and what it stores is rounded."""
    forward = Pass(case.layers, case.arrays, case.x, True, seed=case.net.seed, store=rounded)
    value, gradient = loss_and_gradient(z=forward.a[-1], y=case.y, **case.loss_settings)
    gradients, d_x = forward.backward(gradient)
    outputs = Pass(case.layers, case.arrays, case.x, False, store=rounded).a[-1]
    return {"output": outputs, "loss": np.array([value]), "input": d_x, **gradients}


def in_bfloat16(case):
    net, x, y = case.in_precision("bfloat16")
    value, gradients, d_x = net.gradients(x, y, case.loss, sample_weight=case.sample_weight)
    return {"output": net(x), "loss": np.array([value]), "input": d_x, **gradients}


def differences(seed):
    """Of each array from the emulation's, as a share of what rounding does to it at all."""
    case = random_case(seed, smooth=True)
    truth, exact, got = true_gradients(case), emulated(case), in_bfloat16(case)
    assert got.keys() == exact.keys()
    arrays = exact.keys() - {"loss"}
    return [distance(got[n], exact[n]) / (distance(exact[n], np.asarray(truth[n], float)) + FLIPS) for n in arrays]


def test_rounds_where_the_formulas_say():
    worst = [max(differences(seed)) for seed in SEEDS]
    assert max(worst) < 0.6  # one flip in a first layer, in a deep network
    assert np.median(worst) < 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "nesterov", "adamw"])
@pytest.mark.parametrize("seed", range(12))
def test_parameters_are_float32(seed, optimizer):
    """A step too small for bfloat16 still adds up: the weights are float32, their copies are rounded."""
    case = random_case(seed, smooth=True)
    ours, settings = OPTIMIZERS[optimizer]
    net, x, y = case.in_precision("bfloat16")
    trainer = rc.Trainer(net, loss=case.loss, optimizer=ours, seed=7)
    arrays, rule = case.arrays, Optimizer(**settings)
    for step in range(3):
        trainer.step(x, y, case.sample_weight)
        forward = Pass(case.layers, arrays, case.x, True, seed=7, step=step, store=rounded)
        _, gradient = loss_and_gradient(z=forward.a[-1], y=case.y, **case.loss_settings)
        arrays = {**rule.step(arrays, forward.backward(gradient)[0], ours.lr), **forward.running}
    moved = {name: distance(a, arrays[name]) for name, a in {**net.parameters(), **net.buffers()}.items()}
    assert max(moved.values()) < 0.01 and np.median(list(moved.values())) < FLIPS, moved


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_near_float64(norm, activation):
    rng = np.random.default_rng(0)
    net = rc.models.resnet(40, 10, 96, 16, norm=norm, activation=activation, seed=3)
    x, y = rng.standard_normal((200, 40)).astype("float32"), rng.integers(0, 10, 200)
    narrow, exact = net.astype("bfloat16"), net.astype("float64")(x.astype("float64"))
    if (error := distance(narrow(x), exact)) > 6e-3:
        torch = pytest.importorskip("torch", reason="the allowance is PyTorch's error; not installed")
        from torch_network import TorchNetwork, as_float64

        arrays = {**net.parameters(), **net.buffers()}
        theirs = TorchNetwork(net._core.layers, arrays, list(net.parameters()), "bfloat16")
        theirs.training = False
        assert error <= distance(as_float64(theirs(torch.tensor(x, dtype=torch.bfloat16))), exact)
    losses = {p: [] for p in ("float32", "bfloat16")}
    for precision, values in losses.items():
        trainer = rc.Trainer(net.astype(precision), optimizer=rc.SGD(lr=0.05, momentum=0.9))
        values += [trainer.step(x, y) for _ in range(40)]
    assert losses["bfloat16"][-1] < 0.5 * losses["bfloat16"][0]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.1, atol=0.02)


def test_what_a_network_says_of_itself(tmp_path):
    net = rc.models.resnet(6, 3, 16, 6, norm="batch", seed=1, dtype="bfloat16")
    assert (net.precision, net.dtype) == ("bfloat16", np.float32)
    assert "bfloat16" in repr(net)
    x = np.random.default_rng(0).standard_normal((9, 6)).astype("float32")
    y = np.arange(9) % 3
    rc.Trainer(net).fit(x, y, epochs=2)
    expected = net(x)
    assert expected.dtype == np.float32
    net.save(tmp_path / "net.safetensors")
    for same in (rc.load(tmp_path / "net.safetensors"), copy.copy(net), pickle.loads(pickle.dumps(net))):
        assert same.precision == "bfloat16"
        assert np.array_equal(same(x), expected)
    there_and_back = net.astype("float32").astype("bfloat16")
    assert np.array_equal(there_and_back(x), expected)
    assert net.diagnose(x, y).gradient_norm.shape == (6,)
    with pytest.raises(rc.DTypeError, match="bfloat16"):
        net.astype("int8")
    with pytest.raises(rc.BuildFeatureError, match="float16"):
        net.astype("float16")


def test_resumed_is_uninterrupted(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 6)).astype("float32"), rng.integers(0, 3, 70)

    def trainer():
        net = rc.models.resnet(6, 3, 16, 6, norm="batch", dropout=0.1, seed=1, dtype="bfloat16")
        return rc.Trainer(net, optimizer=rc.AdamW(lr=0.01), batch_size=16)

    whole = trainer()
    whole.fit(x, y, epochs=4)
    half = trainer()
    half.fit(x, y, epochs=2)
    half.save(tmp_path / "half.safetensors")
    resumed = rc.Trainer.resume(tmp_path / "half.safetensors")
    resumed.fit(x, y, epochs=4)
    for name, value in whole.net.parameters().items():
        assert np.array_equal(value, resumed.net.parameters()[name])


def test_the_summary_says_what_is_in_which_precision():
    net = rc.Network(2, [rc.Layer(2)], dtype="bfloat16")
    assert net.summary().splitlines()[-1] == "6 trained parameters, float32; activations in bfloat16"
    assert net.astype("float64").summary().splitlines()[-1] == "6 trained parameters, float64"
