"""How a table becomes a network's inputs and targets, and predictions become a table again: the same way at every use.

Inputs are standardised, (x - mean) / scale with mean and deviation of the training rows, and so are a regression's
targets; the numbers are kept beside the network, in run.json. A column that never changes keeps a scale of 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .datafile import Table

MOST_CLASSES = 100  # integers with more different values than this are quantities


@dataclass(frozen=True)
class Preparation:
    """Names and numbers.

    Attributes:
        inputs: the columns, in the network's order.
        mean, scale: of each.
        target: the column that is predicted.
        classes: its values as text, label 0 first; None for a regression.
        target_mean, target_scale: of a regression.
    """

    inputs: list[str]
    mean: list[float]
    scale: list[float]
    target: str
    classes: list[str] | None
    target_mean: float = 0.0
    target_scale: float = 1.0

    @classmethod
    def fit(
        cls, table: Table, rows: np.ndarray, target: str, task: str, drop: Sequence[str], standardise: bool
    ) -> Preparation:
        """From the training rows of a table. `task` is "auto", "classification" or "regression"."""
        column = table.column(target)
        for name in drop:
            table.column(name)
        inputs = [name for name in table.columns if name != target and name not in drop]
        if not inputs:
            raise ValueError(f"{table.source}: there is no column left to predict {target!r} from")
        x = table.numbers(inputs)[rows]
        with np.errstate(over="ignore", invalid="ignore"):
            mean, scale = x.mean(axis=0), x.std(axis=0)
        _check_in_range(table.source, inputs, mean, scale)
        if not standardise:
            mean, scale = np.zeros(len(inputs)), np.ones(len(inputs))
        scale[~(scale > 1e-12 * np.abs(mean))] = 1.0
        known = {"inputs": inputs, "mean": mean.tolist(), "scale": scale.tolist(), "target": target}
        if task == "classification" or (task == "auto" and _looks_like_classes(column)):
            return cls(**known, classes=_classes(table.source, target, column))
        y = table.numbers([target])[rows, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            _check_in_range(table.source, [target], y.mean(keepdims=True), y.std(keepdims=True))
        deviation = float(y.std()) if standardise else 1.0
        return cls(
            **known,
            classes=None,
            target_mean=float(y.mean()) if standardise else 0.0,
            target_scale=deviation if deviation > 0 else 1.0,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preparation:
        """What `dataclasses.asdict` gave."""
        found = cls(**values)
        numbers = [*found.mean, *found.scale, found.target_mean, found.target_scale]
        if not len(found.inputs) == len(found.mean) == len(found.scale) or not all(map(math.isfinite, numbers)):
            raise ValueError("inputs, mean and scale must be as many, and finite")
        return found

    @property
    def outputs(self) -> int:
        """Width of the network's last layer."""
        return 1 if self.classes is None else len(self.classes)

    @property
    def loss(self) -> str:
        """Of the network's training."""
        return "mse" if self.classes is None else "cross_entropy"

    def x(self, table: Table) -> np.ndarray:
        """(rows, inputs) float32; ValueError for a number that float32 cannot hold so standardised."""
        values = (table.numbers(self.inputs) - self.mean) / self.scale
        return _as_float32(table.source, self.inputs, values)

    def y(self, table: Table) -> np.ndarray:
        """Labels (rows,) int64, or standardised targets (rows,) float32; ValueError as `x`."""
        if self.classes is None:
            values = (table.numbers([self.target]) - self.target_mean) / self.target_scale
            return _as_float32(table.source, [self.target], values)[:, 0]
        label = {name: number for number, name in enumerate(self.classes)}
        names = _texts(table.column(self.target))
        unknown = sorted(set(names) - label.keys())
        if unknown:
            raise ValueError(
                f"{table.source}: column {self.target!r} has {unknown[0]!r}, which is none of this run's classes"
            )
        return np.array([label[name] for name in names], np.int64)

    def predictions(self, outputs: np.ndarray, probabilities: bool) -> dict[str, Sequence[Any]]:
        """Columns of the table of predictions, from a network's outputs, (rows, outputs)."""
        if self.classes is None:
            return {self.target: (outputs[:, 0].astype(np.float64) * self.target_scale + self.target_mean).tolist()}
        columns: dict[str, Sequence[Any]] = {self.target: [self.classes[label] for label in outputs.argmax(axis=1)]}
        if probabilities:
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True), dtype=np.float64)
            shares = powers / powers.sum(axis=1, keepdims=True)
            columns.update({f"p({name})": shares[:, label].tolist() for label, name in enumerate(self.classes)})
        return columns


def _as_float32(source: str, names: Sequence[str], values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        narrow = np.ascontiguousarray(values, np.float32)
    bad = np.argwhere(~np.isfinite(narrow))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{source}: column {names[column]!r} has a number in row {row + 1} that is too far from those trained on"
        )
    return narrow


def _check_in_range(source: str, names: Sequence[str], mean: np.ndarray, deviation: np.ndarray) -> None:
    bad = np.flatnonzero(~(np.isfinite(mean) & np.isfinite(deviation)))
    if len(bad):
        raise ValueError(
            f"{source}: column {names[bad[0]]!r} holds numbers whose squares overflow; give it in larger units"
        )


def _looks_like_classes(column: np.ndarray) -> bool:
    """Texts, or integers that come back. Among other numbers a text is a mistake, which reading them will name."""
    found = [_number(cell) for cell in column.tolist()]
    values = np.array([value for value in found if value is not None])
    if 2 * len(values) < len(found):
        return True
    kinds, whole = len(np.unique(values)), np.isfinite(values).all() and (values == np.rint(values)).all()
    return bool(whole and kinds <= MOST_CLASSES and 2 * kinds <= len(values))


def _number(cell: Any) -> float | None:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def _classes(source: str, target: str, column: np.ndarray) -> list[str]:
    names = sorted(set(_texts(column)), key=_order)
    if "" in names:
        raise ValueError(
            f"{source}: column {target!r} has an empty cell in row {list(column).index('') + 1}; fill it in or "
            "leave the row out"
        )
    if len(names) < 2:
        raise ValueError(f"{source}: column {target!r} must have two different values to tell apart, got {len(names)}")
    return names


def _texts(column: np.ndarray) -> list[str]:
    if column.dtype.kind == "f" and (column == np.rint(column)).all():
        column = column.astype(np.int64)
    return [str(value) for value in column.tolist()]


def _order(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return math.inf, name
