"""The best epoch that an `EarlyStopping` has seen. It is kept with the trainer: a checkpoint has it, a resumed run goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from ._errors import DTypeError
from .checks import as_integer
from .descriptions import with_just_names

Key = tuple[str, str, float, bool]


@dataclass(frozen=True, eq=False)
class Best:
    """One epoch, by one rule.

    Attributes:
        metric, mode, min_delta, restore: the rule, as `EarlyStopping` has it.
        seen: the last epoch that was looked at.
        epoch, value: the best one, counted from 1, and what it measured; 0 and None before the first.
        waited: epochs looked at since.
        arrays: the best epoch's parameters and buffers; empty where they are not wanted, or are gone.
    """

    metric: str
    mode: str
    min_delta: float
    restore: bool
    seen: int = 0
    epoch: int = 0
    value: float | None = None
    waited: int = 0
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """The rule: a trainer keeps one best epoch for each."""
        return self.metric, self.mode, self.min_delta, self.restore

    def is_beaten_by(self, value: float) -> bool:
        """Whether `value` is better, by more than min_delta; NaN is not."""
        if self.value is None:
            return not math.isnan(value) and value != (math.inf if self.mode == "min" else -math.inf)
        gain = self.value - value if self.mode == "min" else value - self.value
        return gain > self.min_delta

    def after(self, epoch: int, value: float, arrays: Mapping[str, np.ndarray]) -> Best:
        """What this becomes by an epoch whose parameters and buffers are `arrays`."""
        if self.is_beaten_by(value):
            return replace(self, seen=epoch, epoch=epoch, value=float(value), waited=0, arrays=arrays)
        return replace(self, seen=epoch, waited=self.waited + 1)

    def to_dict(self) -> dict[str, Any]:
        """All of it; the arrays are copies."""
        numbers = {name: value for name, value in vars(self).items() if name != "arrays"}
        return {**numbers, "arrays": {name: array.copy() for name, array in self.arrays.items()}}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], like: Mapping[str, np.ndarray], epochs: int) -> Best:
        """What `to_dict` gave, for a network with arrays `like` that was trained for so many epochs.

        Raises:
            ValueError, DTypeError: anything else.
        """
        given = with_just_names("set_state: best", given, [f.name for f in fields(cls)])
        value, arrays = given["value"], given["arrays"]
        counts = {name: as_integer(f"set_state: best {name}", given[name]) for name in ("seen", "epoch", "waited")}
        if not 0 <= counts["epoch"] <= counts["seen"] <= epochs or not 0 <= counts["waited"] <= counts["seen"]:
            raise ValueError(f"set_state: a best epoch of {epochs} cannot have {counts}")
        if (value is None) != (counts["epoch"] == 0) or given["mode"] not in ("min", "max"):
            raise ValueError(f"set_state: a best epoch cannot have value {value!r} and mode {given['mode']!r}")
        if not isinstance(given["metric"], str) or not isinstance(given["restore"], bool):
            raise DTypeError("set_state: a best epoch has a text as metric and a bool as restore")
        shapes = {name: (array.shape, array.dtype) for name, array in like.items()}
        if arrays and {name: (array.shape, array.dtype) for name, array in arrays.items()} != shapes:
            raise ValueError("set_state: a best epoch must have all arrays of the network, or none")
        return cls(
            metric=given["metric"],
            mode=given["mode"],
            min_delta=float(given["min_delta"]),
            restore=given["restore"],
            value=None if value is None else float(value),
            arrays={name: array.copy() for name, array in arrays.items()},
            **counts,
        )
