"""What happens beside training. A callback sees a trainer only between steps, whole, and may save or stop it."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ._atomic import replace_file, require_folder
from ._errors import DTypeError
from .best import Best
from .checks import as_integer, as_number

if TYPE_CHECKING:
    from .fit_plan import FitPlan
    from .trainer import Trainer

__all__ = ["CSVLogger", "Callback", "Checkpoint", "EarlyStopping", "JSONLLogger"]


class Callback:
    """Base of all callbacks: override what is needed. An exception ends the `fit`; the trainer can go on from there.

    Example:
        >>> class Norms(Callback):
        ...     def on_step_end(self, trainer, loss):
        ...         print(trainer.steps, trainer.last_gradient_norm)
    """

    def on_fit_begin(self, trainer: Trainer, plan: FitPlan) -> None:
        """Before the first step."""

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """After each update; `loss` is that of before it."""

    def needs_step(self, step: int) -> bool:
        """Whether `on_step_end` is to find the trainer as update number `step` has left it.

        A GPU that nobody needs to wait for works on one step while the loss of the one before it comes back, and
        `on_step_end` comes as much later. By default, who overrides `on_step_end` needs every step.
        """
        return type(self).on_step_end is not Callback.on_step_end

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After each epoch; `metrics` are what it added to `trainer.history`."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, or the one that was stopped; not after an error."""

    def close(self) -> None:
        """At the very end, also after an error or Ctrl-C."""


class EarlyStopping(Callback):
    """Stops when a metric has not improved for `patience` epochs.

    What it has seen, and the best epoch's weights, are kept with the trainer and in its checkpoints: a resumed run stops
    where the uninterrupted one would, and restores the same. A `fit` that it has stopped stays stopped, whatever its
    `epochs`; more patience goes on.

    Args:
        patience: epochs without improvement that are borne.
        monitor: a metric of the history; None is "val_loss" with validation data and "loss" without.
        min_delta: what counts as an improvement, at least.
        restore_best: put back the parameters and buffers of the best epoch at the end.
        mode: "min", "max", or None: "max" for accuracies.

    Raises:
        ValueError: at the start of a `fit` that does not measure `monitor`.
    """

    def __init__(
        self,
        patience: int = 5,
        monitor: str | None = None,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: str | None = None,
    ) -> None:
        if as_integer("EarlyStopping: patience", patience) < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience}")
        min_delta = as_number("EarlyStopping: min_delta", min_delta)
        if min_delta < 0:
            raise ValueError(f"EarlyStopping: min_delta must not be negative, got {min_delta}")
        if monitor is not None and not isinstance(monitor, str):
            raise DTypeError(f"EarlyStopping: monitor must be a metric's name or None, got {monitor!r}")
        if mode not in (None, "min", "max"):
            raise ValueError(f"EarlyStopping: mode must be 'min', 'max' or None, got {mode!r}")
        self.patience, self.monitor, self.min_delta, self.restore_best, self.mode = (
            patience,
            monitor,
            min_delta,
            restore_best,
            mode,
        )

    def on_fit_begin(self, trainer: Trainer, plan: FitPlan) -> None:
        """Chooses the metric, and looks at the epochs that it has not seen yet."""
        default = "val_loss" if "val_loss" in plan.metrics else "loss"
        metric = self.monitor or default
        if metric not in plan.metrics:
            raise ValueError(
                f"EarlyStopping: this fit does not measure {metric!r} but {', '.join(plan.metrics)}"
                + ("; give it validation data" if metric.startswith("val_") else "")
            )
        mode = self.mode or ("max" if metric.endswith("accuracy") else "min")
        self._first = Best(metric, mode, self.min_delta, bool(self.restore_best))
        # Of fits without this callback, and of a checkpoint that was written before its turn came.
        for epoch, value in enumerate(trainer.history.get(metric, []), 1):
            if not math.isnan(value):  # not measured
                self._look(trainer, epoch, value)
        self._stop_or_not(trainer)

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Keeps the weights of a new best epoch; stops where none has come for too long."""
        self._look(trainer, trainer.epoch, metrics[self._first.metric])
        self._stop_or_not(trainer)

    def on_fit_end(self, trainer: Trainer) -> None:
        """Puts the best epoch's weights back; not inside an epoch, where the end is an interruption."""
        arrays = self._best(trainer).arrays
        if arrays and not trainer.position.batch:
            trainer.net.set_parameters(arrays)

    def _best(self, trainer: Trainer) -> Best:
        return trainer._best.get(self._first.key, self._first)

    def _look(self, trainer: Trainer, epoch: int, value: float) -> None:
        best = self._best(trainer)
        if epoch <= best.seen:
            return
        arrays: dict[str, np.ndarray] = {}
        there = epoch == trainer.epoch and not trainer.position.batch  # or a later step has changed its weights
        if best.restore and there and best.is_beaten_by(value):
            arrays = trainer.net._arrays()
        trainer._best[best.key] = best.after(epoch, value, arrays)

    def _stop_or_not(self, trainer: Trainer) -> None:
        best = self._best(trainer)
        self.best_epoch = best.epoch
        if best.waited >= self.patience:
            trainer.stop()


