"""What a `fit` is about to do. Everything that can be known to be wrong with it is found here, before any step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._errors import DTypeError, ShapeError
from .data import ArrayData, IterableData, as_data
from .evaluation import metric_names
from .schedules import Schedule, checked_rate

if TYPE_CHECKING:
    from .callbacks import Callback
    from .trainer import Trainer

Data = ArrayData | IterableData


@dataclass(frozen=True)
class FitPlan:
    """What a `fit` is about to do, for callbacks.

    Attributes:
        epochs: total number of epochs, those already trained included.
        steps_per_epoch, rows_per_epoch: None where an iterable does not say.
        metrics: names that each epoch will add to the history.
    """

    epochs: int
    steps_per_epoch: int | None
    rows_per_epoch: int | None
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    """The checked arguments of a `fit`."""

    plan: FitPlan
    data: Data
    held_out: Data | None
    schedule: Schedule
    listeners: list[Callback]


def prepare(
    trainer: Trainer,
    X: Any,
    y: Any,
    epochs: int,
    validation: Any,
    sample_weight: Any,
    callbacks: Callback | Iterable[Callback] | None,
    progress: bool | None,
    check_finite: bool,
) -> Prepared:
    """The arguments of `Trainer.fit`, checked; raises its errors, and changes nothing."""
    data = as_data("fit", trainer.net, trainer.loss, X, y, sample_weight, check_finite)
    held_out = None if validation is None else _validation_data(trainer, validation)
    listeners = _listeners(callbacks, progress)
    steps = data.length(trainer.batch_size, trainer.accumulate)
    schedule = trainer.schedule
    if epochs > trainer.epoch:
        _check_iterators(data, held_out, epochs - trainer.epoch)
        trainer.position.check_continues(data, trainer.batch_size, trainer.accumulate)
        if isinstance(data, ArrayData):
            _check_micro_batches(trainer, data.smallest_batch(trainer.batch_size, trainer.accumulate))
        left = None if steps is None else max(0, (epochs - trainer.epoch) * steps - trainer.position.batch)
        schedule = _checked_schedule(trainer, left)
    names = ("loss", "lr", *(() if held_out is None else ("val_" + name for name in metric_names(trainer.loss))))
    return Prepared(FitPlan(epochs, steps, data.rows, names), data, held_out, schedule, listeners)


def _validation_data(trainer: Trainer, validation: Any) -> Data:
    what = "fit: validation"
    if _are_arrays(validation):
        if len(validation) not in (2, 3):
            raise DTypeError(f"{what} must be (X, y) or (X, y, sample_weight), got {len(validation)} elements")
        return ArrayData(what, trainer.net, trainer.loss, *validation)
    batches = IterableData(what, trainer.net, trainer.loss, validation)
    batches.check_now()
    return batches


def _are_arrays(validation: Any) -> bool:
    """Whether it is (X, y) and not batches: a list of batches has tuples or lists as elements."""
    if not isinstance(validation, list):
        return isinstance(validation, tuple)
    return len(validation) in (2, 3) and not any(isinstance(part, (tuple, list)) for part in validation)


def _check_iterators(data: Data, held_out: Data | None, epochs: int) -> None:
    for name, source in (("X", data), ("validation", held_out)):
        if isinstance(source, IterableData) and source.once_only and epochs > 1:
            raise ValueError(
                f"fit: {name} is an iterator that is used up after one epoch, and there are {epochs} to do; give "
                "something that can be iterated over again, such as a list or an object with __iter__"
            )


def _check_micro_batches(trainer: Trainer, rows: int) -> None:
    parts = trainer.accumulate
    if rows < parts:
        raise ShapeError(f"fit: accumulate={parts} cuts every batch into as many parts; one has {rows} rows")
    if rows // parts < 2 and any(layer.norm for layer in trainer.net.layers):
        raise ShapeError(
            f"fit: batch normalisation needs at least 2 rows in every (micro-)batch, got {rows // parts}; give more "
            "rows, or a Trainer with a larger batch_size or a smaller accumulate"
        )


def _checked_schedule(trainer: Trainer, steps_left: int | None) -> Schedule:
    schedule, step = trainer.schedule, trainer.steps
    if schedule.needs_length():
        if steps_left is None:
            raise ValueError(f"fit: the number of batches is not known; give {type(schedule).__name__} its steps")
        schedule = schedule.with_length(step + steps_left)
    if steps_left != 0:
        for checked in (step, step + (steps_left or 1) - 1):
            checked_rate("fit", schedule, checked, trainer.optimizer.lr)
    return schedule


def _listeners(callbacks: Any, progress: bool | None) -> list[Callback]:
    from .callbacks import Callback
    from .progress import Progress, on_terminal

    if progress is not None and not isinstance(progress, (bool, np.bool_)):
        raise DTypeError(f"fit: progress must be True, False or None, got {progress!r}")
    given = () if callbacks is None else (callbacks,) if isinstance(callbacks, Callback) else callbacks
    if not isinstance(given, Iterable):
        raise DTypeError(f"fit: callbacks must be Callbacks, got {given!r}")
    listeners = list(given)
    for listener in listeners:
        if not isinstance(listener, Callback):
            raise DTypeError(f"fit: callbacks must be Callbacks, got {listener!r}")
    if progress or (progress is None and on_terminal()):
        listeners.append(Progress())
    return listeners
