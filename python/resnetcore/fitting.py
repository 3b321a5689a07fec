"""The loop of `Trainer.fit`. Between two steps the trainer is whole, and only there do signals and callbacks see it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .evaluation import evaluate
from .fit_plan import Prepared
from .interrupts import Interrupts
from .position import Position
from .schedules import Schedule

if TYPE_CHECKING:
    from .callbacks import Callback
    from .trainer import Trainer


def fit(trainer: Trainer, prepare: Callable[[], Prepared]) -> None:
    """Does what `prepare` gives; no other thread changes the trainer from before `prepare` is called."""
    with Interrupts() as interrupts, trainer._turns.fit():
        with interrupts.allowed():
            prepared = prepare()
        with _begun(trainer, prepared.schedule), ExitStack() as closing:
            for listener in reversed(prepared.listeners):
                closing.callback(listener.close)  # every one, also where another's raises
            for listener in prepared.listeners:
                listener.on_fit_begin(trainer, prepared.plan)
            while trainer.epoch < prepared.plan.epochs and not trainer._stopping:
                _run_epoch(trainer, prepared, interrupts)
            for listener in prepared.listeners:
                listener.on_fit_end(trainer)


@contextmanager
def _begun(trainer: Trainer, schedule: Schedule) -> Iterator[None]:
    """Within, the schedule has its length; it keeps it once a step was made."""
    before, steps = trainer.schedule, trainer.steps
    trainer._begin_fit(schedule)
    try:
        yield
    finally:
        if trainer.steps == steps and trainer.schedule is schedule:
            trainer.schedule = before


@contextmanager
def _landed(trainer: Trainer) -> Iterator[None]:
    """At the end, nothing is in flight."""
    try:
        yield
    finally:
        with trainer._turns.lock:
            trainer._settle()
        trainer._in_flight.forget()


def _tell(trainer: Trainer, listeners: Sequence[Callback], most: int) -> None:
    """Counts steps until at most so many are in flight, and tells the listeners of them."""
    with trainer._turns.lock:
        trainer._settle(most)
    for loss in trainer._in_flight.losses():
        for listener in listeners:
            listener.on_step_end(trainer, loss)


def _settle(trainer: Trainer, listeners: Sequence[Callback], most: int) -> None:
    """The same, and raises what went wrong with them."""
    _tell(trainer, listeners, most)
    if trainer._in_flight.failure is not None:
        raise trainer._in_flight.failure


def _begin(trainer: Trainer, data: Any, batch: Any) -> float:
    """Asks for one more step; its learning rate."""
    turns, flying = trainer._turns, trainer._in_flight
    if turns.waiting:
        turns.let_others()
    with turns.lock:
        if flying.failure is not None:
            raise flying.failure
        lr = trainer._checked_lr()
        flying.begin(data, batch, len(batch) if isinstance(batch, np.ndarray) else len(batch[0]), lr)
        return lr


def _come_first(trainer: Trainer, listeners: Sequence[Callback], error: BaseException) -> None:
    """The steps in flight come to their end before `error`, which was met with after them, and so does theirs."""
    _tell(trainer, listeners, 0)
    failure = trainer._in_flight.failure
    if failure is not None and failure is not error and isinstance(error, Exception):
        raise failure from None


def _run_epoch(trainer: Trainer, prepared: Prepared, interrupts: Interrupts) -> None:
    at, turns, data, listeners = trainer.position, trainer._turns, prepared.data, prepared.listeners
    lr = trainer._rate(max(trainer.steps - 1, 0))  # of the last step, where only the validation is left to do
    ahead = trainer._core.ahead
    # Each kind of data takes back batches of its own kind only, which the type of a union cannot say.
    batches: Iterator[Any] = data.batches(trainer.seed, at.epoch, at.batch, trainer.batch_size, trainer.accumulate)
    with _landed(trainer):
        while True:
            try:
                if (batch := interrupts.next(batches)) is None:
                    break
                lr = _begin(trainer, data, batch)
            except BaseException as error:
                _come_first(trainer, listeners, error)
                raise
            _settle(trainer, listeners, ahead)
            if trainer._in_flight and any(one.needs_step(trainer._core.steps_begun) for one in listeners):
                _settle(trainer, listeners, 0)
            if trainer._stopping:
                break
        _settle(trainer, listeners, 0)
    if trainer._stopping:
        return
    at = trainer.position
    interrupts.check()
    if at.rows == 0:
        raise ValueError(
            "fit: the iterable gave no batch in this epoch; give one that can be iterated over again, such as a list "
            "or an object with __iter__, not a generator"
        )
    metrics = {"loss": at.mean_loss, "lr": lr}
    if prepared.held_out is not None:
        with interrupts.allowed():
            found = evaluate(trainer.net, trainer.loss, prepared.held_out, "fit: validation")
        metrics.update({f"val_{name}": value for name, value in found.items()})
    with turns.held():
        trainer.history.append(metrics)
        trainer._position = Position(epoch=at.epoch + 1)
    for listener in listeners:
        listener.on_epoch_end(trainer, metrics)
