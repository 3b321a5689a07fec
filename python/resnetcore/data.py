"""Where batches come from. Everything that can be wrong with arrays is found when they are given, before any step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np

from . import _core
from ._errors import DTypeError, ShapeError
from .arrays import Rows, as_dense, as_rows, is_memory_map, is_ready
from .checks import require_finite
from .device_arrays import DeviceArray
from .losses import Loss, check_sample_weight, check_targets, check_targets_in_place
from .network import Network, chunks

Batch = tuple[Rows, Rows, "np.ndarray | None"]


class ArrayData:
    """Rows of X with their targets, in memory, in that of the network's GPU, or mapped from files larger than memory.

    An epoch's order is a function of (seed, epoch), so a run continues in the middle of one without stored state.
    Arrays in memory are converted to the network's dtype once; memory maps a batch at a time, and a GPU's X, which stays
    where it is, by the GPU. Targets and weights on a GPU are copied to the CPU once.
    """

    kind = "arrays"

    def __init__(
        self,
        operation: str,
        net: Network,
        loss: Loss,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        check_finite: bool = False,
    ) -> None:
        rows = as_rows(operation, "X", X, net.inputs, net.device)
        self.rows = self.total = len(rows)
        if self.rows == 0:
            raise ShapeError(f"{operation}: X must have at least one row, got 0")
        self._dtype = net.dtype
        self._y = check_targets(operation, y, loss, self.rows, net.outputs, self._dtype, net.device)
        self._weight = check_sample_weight(operation, sample_weight, self.rows, self._dtype, net.device)
        self._X = rows if is_memory_map(rows) else as_dense(rows, self._dtype)
        if check_finite:
            for _, chunk in chunks(self._X, self._dtype):
                require_finite(operation, "X", chunk)
            require_finite(operation, "y", self._y)

    def length(self, batch_size: int, accumulate: int) -> int | None:
        """Batches in an epoch."""
        return len(spans(self.rows, batch_size, accumulate))

    def smallest_batch(self, batch_size: int, accumulate: int) -> int:
        """Rows in an epoch's smallest batch."""
        return min(end - begin for begin, end in spans(self.rows, batch_size, accumulate))

    def rows_after(self, batches: int, batch_size: int, accumulate: int) -> int | None:
        """Rows in the first batches of an epoch; None where there are not as many batches."""
        ends = [0, *(end for _, end in spans(self.rows, batch_size, accumulate))]
        return ends[batches] if batches < len(ends) else None

    def batches(self, seed: int, epoch: int, start: int, batch_size: int, accumulate: int) -> Iterator[np.ndarray]:
        """Row numbers of each batch of an epoch, from batch `start` on."""
        order = _core.random_permutation(self.rows, seed, epoch)
        for begin, end in spans(self.rows, batch_size, accumulate)[start:]:
            yield order[begin:end]

    def begin(self, core: _core.Trainer, rows: np.ndarray, lr: float) -> None:
        """Begins one update on the given rows."""
        if isinstance(self._X, DeviceArray) or is_ready(self._X, self._dtype):
            return core.begin_rows(self._X, self._y, rows, lr, self._weight)
        x = as_dense(self._X[rows], self._dtype)
        return core.begin_step(x, self._y[rows], lr, None if self._weight is None else self._weight[rows])

    def chunks(self) -> Iterator[Batch]:
        """All rows in order, for evaluation."""
        for begin, x in chunks(self._X, self._dtype):
            chosen = slice(begin, begin + len(x))
            yield x, self._y[chosen], None if self._weight is None else self._weight[chosen]


