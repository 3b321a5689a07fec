"""What the demo says while it runs and at its end: progress on one stream, a table and sentences with the numbers found."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, TextIO

from ..callbacks import Callback
from ..progress import on_terminal
from ..tables import table
from . import gradients

if TYPE_CHECKING:
    from ..trainer import Trainer
    from .experiments import Experiment, Settings


class Progress(Callback):
    """A line for each network; on a terminal it counts the epochs while it is trained."""

    def __init__(self, stream: TextIO, settings: Settings) -> None:
        self._stream, self._epochs = stream, settings.epochs
        self._redraws = on_terminal(stream)
        self._total = len(settings.experiments())
        self._number, self._line, self._began = 0, "", time.perf_counter()

    def __enter__(self) -> Progress:
        self._stream.write(f"Training {self._total} networks on 8x8 pictures of handwritten digits\n")
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None and self._redraws:
            self._stream.write("\n")

    def begin(self, experiment: Experiment) -> None:
        """A network is about to be trained."""
        self._number += 1
        self._line = f"[{self._number:>2}/{self._total}] {experiment.kind}, {experiment.depth} layers"
        if self._redraws:
            self._stream.write(self._line)
            self._stream.flush()

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """One more epoch of it, where there is a terminal to show it on."""
        if self._redraws:
            self._stream.write(f"\r{self._line}: epoch {trainer.epoch}/{self._epochs}, loss {metrics['loss']:.3f}   ")
            self._stream.flush()

    def end(self, row: dict[str, Any]) -> None:
        """It has been."""
        text = f"{self._line}: training error {row['training_error']:.1%}, {row['seconds']:.1f} s"
        self._stream.write(("\r" + text.ljust(78) if self._redraws else text) + "\n")
        self._stream.flush()


def summary(result: dict[str, Any]) -> str:
    """The table, then what it means."""
    rows = [
        [
            row["kind"] + (" *" if row["clip_norm"] else ""),
            row["depth"],
            "diverged" if row["diverged"] else f"{row['training_error']:.1%}",
            f"{row['test_accuracy']:.1%}",
            f"{row['seconds']:.1f}",
        ]
        for row in result["networks"]
    ]
    lines = [
        table(["network", "depth", "training error", "test accuracy", "seconds"], rows),
        "",
        "* gradients clipped to a norm of 1: the others are trained without",
        "",
        degradation(result),
        vanishing(result),
        leaning(result),
    ]
    return "\n".join(lines)


def errors_by_depth(result: dict[str, Any], kind: str) -> tuple[list[int], list[float]]:
    """Depths and final training errors of one kind of network that was trained at several depths."""
    rows = [row for row in result["networks"] if row["kind"] == kind]
    return [row["depth"] for row in rows], [row["training_error"] for row in rows]


def degrades(result: dict[str, Any]) -> bool:
    """Whether depth hurt the plain net's training by more than 5 points, and the residual one's by less than 2."""
    (_, plain), (_, residual) = errors_by_depth(result, "plain"), errors_by_depth(result, "residual")
    return plain[-1] > plain[0] + 0.05 and residual[-1] < residual[0] + 0.02


def degradation(result: dict[str, Any]) -> str:
    """Training error at the moderate and the large depth, in a sentence."""
    depths, plain = errors_by_depth(result, "plain")
    _, residual = errors_by_depth(result, "residual")
    return (
        f"Degradation: from {depths[0]} to {depths[-1]} layers the training error goes from {plain[0]:.1%} to "
        f"{plain[-1]:.1%} without skips,\n  and from {residual[0]:.1%} to {residual[-1]:.1%} with them."
    )


def span(norms: list[float]) -> float:
    """How much larger the last hidden layer's gradient is than the first layer's; inf where the first has vanished."""
    return norms[-2] / norms[0] if norms[0] else float("inf")


def vanishing(result: dict[str, Any]) -> str:
    """How gradients shrink on their way to the input, in a sentence."""
    norms = result["gradients"]
    plain, inside, residual = (norms[name] for name in (gradients.PLAIN, gradients.INSIDE, gradients.RESIDUAL))
    return (
        f"Vanishing gradients (sigmoid, before training): the first layer's is {plain[0]:.0e} without skips, "
        f"{inside[0]:.0e} with\n  skips inside the sigmoid and {residual[0]:.0e} with skips around it; the last hidden "
        f"layer's is {plain[-2]:.0e}.\n  Plain ReLU nets with He scaling keep theirs ({norms[gradients.HE][0]:.0e}), with "
        f"batch norm they explode ({norms[gradients.NORMALISED][0]:.0e})."
    )


def median_ratios(skips: dict[str, Any]) -> list[float]:
    """The middle layer's ‖skip‖ / ‖branch‖ at each moment; inf where a branch is zero."""
    return [statistics.median(float("inf") if ratio is None else ratio for ratio in row) for row in skips["ratios"]]


def leaning(result: dict[str, Any]) -> str:
    """How the use of skips changes over training, in a sentence."""
    skips = result["skips"]
    if not skips["steps"]:
        return "Skips: the residual network made no step."
    medians = median_ratios(skips)
    return (
        f"Skips: after step {skips['steps'][0]} a layer's skip is {medians[0]:.0f} times as strong as its own branch "
        f"(median), after step {skips['steps'][-1]}\n  {medians[-1]:.0f} times: branches start silent (zero γ) and are "
        "restored by training."
    )