class _Writer(Callback):
    """Writes files. Hours may lie between the first step and the first file, so a folder that is missing is found before."""

    def __init__(self, path: Any) -> None:
        self.path = os.fsdecode(path)

    def on_fit_begin(self, trainer: Trainer, plan: FitPlan) -> None:
        """OSError where there is no folder to write to."""
        if "{" not in os.path.dirname(self.path):
            require_folder(self.path)


class Checkpoint(_Writer):
    """Saves the trainer as it goes, for `Trainer.resume(path)`. A file is replaced whole or not at all.

    Args:
        path: of the file; "{epoch}" and "{step}" in it become numbers, and one file is kept for each.
        every: steps between two files; None saves at the end of each epoch.

    Raises:
        OSError: at the start of a `fit`, where the path's folder is not there.
    """

    def __init__(self, path: Any, every: int | None = None) -> None:
        if every is not None and as_integer("Checkpoint: every", every) < 1:
            raise ValueError(f"Checkpoint: every must be at least 1 step, got {every}")
        super().__init__(path)
        self.every = every

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Saves where steps are what counts, and enough have passed."""
        if self.every is not None and trainer.steps % self.every == 0:
            self._save(trainer)

    def needs_step(self, step: int) -> bool:
        """Where it is saved after this one."""
        return self.every is not None and step % self.every == 0

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Saves where epochs are what counts."""
        if self.every is None:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        path = self.path.replace("{epoch}", str(trainer.epoch)).replace("{step}", str(trainer.steps))
        trainer.save(path)


class _Logger(_Writer):
    """The whole history, written after each epoch and replaced at once: a resumed run writes the same file."""

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        replace_file(self.path, [self._text(trainer.history.rows()).encode()])

    def _text(self, rows: list[dict[str, float]]) -> str:
        raise NotImplementedError


class CSVLogger(_Logger):
    """A table of the history as a CSV file: a header, then one row an epoch; empty where a metric was not measured.

    Args:
        path: of the file, in a folder that is there; replaced after each epoch.
    """

    def _text(self, rows: list[dict[str, float]]) -> str:
        lines = [",".join(rows[0])]
        lines += [",".join("" if math.isnan(value) else repr(value) for value in row.values()) for row in rows]
        return "\n".join(lines) + "\n"


class JSONLLogger(_Logger):
    """The history as JSON lines: one object an epoch; null where a metric was not measured or not finite.

    Args:
        path: of the file, in a folder that is there; replaced after each epoch.
    """

    def _text(self, rows: list[dict[str, float]]) -> str:
        clean = [{name: value if math.isfinite(value) else None for name, value in row.items()} for row in rows]
        return "".join(json.dumps(row) + "\n" for row in clean)
