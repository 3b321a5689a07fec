"""Learning rate by step. A schedule is a pure function of the step: it keeps no state, so a resumed run needs none."""

from __future__ import annotations

import math
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

from ._errors import DTypeError
from .checks import as_integer, as_number
from .descriptions import with_names

__all__ = ["Constant", "Cosine", "OneCycle", "Schedule", "StepDecay", "WarmUp"]


@dataclass(frozen=True)
class Schedule:
    """Base of all schedules: `schedule.rate(step, lr)` is the learning rate of that step, counted from 0.

    Make your own by subclassing with a `factor(step)`; it can be saved with a trainer if it is one of this module's.
    """

    def factor(self, step: int) -> float:
        """Multiplier of the optimizer's learning rate at `step`."""
        return 1.0

    def rate(self, step: int, lr: float) -> float:
        """The learning rate at `step`, for an optimizer whose own is `lr`."""
        factor: Any = self.factor(step)  # of the user's own, anything
        return lr * (factor if type(factor) is float else as_number(f"{type(self).__name__}: factor({step})", factor))

    def needs_length(self) -> bool:
        """Whether `steps` was left out, to be filled in with the length of the first `fit`."""
        return getattr(self, "steps", 0) is None

    def with_length(self, steps: int) -> Schedule:
        """This schedule, with `steps` where it was left out."""
        length: dict[str, Any] = {"steps": steps}  # a field of the schedules that need a length, not of this base
        return replace(self, **length) if self.needs_length() else self

    def to_dict(self) -> dict[str, Any]:
        """Name and numbers: `from_dict(schedule.to_dict()) == schedule`."""
        return {"name": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """The optimizer's learning rate throughout."""


@dataclass(frozen=True)
class StepDecay(Schedule):
    """`lr * gamma ** (step // every)`.

    Args:
        every: steps between two decays.
        gamma: factor of each.
    """

    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        _check_steps(self, "every")
        _check_fraction(self, "gamma", above_zero=True)

    def factor(self, step: int) -> float:
        """A power of gamma."""
        return self.gamma ** (step // self.every)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from `lr` to `final * lr` over `steps`, then constant (Loshchilov & Hutter 2017, without restarts).

    Args:
        steps: length; None is that of the first `fit`.
        final: last learning rate, as a fraction of the optimizer's.
        warmup: steps of a linear rise from 0 before it; they count among `steps`.
    """

    steps: int | None = None
    final: float = 0.0
    warmup: int = 0

    def __post_init__(self) -> None:
        _check_steps(self, "steps", optional=True)
        _check_steps(self, "warmup", least=0)
        _check_fraction(self, "final")
        if self.steps is not None and self.warmup >= self.steps:
            raise ValueError(f"Cosine: warmup must be below steps = {self.steps}, got {self.warmup}")

    def factor(self, step: int) -> float:
        """The rise, then the cosine."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return _half_cosine(1.0, self.final, (step - self.warmup) / (_length(self) - self.warmup))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to `lr` and down to almost nothing, both along cosines (Smith & Topin 2018; PyTorch's numbers).

    Args:
        steps: length; None is that of the first `fit`.
        rise: fraction of the steps that rise.
        start: first learning rate, as a fraction of the optimizer's, which is the peak.
        final: last one, as a fraction of the first.
    """

    steps: int | None = None
    rise: float = 0.3
    start: float = 1 / 25
    final: float = 1e-4

    def __post_init__(self) -> None:
        _check_steps(self, "steps", optional=True)
        for name in ("rise", "start", "final"):
            _check_fraction(self, name)

    def factor(self, step: int) -> float:
        """The rise to 1, then the fall."""
        steps = _length(self)
        peak = self.rise * steps - 1
        if step <= peak:
            return _half_cosine(self.start, 1.0, step / peak if peak > 0 else 1.0)
        return _half_cosine(
            1.0, self.start * self.final, (step - peak) / (steps - 1 - peak) if steps - 1 > peak else 1.0
        )


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A linear rise from `start * lr` over `steps`, then another schedule, counted from there.

    Args:
        steps: length of the rise; the step after it is the first of `then`.
        then: the schedule that follows.
        start: first learning rate, as a fraction of the optimizer's.
    """

    steps: int
    then: Schedule = Constant()
    start: float = 0.0

    def __post_init__(self) -> None:
        _check_steps(self, "steps")
        _check_fraction(self, "start")
        if not isinstance(self.then, Schedule):
            raise DTypeError(f"WarmUp: then must be a schedule, got {self.then!r}")

    def factor(self, step: int) -> float:
        """The rise, then what `then` has."""
        if step >= self.steps:
            return self.then.factor(step - self.steps)
        return self.start + (1 - self.start) * (step + 1) / (self.steps + 1) * self.then.factor(0)

    def needs_length(self) -> bool:
        """Whether `then` does."""
        return self.then.needs_length()

    def with_length(self, steps: int) -> Schedule:
        """`then` has what the rise leaves of the steps."""
        return replace(self, then=self.then.with_length(max(1, steps - self.steps)))

    def to_dict(self) -> dict[str, Any]:
        """`then` is described in its place."""
        return {"name": "WarmUp", "steps": self.steps, "then": self.then.to_dict(), "start": self.start}


_KNOWN = {cls.__name__: cls for cls in (Constant, StepDecay, Cosine, OneCycle, WarmUp)}


def from_dict(description: dict[str, Any]) -> Schedule:
    """The schedule that `Schedule.to_dict` described.

    Raises:
        ValueError: an unknown name, or arguments that this schedule has not, or lacks.
    """
    numbers = with_names("schedule", description, ["name"])
    name = numbers.pop("name")
    if not isinstance(name, str) or name not in _KNOWN:
        raise ValueError(f"schedule: unknown name {name!r}; known are {', '.join(_KNOWN)}")
    known = {f.name for f in fields(_KNOWN[name])}
    if numbers.keys() - known:
        raise ValueError(
            f"schedule {name}: unknown arguments {sorted(numbers.keys() - known)}; known are {sorted(known)}"
        )
    with_names(f"schedule {name}", numbers, [f.name for f in fields(_KNOWN[name]) if f.default is MISSING])
    if isinstance(numbers.get("then"), dict):
        numbers["then"] = from_dict(numbers["then"])
    return _KNOWN[name](**numbers)


def checked_rate(operation: str, schedule: Schedule, step: int, lr: float) -> float:
    """`schedule.rate(step, lr)`; ValueError where no step can be made with it."""
    rate: Any = schedule.rate(step, float(lr))
    if type(rate) is not float:  # as a schedule of the user's own may have it
        rate = as_number(f"{operation}: the learning rate of {schedule!r} at step {step}", rate)
    if not 0 < rate < math.inf:
        raise ValueError(
            f"{operation}: the schedule {schedule!r} gives a learning rate of {rate} at step {step}, and it must be "
            "above 0 and finite: begin and end it above 0, train for fewer epochs, or set trainer.schedule"
        )
    return rate


def _half_cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(fraction, 1.0))) / 2


def _length(schedule: Any) -> int:
    if schedule.steps is None:
        raise ValueError(f"{type(schedule).__name__}: steps is not known before the first fit; give steps=")
    return schedule.steps


def _check_steps(schedule: Schedule, name: str, optional: bool = False, least: int = 1) -> None:
    value = getattr(schedule, name)
    if value is None and optional:
        return
    what = f"{type(schedule).__name__}: {name}"
    if as_integer(what, value) < least:
        raise ValueError(f"{what} must be at least {least}, got {value}")


def _check_fraction(schedule: Schedule, name: str, above_zero: bool = False) -> None:
    what = f"{type(schedule).__name__}: {name}"
    value = as_number(what, getattr(schedule, name))
    object.__setattr__(schedule, name, value)
    if not (0 <= value <= 1) or (above_zero and value == 0):
        raise ValueError(f"{what} must be in {'(0, 1]' if above_zero else '[0, 1]'}, got {value}")
