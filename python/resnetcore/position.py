"""Where a trainer is, down to the batch: with the seed, all that decides which rows come next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .checks import as_integer
from .data import ArrayData, IterableData
from .descriptions import with_names


class Position(NamedTuple):
    """Complete epochs, and how far the next one is.

    Attributes:
        epoch: complete epochs.
        batch, rows, weight, loss_sum: of the next epoch, batches done, rows seen, the sum of their weights (their number,
            where they have none), and Σ weight · loss.
        kind, total: once it has begun, what its data are: "arrays" of so many rows, or "batches", so many of them where
            the iterable says so.
    """

    epoch: int = 0
    batch: int = 0
    rows: int = 0
    loss_sum: float = 0.0
    kind: str | None = None
    total: int | None = None
    weight: float = 0.0

    @property
    def mean_loss(self) -> float:
        """Of the epoch so far; 0 where no row has a weight."""
        return self.loss_sum / self.weight if self.weight else 0.0

    def after_step(self, data: ArrayData | IterableData, rows: int, weight: float, loss: float) -> Position:
        """The position one batch of `data` later."""
        return Position(
            self.epoch,
            self.batch + 1,
            self.rows + rows,
            self.loss_sum + weight * loss,
            data.kind,
            data.total,
            self.weight + weight,
        )

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Position:
        """The position that `_asdict` gave; ValueError or DTypeError for an impossible one."""
        numbers = with_names("set_state: position", numbers, ("epoch", "batch", "rows", "loss_sum"))
        kind, total = numbers.get("kind"), numbers.get("total")  # files of before they were kept have none
        if kind not in (None, "arrays", "batches"):
            raise ValueError(f"set_state: kind must be 'arrays', 'batches' or None, got {kind!r}")
        return cls(
            epoch=_count("epoch", numbers["epoch"]),
            batch=_count("batch", numbers["batch"]),
            rows=_count("rows", numbers["rows"]),
            loss_sum=float(numbers["loss_sum"]),
            kind=kind,
            total=None if total is None else _count("total", total),
            weight=float(numbers.get("weight", numbers["rows"])),  # as the other two
        )

    def check_continues(self, data: ArrayData | IterableData, batch_size: int, accumulate: int) -> None:
        """ValueError where an epoch has begun, and not with data of this kind and size."""
        if not self.batch:
            return
        same = self.kind in (None, data.kind) and (None in (self.total, data.total) or self.total == data.total)
        if same and isinstance(data, ArrayData):  # all that a position without kind and total can tell
            same = data.rows_after(self.batch, batch_size, accumulate) == self.rows
        if not same:
            raise ValueError(
                f"fit: the trainer is inside an epoch{_of(self.kind, self.total)}, after {self.rows} rows in "
                f"{self.batch} batches, and this is one{_of(data.kind, data.total)}; continue with the same data, or "
                "call restart_epoch() first"
            )


def _count(name: str, value: Any) -> int:
    count = as_integer(f"set_state: {name}", value)
    if count < 0:
        raise ValueError(f"set_state: {name} must be at least 0, got {count}")
    return count


def _of(kind: str | None, total: int | None) -> str:
    if kind is None:
        return ""
    size = "some" if total is None else str(total)
    return f" of {size} rows in arrays" if kind == "arrays" else f" of {size} batches from an iterable"
