"""Networks of every kind against tests/reference.py: 200 random topologies, in both precisions."""

import numpy as np
import pytest

import resnetcore as rc
from reference import Optimizer, Pass, loss_and_gradient
from strategies import random_case

SEEDS = range(200)
# What a whole network may differ by, as a relative norm; where it is ill-conditioned, four times the error that NumPy
# makes with the same formulas in the same precision on data changed by one rounding.
BOUND = {"float32": 5e-6, "float64": 1e-12}


def arrays_of(net):
    return {name: np.asarray(a, np.float64) for name, a in {**net.parameters(), **net.buffers()}.items()}


def layers_of(net):
    return net._core.layers


def evaluate(net, arrays, x, y, loss, dtype=np.float64):
    layers = layers_of(net)
    forward = Pass(layers, arrays, x, True, seed=net.seed, dtype=dtype)
    value, gradient = loss_and_gradient(loss, forward.a[-1], y)
    gradients, d_x = forward.backward(gradient)
    outputs = Pass(layers, arrays, x, False, dtype=dtype).a[-1]
    return {"output": outputs, "loss": np.array([value]), "input": d_x, **gradients}


def error_of_plain_arithmetic(net, arrays, x, y, loss, exact, dtype):
    # Errors are random: three runs whose data differ by one rounding show their size.
    precision, unit = (np.float32, 2.0**-24) if dtype == "float32" else (np.float64, 2.0**-53)
    runs = []
    for trial in range(3):
        rng = np.random.default_rng(trial)
        moved = {name: shaken(array, rng, unit) for name, array in arrays.items()}
        runs.append(evaluate(net, moved, shaken(x, rng, unit), y, loss, precision))
    return {name: max(np.linalg.norm(run[name] - exact[name]) for run in runs) for name in exact}


def shaken(a, rng, unit=2.0**-53):
    return a * (1 + unit * rng.choice([-1, 1], a.shape))


def assert_close(name, got, exact, bound, extra):
    size = np.linalg.norm(exact)
    error = np.linalg.norm(np.asarray(got, np.float64) - exact)
    assert error <= max(bound * size, 4 * extra, 1e-30), f"{name}: {error / max(size, 1e-300):.2e} of {size:.2e}"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("seed", SEEDS)
def test_outputs_and_gradients(seed, dtype):
    # In float32 a sum next to a kink may fall on its other side and change a whole mask, which is no error of a
    # kernel: kinks are compared in float64 and, exactly, on integers (test_exact_integers.py).
    net, x, y, loss = random_case(seed, dtype, smooth=dtype == "float32")
    arrays, wide = arrays_of(net), np.asarray(x, np.float64)
    exact = evaluate(net, arrays, wide, y, loss)
    extra = error_of_plain_arithmetic(net, arrays, wide, y, loss, exact, dtype)
    value, gradients, d_x = net.gradients(x, y, loss)
    got = {"output": net(x), "loss": np.array([value]), "input": d_x, **gradients}
    assert got.keys() == exact.keys()
    for name in exact:
        assert_close(name, got[name], exact[name], BOUND[dtype], extra[name])


OPTIMIZERS = {
    "sgd": (rc.SGD(lr=0.05, momentum=0.0), {"name": "sgd"}),
    "momentum": (rc.SGD(lr=0.05, momentum=0.9), {"name": "sgd", "momentum": 0.9}),
    "nesterov": (
        rc.SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
        {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ),
    "adam": (rc.Adam(lr=0.01, weight_decay=0.01), {"name": "adam", "weight_decay": 0.01}),
    "adamw": (rc.AdamW(lr=0.01, weight_decay=0.1), {"name": "adamw", "weight_decay": 0.1}),
}


def five_steps(net, arrays, x, y, loss, settings, lr, seed):
    rule = Optimizer(**settings)
    for step in range(5):
        forward = Pass(layers_of(net), arrays, x, True, seed=seed, step=step)
        gradients, _ = forward.backward(loss_and_gradient(loss, forward.a[-1], y)[1])
        arrays = {**rule.step(arrays, gradients, lr), **forward.running}
    return arrays


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(0, 200, 5))
def test_five_steps(seed, optimizer):
    net, x, y, loss = random_case(seed, "float64", smooth=True)
    ours, settings = OPTIMIZERS[optimizer]
    arrays = arrays_of(net)
    exact = five_steps(net, arrays, x, y, loss, settings, ours.lr, 7)
    rng = np.random.default_rng(0)
    moved = {k: shaken(v, rng) for k, v in arrays.items()}
    moved = five_steps(net, moved, x, y, loss, settings, ours.lr, 7)
    trainer = rc.Trainer(net, loss=loss, optimizer=ours, seed=7)
    for _ in range(5):
        trainer.step(x, y)
    got = {**net.parameters(), **net.buffers()}
    for name in exact:
        assert_close(name, got[name], exact[name], 1e-11, np.linalg.norm(moved[name] - exact[name]) * 16)
