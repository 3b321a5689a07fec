"""One case of tests/strategies.py run by three: the truth (tests/reference.py), the library, and PyTorch.

The truth is taken in the machine's longest float, so that it is one even where float64 is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import resnetcore as rc
from reference import Optimizer, Pass, distance, halves, loss_and_gradient, rounded
from strategies import KINKED, Case, random_case

# Bounds of a whole network, as a relative norm (docs/math.md, "Accuracy").
BOUND = {"float32": 5e-6, "float64": 1e-12}

# Powers of two, which every precision holds. Adam's eps is large: with the default one, a gradient that is nothing but
# rounding becomes a step of full size, which no two programs take alike (test_updates.py has the default).
EPS = 2.0**-10
OPTIMIZERS = {
    "sgd": (rc.SGD(lr=0.0625, momentum=0.0), {"name": "sgd"}),
    "momentum": (rc.SGD(lr=0.0625, momentum=0.875), {"name": "sgd", "momentum": 0.875}),
    "nesterov": (
        rc.SGD(lr=0.0625, momentum=0.875, nesterov=True, weight_decay=0.0078125),
        {"name": "sgd", "momentum": 0.875, "nesterov": True, "weight_decay": 0.0078125},
    ),
    "adam": (
        rc.Adam(lr=0.0078125, weight_decay=0.0078125, eps=EPS),
        {"name": "adam", "weight_decay": 0.0078125, "eps": EPS},
    ),
    "adamw": (
        rc.AdamW(lr=0.0078125, weight_decay=0.125, eps=EPS),
        {"name": "adamw", "weight_decay": 0.125, "eps": EPS},
    ),
}


class TooClose(Exception):
    """A sum lies so near a kink that rounding decides which side it is on, and with it a whole mask."""


def require_distance_from_kinks(case: Case, forward: Pass, output_error: np.ndarray) -> None:
    """float32 may not be compared there: neither side is right. Exact zeros are zeros in every precision."""
    for layer, kept in zip(case.layers, forward.kept[1:], strict=True):
        if layer["activation"] in KINKED:
            _require_distance(kept["u" if layer["pre"] else "z"])
    if case.loss.name == "mae":
        _require_distance(output_error)


def _require_distance(z: np.ndarray) -> None:
    size = np.abs(z[z != 0])
    if size.size and size.min() < 1e-5 * np.sqrt((size * size).mean()):
        raise TooClose


def first_clear_case(truth: Callable[[Case], dict[str, np.ndarray]], seed: int) -> tuple[Case, dict[str, np.ndarray]]:
    """The first case of a seed that stays clear of kinks, and its truth."""
    for attempt in range(100):
        case = random_case(seed, attempt)
        try:
            return case, truth(case)
        except TooClose:
            continue
    raise AssertionError(f"seed {seed}: every case is near a kink")


def true_gradients(case: Case) -> dict[str, np.ndarray]:
    arrays = {name: a.astype(np.longdouble) for name, a in case.arrays.items()}
    forward = Pass(case.layers, arrays, case.x, True, seed=case.net.seed, dtype=np.longdouble)
    value, gradient = loss_and_gradient(z=forward.a[-1], y=case.y, **case.loss_settings)
    require_distance_from_kinks(case, forward, forward.a[-1] - case.y if case.loss.name == "mae" else np.ones(1))
    gradients, d_x = forward.backward(gradient)
    outputs = Pass(case.layers, arrays, case.x, False, dtype=np.longdouble).a[-1]
    return {"output": outputs, "loss": np.array([value]), "input": d_x, **gradients}


def our_gradients(case: Case, dtype: str, device: str = "cpu", matmul: str = "highest") -> dict[str, np.ndarray]:
    net, x, y = case.in_precision(dtype, matmul, device)
    value, gradients, d_x = net.gradients(x, y, case.loss, sample_weight=case.sample_weight)
    return {"output": net(x), "loss": np.array([value]), "input": d_x, **gradients}


def true_weights(case: Case, settings: dict, lr: float, seed: int, steps: int) -> dict[str, np.ndarray]:
    arrays = {name: a.astype(np.longdouble) for name, a in case.arrays.items()}
    rule = Optimizer(**settings)
    for step in range(steps):
        forward = Pass(case.layers, arrays, case.x, True, seed=seed, step=step, dtype=np.longdouble)
        _, gradient = loss_and_gradient(z=forward.a[-1], y=case.y, **case.loss_settings)
        require_distance_from_kinks(case, forward, forward.a[-1] - case.y if case.loss.name == "mae" else np.ones(1))
        gradients, _ = forward.backward(gradient)
        arrays = {**rule.step(arrays, gradients, lr), **forward.running}
    return arrays


def our_weights(
    case: Case, dtype: str, optimizer: rc.optimizers.Optimizer, seed: int, steps: int, device: str = "cpu"
) -> dict[str, np.ndarray]:
    net, x, y = case.in_precision(dtype, device=device)
    trainer = rc.Trainer(net, loss=case.loss, optimizer=optimizer, seed=seed)
    for _ in range(steps):
        trainer.step(x, y, case.sample_weight)
    return {**net.parameters(), **net.buffers()}


@dataclass(frozen=True)
class Stored:
    """What activations are kept as. One in hundreds is rounded the other way, where float32 and float64 sums lie on two
    sides of a tie: `flips` is what that does to an array."""

    dtype: str
    matmul: str
    rounded: Callable[[np.ndarray], np.ndarray]
    flips: float

    def network(self, net):
        return net.astype(self.dtype, self.matmul)


NARROW = Stored("bfloat16", "highest", rounded, 2e-3)
HIGH = Stored("float32", "high", halves, 1e-5)


def emulated(case: Case, store: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """What the network gives where every sum is exact and what it stores is rounded."""
    forward = Pass(case.layers, case.arrays, case.x, True, seed=case.net.seed, store=store)
    value, gradient = loss_and_gradient(z=forward.a[-1], y=case.y, **case.loss_settings)
    gradients, d_x = forward.backward(gradient)
    outputs = Pass(case.layers, case.arrays, case.x, False, store=store).a[-1]
    return {"output": outputs, "loss": np.array([value]), "input": d_x, **gradients}


def rounding_errors(seed: int, stored: Stored, device: str = "cpu"):
    """Of each array: ours from the emulation's, ours from the truth, and the emulation's, which is rounding at all."""
    case = random_case(seed, smooth=True)
    truth, exact, got = (
        true_gradients(case),
        emulated(case, stored.rounded),
        our_gradients(case, stored.dtype, device, stored.matmul),
    )
    assert got.keys() == exact.keys()
    for name in exact.keys() - {"loss"}:
        true = np.asarray(truth[name], float)
        yield distance(got[name], exact[name]), distance(got[name], true), distance(exact[name], true)


class Renumbering:
    """The same problem with its rows and its units in another order: equal results, other roundings.

    Layers of one width share an order, so identity skips stay identity skips.
    """

    def __init__(self, case: Case, seed: int) -> None:
        rng = np.random.default_rng(seed)
        widths = {case.net.inputs, *(layer["width"] for layer in case.layers)}
        self.units = {width: rng.permutation(width) for width in sorted(widths)}
        self.rows = rng.permutation(len(case.x))

    def batch(self, a: np.ndarray) -> np.ndarray:
        return a[self.rows][:, self.units[a.shape[1]]]

    def parameter(self, a: np.ndarray) -> np.ndarray:
        return a[np.ix_(*(self.units[size] for size in a.shape))]

    def result(self, name: str, a: np.ndarray) -> np.ndarray:
        if name == "loss":
            return a
        return self.batch(a) if name in ("output", "input") else self.parameter(a)

    def problem(self, case: Case) -> tuple[np.ndarray, np.ndarray, dict]:
        """x, y and the loss's settings."""
        settings = case.loss_settings
        y = case.y
        if y.ndim == 2:
            y = self.batch(y)
        else:
            outputs = self.units[case.net.outputs]
            y = np.argsort(outputs)[y[self.rows]]
            if settings["class_weight"] is not None:
                settings["class_weight"] = np.asarray(settings["class_weight"])[outputs].tolist()
        if settings["sample_weight"] is not None:
            settings["sample_weight"] = settings["sample_weight"][self.rows]
        return self.batch(case.x), y, settings


