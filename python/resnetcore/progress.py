"""How far training is: a bar that redraws itself on a terminal, a line an epoch elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from .callbacks import Callback

if TYPE_CHECKING:
    from .fit_plan import FitPlan
    from .trainer import Trainer

_WIDTH = 24
_INTERVAL = 0.1  # seconds between two drawings


def on_terminal(stream: Any = None) -> bool:
    """Whether standard error (or `stream`) is a terminal."""
    try:
        return bool((sys.stderr if stream is None else stream).isatty())
    except (AttributeError, ValueError):  # no standard error, or a closed one
        return False


class Progress(Callback):
    """Epoch, bar, rows per second, loss and time left.

    Args:
        stream: where it goes; None is standard error.
    """

    def __init__(self, stream: Any = None) -> None:
        self._given = stream

    def on_fit_begin(self, trainer: Trainer, plan: FitPlan) -> None:
        """Starts the clocks, and counts the steps that are left."""
        self._stream = sys.stderr if self._given is None else self._given
        self._bar = on_terminal(self._stream)
        self._plan = plan
        self._begun = self._epoch_begun = time.perf_counter()
        self._drawn, self._width, self._steps, self._rows = 0.0, 0, 0, 0
        self._seen = trainer.position.rows
        self._left = None
        if plan.steps_per_epoch is not None:
            self._left = (plan.epochs - trainer.epoch) * plan.steps_per_epoch - trainer.position.batch

    def on_step_end(self, trainer: Trainer, loss: float) -> None:
        """Redraws the bar, some times a second at most."""
        position = trainer.position
        self._steps += 1
        self._rows += position.rows - self._seen
        self._seen = position.rows
        now = time.perf_counter()
        if not self._bar or now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        rate = self._rows / (now - self._epoch_begun)
        parts = [
            self._epoch_text(position.epoch),
            self._bar_text(position.batch),
            _rate_text(rate),
            f"loss {position.mean_loss:.4f}",
            self._left_text(now),
        ]
        self._draw("  ".join(part for part in parts if part))

    def needs_step(self, step: int) -> bool:
        """No: what it shows may be a step old."""
        return False

    def on_epoch_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """The epoch's line, in the bar's place."""
        now = time.perf_counter()
        rate = self._rows / max(now - self._epoch_begun, 1e-9)
        shown = [f"{name} {value:.4g}" if name == "lr" else f"{name} {value:.4f}" for name, value in metrics.items()]
        line = "  ".join([self._epoch_text(trainer.epoch - 1), *shown, _rate_text(rate), self._left_text(now)]).rstrip()
        self._clear()
        self._write(line + "\n")
        self._epoch_begun, self._rows, self._seen = now, 0, 0

    def close(self) -> None:
        """Takes away a bar that an error or Ctrl-C has left."""
        self._clear()

    def _epoch_text(self, epoch: int) -> str:
        total = str(self._plan.epochs)
        return f"epoch {epoch + 1:>{len(total)}}/{total}"

    def _bar_text(self, done: int) -> str:
        total = self._plan.steps_per_epoch
        if not total:
            return f"{done} steps"
        filled = min(_WIDTH, _WIDTH * done // total)
        return f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {100 * done // total:>3}%"

    def _left_text(self, now: float) -> str:
        if self._left is None or not self._steps or self._steps >= self._left:
            return ""
        seconds = round((self._left - self._steps) * (now - self._begun) / self._steps)
        hours, minutes = divmod(seconds // 60, 60)
        return f"{hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"{minutes}:{seconds % 60:02} left"

    def _draw(self, line: str) -> None:
        self._write("\r" + line.ljust(self._width))
        self._width = len(line)

    def _clear(self) -> None:
        if getattr(self, "_width", 0):
            self._write("\r" + " " * self._width + "\r")
            self._width = 0

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (AttributeError, ValueError, OSError):  # a terminal that went away must not end the training
            self._bar = False


def _rate_text(rate: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if rate >= size:
            return f"{rate / size:.1f}{unit} rows/s"
    return f"{rate:.0f} rows/s"
