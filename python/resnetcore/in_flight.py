"""Steps that a device was asked for and whose losses have not been looked at: it goes on to the next one meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from . import _core
from .data import ArrayData, IterableData
from .position import Position


class StepsInFlight:
    """Of one trainer, in the order in which they were begun. Who calls a method but `losses` holds the trainer's lock."""

    def __init__(self, core: _core.Trainer) -> None:
        self._core = core
        self._begun: deque[tuple[ArrayData | IterableData, int]] = deque()
        self._losses: deque[float] = deque()
        self.failure: Exception | None = None

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, data: Any, batch: Any, rows: int, lr: float) -> None:
        """Asks for one more, on `rows` rows; not after a failure."""
        data.begin(self._core, batch, lr)
        self._begun.append((data, rows))

    def settle(self, position: Position, most: int) -> Position:
        """Waits until there are at most `most`; the position after those that came to an end.

        The first that fails is kept as `failure`, for the `fit` that it belongs to, and those after it are as if they
        had never been begun.
        """
        while len(self._begun) > most:
            data, rows = self._begun.popleft()
            try:
                loss = self._core.finish_step()
            except Exception as error:
                self.failure = error
                self._begun.clear()
                break
            self._losses.append(loss)
            position = position.after_step(data, rows, self._core.last_weight, loss)
        return position

    def losses(self) -> Iterator[float]:
        """Those of before the updates that came to an end, each once."""
        while self._losses:
            yield self._losses.popleft()

    def forget(self) -> None:
        """Nothing is in flight any more; what has not been told of, is not."""
        self._losses.clear()
        self.failure = None
