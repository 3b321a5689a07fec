"""What training measured, one number an epoch for each metric. Holds no times, so that a resumed run's is the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from .tables import table


class History(Mapping[str, list[float]]):
    """`history["loss"]` is a list with one number an epoch; NaN where an epoch did not measure it.

    Metrics are "loss" (mean over the epoch's rows, each before its own update), "lr" (of the epoch's last step), and,
    where there is validation data, "val_loss" and "val_accuracy" or "val_rmse".

    Example:
        >>> history = trainer.fit(X, y, epochs=20, validation=(Xv, yv))
        >>> min(history["val_loss"])
        >>> history.plot("curves.png")
    """

    def __init__(self, values: Mapping[str, list[float | None]] | None = None) -> None:
        self._values = {
            name: [math.nan if v is None else float(v) for v in column] for name, column in (values or {}).items()
        }
        if len({len(column) for column in self._values.values()}) > 1:
            raise ValueError("History: every metric must have one number an epoch")

    @property
    def epochs(self) -> int:
        """Number of epochs measured."""
        return max(map(len, self._values.values()), default=0)

    def append(self, metrics: Mapping[str, float]) -> None:
        """Adds one epoch."""
        epochs = self.epochs
        for name in {**self._values, **metrics}:
            column = self._values.setdefault(name, [math.nan] * epochs)
            column.append(float(metrics.get(name, math.nan)))

    def rows(self) -> list[dict[str, float]]:
        """One dict an epoch, counted from 1 under "epoch"."""
        return [
            {"epoch": i + 1, **{name: column[i] for name, column in self._values.items()}} for i in range(self.epochs)
        ]

    def to_dict(self) -> dict[str, list[float | None]]:
        """Lists by metric, None for NaN; `History(history.to_dict())` is the same history."""
        return {name: [None if math.isnan(v) else v for v in column] for name, column in self._values.items()}

    def plot(self, path: Any = None) -> Any:
        """Draws the curves (needs matplotlib, extra `plot`); written to `path` where one is given."""
        from .plots import history

        return history(self, path)

    def __getitem__(self, name: str) -> list[float]:
        if name not in self._values:
            raise KeyError(f"{name!r} was not measured; there are {', '.join(self._values) or 'no metrics yet'}")
        return list(self._values[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        names = list(self._values)
        rows = [[i + 1, *(f"{self._values[name][i]:.5g}" for name in names)] for i in range(self.epochs)]
        return table(["epoch", *names], rows)
