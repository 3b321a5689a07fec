"""Loss and metrics of a network on data, in inference mode: means over all rows, however they are cut into chunks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .device_arrays import DeviceArray, as_host
from .losses import Loss

if TYPE_CHECKING:
    from .data import ArrayData, IterableData
    from .network import Network


def metric_names(loss: Loss) -> tuple[str, str]:
    """What `evaluate` gives for this loss."""
    return ("loss", "accuracy" if loss.takes_classes else "rmse")


def evaluate(net: Network, loss: Loss, data: ArrayData | IterableData, operation: str = "evaluate") -> dict[str, float]:
    """{"loss", "accuracy"} for the cross entropies, {"loss", "rmse"} for the others. Sample weights weigh both.

    Raises:
        ValueError: no rows, or no weight above 0.
    """
    total = weight_sum = score = rows = 0.0
    for x, y, sample_weight in data.chunks():
        if isinstance(y, DeviceArray):  # metrics are the CPU's
            y = as_host(y).reshape(len(x), net.outputs)
        row_weight = np.ones(len(x)) if sample_weight is None else sample_weight
        value, weight, outputs = net._core.evaluate(x, y, loss.to_core(net.outputs, net.dtype, sample_weight))
        rows += float(row_weight.sum())
        weight_sum += weight
        total += weight * value
        with np.errstate(over="ignore", invalid="ignore"):  # of outputs without bounds: the metric is infinite or NaN
            score += float((row_weight * _row_scores(loss, outputs, y)).sum())
    if not rows:
        raise ValueError(f"{operation}: there must be at least one row, with a weight above 0")
    mean = score / rows
    second = mean if loss.takes_classes else math.sqrt(mean)
    return dict(zip(metric_names(loss), (total / weight_sum if weight_sum else math.nan, second), strict=True))


def _row_scores(loss: Loss, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    if loss.name == "cross_entropy":
        return outputs.argmax(axis=1) == (y if y.ndim == 1 else y.argmax(axis=1))
    if loss.name == "binary_cross_entropy":
        return ((outputs > 0) == (y > 0.5)).mean(axis=1)
    return np.square(outputs.astype(np.float64) - y).mean(axis=1)