DRAWS = 8


def worst_errors(run: Callable[[Renumbering], dict[str, np.ndarray]], case: Case, exact: dict[str, np.ndarray]):
    """The size of PyTorch's errors by name. One error is a draw of chance; eight orders show what to expect of them."""
    worst = dict.fromkeys(exact, 0.0)
    for seed in range(DRAWS):
        order = Renumbering(case, seed)
        for name, a in run(order).items():
            worst[name] = max(worst[name], _distance(a, order.result(name, exact[name])))
    return worst


def torch_gradients(case: Case, dtype: str, order: Renumbering) -> dict[str, np.ndarray]:
    torch, network = _torch(case, dtype, case.net.seed, order)
    from torch_network import as_float64, loss_of

    rows, y, settings = order.problem(case)
    network.training = False
    x = torch.tensor(rows, dtype=network.dtype, requires_grad=True)
    outputs = network(x)
    network.training = True
    value = loss_of(network(x), y, **settings)
    value.backward()
    gradients = {name: as_float64(t.grad) for name, t in network.parameters.items()}
    return {"output": as_float64(outputs), "loss": np.array([value.item()]), "input": as_float64(x.grad), **gradients}


def torch_weights(
    case: Case, dtype: str, settings: dict, lr: float, seed: int, steps: int, order: Renumbering
) -> dict[str, np.ndarray]:
    torch, network = _torch(case, dtype, seed, order)
    from torch_network import loss_of, optimizer_of

    optimizer = optimizer_of(network.parameters.values(), lr=lr, **settings)
    rows, y, loss_settings = order.problem(case)
    x = torch.tensor(rows, dtype=network.dtype)
    for step in range(steps):
        network.step = step
        optimizer.zero_grad()
        loss_of(network(x), y, **loss_settings).backward()
        optimizer.step()
    return network.arrays()


def _torch(case: Case, dtype: str, seed: int, order: Renumbering):
    torch = pytest.importorskip("torch", reason="ill-conditioned here: the allowance is PyTorch's error; not installed")
    from torch_network import TorchNetwork

    arrays = {name: order.parameter(a) for name, a in case.arrays.items()}
    return torch, TorchNetwork(case.layers, arrays, list(case.net.parameters()), dtype, seed, order.batch)


def assert_within(
    got: dict[str, np.ndarray],
    exact: dict[str, np.ndarray],
    bound: float,
    allowance: Callable[[], dict[str, float]],
) -> None:
    """Each array's error within `bound` of its norm or, where it is ill-conditioned, four times PyTorch's error."""
    assert got.keys() == exact.keys()
    theirs: dict[str, float] = {}
    for name in exact:
        size = float(np.linalg.norm(exact[name]))
        error = _distance(got[name], exact[name])
        if error > bound * size:
            theirs = theirs or allowance()
            assert error <= 4 * theirs[name], f"{name}: error {error:.2e} of {size:.2e}, PyTorch's {theirs[name]:.2e}"


def _distance(a, b) -> float:
    return float(np.linalg.norm(np.asarray(a, np.longdouble) - b))
