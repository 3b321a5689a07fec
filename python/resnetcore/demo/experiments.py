"""The networks that are compared. They differ in depth and skips alone: width, norm, optimizer, data and seed are the same.

The recipe is that of the mission's degradation experiment: batch norm, SGD with a learning rate of 0.05 and momentum 0.9.
Learned skips, dense and gated nets of this depth need their gradients clipped besides: their skips have weights of their
own that no norm holds down.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models
from ..callbacks import Callback
from ..network import Network
from ..optimizers import SGD
from ..trainer import Trainer

if TYPE_CHECKING:
    from ..digits import Split
    from .report import Progress

CLASSES = 10
DIAGNOSED_ROWS = 256
GATE_BIAS = -3.0  # the deeper, the more negative (Srivastava et al. 2015, section 2.2)


@dataclass(frozen=True)
class Experiment:
    """One network to train."""

    kind: str
    depth: int
    build: Callable[..., Network]
    clip_norm: float | None = None


@dataclass(frozen=True)
class Settings:
    """What all networks have in common. The first depth is the moderate one, the last the large one."""

    depths: tuple[int, ...] = (5, 13, 25, 37, 49)
    epochs: int = 30
    width: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    batch_size: int = 64
    seed: int = 0

    @classmethod
    def quick(cls) -> Settings:
        """The moderate and the large depth only, and a third of the epochs."""
        return cls(depths=(5, 49), epochs=10)

    def experiments(self) -> list[Experiment]:
        """In the order of training."""
        large = self.depths[-1]
        compared = [
            Experiment(kind, depth, build)
            for depth in self.depths
            for kind, build in (("plain", models.plain), ("residual", models.resnet))
        ]
        gated = partial(models.gated_highway, gate_bias=GATE_BIAS)
        others = (("learned skips", learned_skips), ("dense", models.densenet), ("gated", gated))
        return compared + [Experiment(kind, large, build, clip_norm=1.0) for kind, build in others]

    def to_dict(self) -> dict[str, Any]:
        """For demo.json."""
        return {**vars(self), "depths": list(self.depths), "norm": "batch", "optimizer": "SGD", "data": "digits"}


def learned_skips(inputs: int, outputs: int, width: int, depth: int, **common: Any) -> Network:
    """`models.highway` whose blocks start as the identity, as the residual net's do: skips W = I, branches γ = 0."""
    net = models.highway(inputs, outputs, width, depth, **common)
    start: dict[str, np.ndarray] = {}
    for number, layer in enumerate(net.layers, 1):
        for back in layer.skips:
            start[f"{number}.skip.{back}.weight"] = np.eye(width)
            start[f"{number}.norm.weight"] = np.zeros(width)
    net.set_parameters(start)
    return net


def train(experiment: Experiment, data: Split, settings: Settings, progress: Progress) -> dict[str, Any]:
    """{"network": the row of the table, "skips": {"layers", "steps", "ratios"} or None}."""
    net = experiment.build(data.x.shape[1], CLASSES, settings.width, experiment.depth, norm="batch", seed=settings.seed)
    trainer = Trainer(
        net,
        optimizer=SGD(lr=settings.lr, momentum=settings.momentum),
        batch_size=settings.batch_size,
        seed=settings.seed,
        clip_norm=experiment.clip_norm,
    )
    errors = TrainingError(data)
    deep_residual = experiment.kind == "residual" and experiment.depth == settings.depths[-1]
    usage = [SkipUsage(data)] if deep_residual else []
    progress.begin(experiment)
    began, diverged = time.perf_counter(), False
    try:
        trainer.fit(data.x, data.y, settings.epochs, callbacks=[errors, *usage, progress], progress=False)
    except FloatingPointError:
        diverged = True
    row = {
        "kind": experiment.kind,
        "depth": experiment.depth,
        "clip_norm": experiment.clip_norm,
        "diverged": diverged,
        "training_error": errors.now(net),
        "test_accuracy": 1 - _error(net, data.test_x, data.test_y),
        "seconds": round(time.perf_counter() - began, 2),
        "training_error_by_epoch": errors.by_epoch,
    }
    progress.end(row)
    return {"network": row, "skips": usage[0].to_dict() if usage else None}


class TrainingError(Callback):
    """The fraction of training rows that are classified wrongly, after each epoch, in inference mode."""

    def __init__(self, data: Split) -> None:
        self.by_epoch: list[float] = []
        self._data = data

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Measures the network that the epoch has left."""
        self.by_epoch.append(self.now(trainer.net))

    def now(self, net: Network) -> float:
        """The fraction for `net` as it is."""
        return _error(net, self._data.x, self._data.y)


class SkipUsage(Callback):
    """‖skip‖ / ‖branch‖ of every layer that has a skip, after 1, 2, 4, 8, … steps and at the end.

    At step 0 there is nothing to divide by: the builder's zero γ silences every branch.
    """

    def __init__(self, data: Split) -> None:
        self._rows = (data.x[:DIAGNOSED_ROWS], data.y[:DIAGNOSED_ROWS])
        self._steps: list[int] = []
        self._ratios: list[list[float]] = []
        self._layers: list[int] = []

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Measures after each power of two."""
        if trainer.steps & (trainer.steps - 1) == 0:
            self._measure(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Measures the end, where it is no power of two."""
        if trainer.steps not in self._steps:
            self._measure(trainer)

    def _measure(self, trainer: Trainer) -> None:
        ratios = trainer.net.diagnose(*self._rows).skip_ratio
        self._layers = [number for number, layer in enumerate(trainer.net.layers, 1) if layer.skips]
        self._steps.append(trainer.steps)
        self._ratios.append([float(ratios[number - 1]) for number in self._layers])

    def to_dict(self) -> dict[str, Any]:
        """What was measured as JSON has it; None where a branch was zero."""
        finite = [[ratio if math.isfinite(ratio) else None for ratio in row] for row in self._ratios]
        return {"layers": self._layers, "steps": self._steps, "ratios": finite}


def _error(net: Network, x: Any, y: Any) -> float:
    return float((net.predict(x).argmax(axis=1) != y).mean())