class IterableData:
    """Batches (x, y) or (x, y, sample_weight) from anything that can be iterated over once an epoch.

    The order is the iterable's own. A run that continues in the middle of an epoch skips the batches it has had.
    """

    kind = "batches"
    rows: int | None = None

    def __init__(
        self, operation: str, net: Network, loss: Loss, batches: Iterable[Any], check_finite: bool = False
    ) -> None:
        if isinstance(batches, (str, bytes, dict, np.ndarray)) or not isinstance(batches, Iterable):
            raise DTypeError(
                f"{operation}: X without y must be an iterable of (x, y) batches, got {type(batches).__name__}"
            )
        self._operation, self._net, self._loss, self._batches = operation, net, loss, batches
        self._check_finite = check_finite
        self.total = self._length()

    @property
    def once_only(self) -> bool:
        """Whether this can be iterated over only once, as a generator can."""
        return isinstance(self._batches, Iterator)

    def length(self, batch_size: int, accumulate: int) -> int | None:
        """Batches in an epoch, where the iterable says so."""
        return self._length()

    def batches(self, seed: int, epoch: int, start: int, batch_size: int, accumulate: int) -> Iterator[Batch]:
        """The checked batches of an epoch, from batch `start` on."""
        return islice(self._checked(), start, None)

    def begin(self, core: _core.Trainer, batch: Batch, lr: float) -> None:
        """Begins one update on a batch."""
        x, y, weight = batch
        core.begin_step(x, y, lr, weight)

    def chunks(self) -> Iterator[Batch]:
        """All batches in order, for evaluation."""
        return self._checked()

    def check_now(self) -> None:
        """Raises for an iterable that says that it is empty, and for a bad batch in a list."""
        if self.total == 0:
            raise ValueError(f"{self._operation}: there must be at least one batch, got an empty iterable")
        if isinstance(self._batches, list):
            for _ in self._checked():
                pass

    def _length(self) -> int | None:
        try:
            return len(self._batches)  # type: ignore[arg-type]
        except TypeError:
            return None

    def _checked(self) -> Iterator[Batch]:
        for number, batch in enumerate(self._batches):
            what = f"{self._operation}: batch {number}"
            if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
                raise DTypeError(f"{what} must be (x, y) or (x, y, sample_weight), got {type(batch).__name__}")
            x, y, weight = batch if len(batch) == 3 else (*batch, None)
            yield check_batch(what, self._net, self._loss, x, y, weight, self._check_finite)


def check_batch(
    operation: str,
    net: Network,
    loss: Loss,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    check_finite: bool = False,
    labels_in_place: bool = False,
) -> Batch:
    """A batch as the core takes it; ShapeError without rows, and the errors of `as_rows` and `check_targets_in_place`."""
    rows = as_rows(operation, "x", x, net.inputs, net.device)
    if len(rows) == 0:
        raise ShapeError(f"{operation}: x must have at least one row, got 0")
    targets = check_targets_in_place(operation, y, loss, len(rows), net.outputs, net.dtype, net.device, labels_in_place)
    weight = check_sample_weight(operation, sample_weight, len(rows), net.dtype, net.device)
    x = as_dense(rows, net.dtype)
    if check_finite:
        require_finite(operation, "x", x)
        require_finite(operation, "y", targets)
    return x, targets, weight


def as_data(
    operation: str, net: Network, loss: Loss, X: Any, y: Any, sample_weight: Any = None, check_finite: bool = False
) -> ArrayData | IterableData:
    """Arrays where there is a y, an iterable of batches where there is none."""
    if y is not None:
        return ArrayData(operation, net, loss, X, y, sample_weight, check_finite)
    if sample_weight is not None:
        raise ValueError(f"{operation}: with an iterable of batches, sample_weight is each batch's third element")
    return IterableData(operation, net, loss, X, check_finite)


def spans(rows: int, batch_size: int, accumulate: int = 1) -> list[tuple[int, int]]:
    """(begin, end) of each batch. A left-over batch of one row (a micro-batch) joins the batch before it: its variance
    would be zero under batch normalisation."""
    ends = list(range(batch_size, rows + 1, batch_size))
    left = rows - (ends[-1] if ends else 0)
    if left and ends and left < min(batch_size, 2 * accumulate):
        ends[-1] = rows
    elif left:
        ends.append(rows)
    return list(zip([0, *ends], ends, strict=False))
