"""The loop of `Trainer.fit`. Everything is checked before the first step; Ctrl-C waits for the end of a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._errors import DTypeError
from .data import ArrayData, IterableData, as_data
from .evaluation import evaluate, metric_names
from .interrupts import Interrupts
from .schedules import Schedule

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
class Position:
    """Where a trainer is: complete epochs, and in the next one, batches done, rows seen, and Σ rows · loss."""

    epoch: int = 0
    batch: int = 0
    rows: int = 0
    loss_sum: float = 0.0


def fit(
    trainer: Trainer,
    X: Any,
    y: Any,
    epochs: int,
    validation: Any,
    sample_weight: Any,
    callbacks: Iterable[Callback],
    progress: bool | None,
    check_finite: bool,
) -> None:
    """`Trainer.fit` without its return value."""
    with Interrupts() as interrupts, trainer._turns.fit():
        if epochs > trainer.epoch:
            _fit(trainer, X, y, epochs, validation, sample_weight, callbacks, progress, check_finite, interrupts)


def _fit(
    trainer: Trainer,
    X: Any,
    y: Any,
    epochs: int,
    validation: Any,
    sample_weight: Any,
    callbacks: Iterable[Callback],
    progress: bool | None,
    check_finite: bool,
    interrupts: Interrupts,
) -> None:
    with interrupts.allowed():
        data = as_data("fit", trainer.net, trainer.loss, X, y, sample_weight, check_finite)
        held_out = None if validation is None else _validation_data(trainer, validation)
    _check_iterators(data, held_out, epochs - trainer.epoch)
    _check_position(trainer, data)
    steps = data.length(trainer.batch_size, trainer.accumulate)
    schedule = _filled_schedule(trainer, epochs, steps)
    names = ("loss", "lr", *(() if held_out is None else ("val_" + name for name in metric_names(trainer.loss))))
    plan = FitPlan(epochs, steps, data.rows, names)
    listeners = _listeners(callbacks, progress)
    try:
        for listener in listeners:
            listener.on_fit_begin(trainer, plan)
        trainer._begin_fit(schedule)
        while trainer.epoch < epochs and not trainer._stopping:
            _run_epoch(trainer, data, held_out, listeners, interrupts)
        for listener in listeners:
            listener.on_fit_end(trainer)
    finally:
        for listener in listeners:
            listener.close()


def _run_epoch(
    trainer: Trainer, data: Data, held_out: Data | None, listeners: list[Callback], interrupts: Interrupts
) -> None:
    at = trainer.position
    lr = trainer._rate(max(trainer.steps - 1, 0))  # of the last step, where only the validation is left to do
    # Each kind of data takes back batches of its own kind only, which the type of a union cannot say.
    batches: Iterator[Any] = data.batches(trainer.seed, at.epoch, at.batch, trainer.batch_size, trainer.accumulate)
    while (batch := interrupts.next(batches)) is not None:
        rows = len(batch) if isinstance(batch, np.ndarray) else len(batch[0])
        trainer._turns.let_others()
        with trainer._turns:
            lr = trainer._checked_lr()
            loss = data.step(trainer._core, batch, lr)
            at = Position(at.epoch, at.batch + 1, at.rows + rows, at.loss_sum + rows * loss)
            trainer._position = at
        for listener in listeners:
            listener.on_step_end(trainer, loss)
        if trainer._stopping:
            return
    interrupts.check()
    if at.rows == 0:
        raise ValueError(
            "fit: the iterable gave no batch in this epoch; give one that can be iterated over again, such as a list "
            "or an object with __iter__, not a generator"
        )
    metrics = {"loss": at.loss_sum / at.rows, "lr": lr}
    if held_out is not None:
        with interrupts.allowed():
            found = evaluate(trainer.net, trainer.loss, held_out)
        metrics.update({f"val_{name}": value for name, value in found.items()})
    with trainer._turns:
        trainer.history.append(metrics)
        trainer._position = Position(epoch=at.epoch + 1)
    for listener in listeners:
        listener.on_epoch_end(trainer, metrics)


def _validation_data(trainer: Trainer, validation: Any) -> Data:
    what = "fit: validation"
    if not isinstance(validation, tuple):
        return as_data(what, trainer.net, trainer.loss, validation, None)
    if len(validation) not in (2, 3):
        raise DTypeError(f"{what} must be (X, y) or (X, y, sample_weight), got {len(validation)} elements")
    return ArrayData(what, trainer.net, trainer.loss, *validation)


def _check_iterators(data: Data, held_out: Data | None, epochs: int) -> None:
    for name, source in (("X", data), ("validation", held_out)):
        if isinstance(source, IterableData) and source.once_only and epochs > 1:
            raise ValueError(
                f"fit: {name} is an iterator that is used up after one epoch, and there are {epochs} to do; give "
                "something that can be iterated over again, such as a list or an object with __iter__"
            )


def _check_position(trainer: Trainer, data: Data) -> None:
    at = trainer.position
    if not at.batch or not isinstance(data, ArrayData):
        return
    if data.rows_after(at.batch, trainer.batch_size, trainer.accumulate) != at.rows:
        raise ValueError(
            f"fit: the trainer is inside an epoch, after {at.rows} rows in {at.batch} batches, and {data.rows} rows "
            "are not what it began with; continue with the same data, or call restart_epoch() first"
        )


def _filled_schedule(trainer: Trainer, epochs: int, steps: int | None) -> Schedule:
    schedule = trainer.schedule
    if not schedule.needs_length():
        return schedule
    if steps is None:
        raise ValueError(f"fit: the number of batches is not known; give {type(schedule).__name__} its steps")
    return schedule.with_length(trainer.steps + (epochs - trainer.epoch) * steps - trainer.position.batch)


def _listeners(callbacks: Any, progress: bool | None) -> list[Callback]:
    from .callbacks import Callback
    from .progress import Progress, on_terminal

    listeners = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
    for listener in listeners:
        if not isinstance(listener, Callback):
            raise DTypeError(f"fit: callbacks must be Callbacks, got {listener!r}")
    if progress or (progress is None and on_terminal()):
        listeners.append(Progress())
    return listeners
