"""Random networks for comparisons: one seed, one network, batch, loss and target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import resnetcore as rc
from reference import ACTIVATIONS

LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber")
KINKED = ("relu", "leaky_relu")


@dataclass
class Case:
    """A float32 network and numbers that float32 holds exactly, so that every precision starts from the same point."""

    net: rc.Network
    x: np.ndarray
    y: np.ndarray
    loss: rc.Loss
    sample_weight: np.ndarray | None

    def in_precision(
        self, dtype: str, matmul: str = "highest", device: str = "cpu"
    ) -> tuple[rc.Network, np.ndarray, np.ndarray]:
        """The network, x and y."""
        net = self.net.astype(dtype, matmul).to(device)
        floats = self.y.dtype.kind == "f"
        return net, self.x.astype(net.dtype), self.y.astype(net.dtype) if floats else self.y

    @property
    def layers(self) -> list[dict[str, Any]]:
        return self.net._core.layers

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return {name: a.astype(np.float64) for name, a in {**self.net.parameters(), **self.net.buffers()}.items()}

    @property
    def loss_settings(self) -> dict[str, Any]:
        """For `reference.loss_and_gradient`."""
        return {
            "name": self.loss.name,
            "class_weight": self.loss.class_weight,
            "label_smoothing": self.loss.label_smoothing,
            "sample_weight": self.sample_weight,
            "delta": self.loss.delta,
        }


def random_case(seed: int, attempt: int = 0, *, smooth: bool = False) -> Case:
    """Everything that a network, a batch and a loss can have. `smooth`: only what has no kink."""
    rng = np.random.default_rng([seed, attempt, smooth])
    inputs, depth, base = (int(n) for n in (rng.integers(1, 71), rng.integers(1, 13), rng.integers(1, 71)))
    widths, layers = [inputs], []
    for _ in range(depth):
        layers.append(_layer(rng, widths, base, smooth))
        widths.append(layers[-1].width)
    net = rc.Network(inputs, layers, seed=seed)
    net.set_parameters({name: _vector(rng, name, a.shape) for name, a in _vectors(net)})
    normed = any(layer.norm for layer in layers)
    rows = 1 if rng.random() < 0.1 and not normed else int(rng.integers(2, 131))
    x = rng.standard_normal((rows, inputs)).astype("float32")
    loss, y = _loss_and_targets(rng, rows, widths[-1], smooth)
    weight = rng.uniform(0.5, 2, rows).astype("float32").astype("float64") if rng.random() < 0.25 else None
    return Case(net, x, y, loss, weight)


def _vectors(net: rc.Network) -> list[tuple[str, np.ndarray]]:
    return [(name, a) for name, a in {**net.parameters(), **net.buffers()}.items() if a.ndim == 1]


def _vector(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Biases and norms start as zeros and ones, which would hide a term that is left out."""
    scales = name.endswith(("norm.weight", "running_var"))
    return (rng.uniform(0.5, 1.5, shape) if scales else rng.normal(0, 0.25, shape)).astype("float32")


def _layer(rng: np.random.Generator, widths: list[int], base: int, smooth: bool) -> rc.Layer:
    names = [n for n in ACTIVATIONS if not smooth or n not in KINKED]
    width = base if rng.random() < 0.7 else int(rng.integers(1, 71))
    number = len(widths)
    skips: dict[int, Any] = {}
    for back in range(2, number + 1):
        if rng.random() > 2.0 / number:
            continue
        source = widths[number - back]
        kind = str(rng.choice(["learned", "fixed"] + (["identity"] if source == width else [])))
        matrix = (rng.standard_normal((source, width)) / np.sqrt(source)).astype("float32")
        skips[back] = matrix if kind == "fixed" else kind
    pre = bool(rng.random() < 0.2)
    return rc.Layer(
        width,
        activation=str(rng.choice(names)),
        norm="batch" if rng.random() < 0.3 else None,
        bias=bool(rng.random() < 0.8),
        pre=pre,
        gate=bool(not pre and widths[-1] == width and rng.random() < 0.2),
        dropout=float(rng.choice([0.0, 0.0, 0.25])),
        branch_dropout=float(rng.choice([0.0, 0.0, 0.25])),
        skips=skips,
    )


def _loss_and_targets(rng: np.random.Generator, rows: int, outputs: int, smooth: bool) -> tuple[rc.Loss, np.ndarray]:
    name = str(rng.choice([n for n in LOSSES if not smooth or n not in ("mae", "huber")]))
    if outputs == 1 and name == "cross_entropy":  # has no gradient
        name = "mse"
    weighted = rng.random() < 0.3
    if name == "cross_entropy":
        weight = rng.uniform(0.5, 2, outputs).astype("float32").tolist() if weighted else None
        smoothing = float(rng.choice([0.0, 0.125]))
        return rc.Loss(name, label_smoothing=smoothing, class_weight=weight), rng.integers(0, outputs, rows)
    if name == "binary_cross_entropy":
        weight = [0.75, 1.5] if weighted else None
        return rc.Loss(name, class_weight=weight), rng.integers(0, 2, (rows, outputs)).astype("float32")
    return rc.Loss(name, delta=0.75), rng.standard_normal((rows, outputs)).astype("float32")
