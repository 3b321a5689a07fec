"""Losses and the targets they take. Formulas are csrc/math/loss.h; targets are checked whole before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._core import losses as _known_losses
from ._errors import DTypeError, ShapeError
from .arrays import Rows, as_array, as_dense, as_host_array, is_floating, is_memory_map
from .checks import as_number
from .device_arrays import DeviceArray, is_on_gpu, on_device

__all__ = ["Loss"]


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss of logits and targets, averaged as PyTorch does.

    Args:
        name: "cross_entropy" (integer labels (n,), or probabilities (n, outputs)), "binary_cross_entropy" (0 or 1, or
            probabilities), "mse", "mae" or "huber" (targets (n, outputs)). With one output, targets may be (n,).
        label_smoothing: of cross_entropy, in [0, 1).
        class_weight: of the cross entropies: an array of one weight a class, or a dict from label to weight (1 for
            labels that are not in it). binary_cross_entropy has two classes. Of labels the loss is a weighted mean, so
            that ratios count; of probabilities and of binary_cross_entropy it is not, and larger weights are a larger
            loss.
        delta: of huber, where squares turn into lines.

    Example:
        >>> trainer = Trainer(net, loss=Loss("huber", delta=0.5))
    """

    name: str = "cross_entropy"
    label_smoothing: float = 0.0
    class_weight: Any = None
    delta: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise DTypeError(f"loss must be a name or a Loss, got {self.name!r}")
        if self.name not in _known_losses():
            raise ValueError(f"unknown loss {self.name!r}; known are {', '.join(_known_losses())}")
        for name in ("label_smoothing", "delta"):
            object.__setattr__(self, name, as_number(f"loss: {name}", getattr(self, name)))
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss: label_smoothing must be in [0, 1), got {self.label_smoothing}")
        if self.label_smoothing and self.name != "cross_entropy":
            raise ValueError(f"loss: label_smoothing belongs to cross_entropy, not to {self.name}")
        if self.class_weight is not None and not self.takes_classes:
            raise ValueError(
                f"loss: class_weight belongs to cross_entropy and binary_cross_entropy, not to {self.name}"
            )
        if self.class_weight is not None:  # a copy: a trainer's loss must not change under it
            given, mapping = self.class_weight, isinstance(self.class_weight, Mapping)
            kept = dict(given) if mapping else np.array(as_array("loss", "class_weight", given))
            object.__setattr__(self, "class_weight", kept)
        if not self.delta > 0:
            raise ValueError(f"loss: delta must be positive, got {self.delta}")

    @property
    def takes_classes(self) -> bool:
        """Whether the targets are classes, or their probabilities, and not any numbers."""
        return self.name in ("cross_entropy", "binary_cross_entropy")

    def class_weights(self, outputs: int) -> np.ndarray | None:
        """One weight a class, (classes,) float64, or None.

        Raises:
            ShapeError: not one weight a class.
            DTypeError: no numbers.
            ValueError: a label that is no class, or a weight that is negative, not finite or masked.
        """
        if self.class_weight is None:
            return None
        classes = 2 if self.name == "binary_cross_entropy" else outputs
        if isinstance(self.class_weight, Mapping):
            weights = np.ones(classes)
            for label, weight in self.class_weight.items():
                if isinstance(label, bool) or not isinstance(label, (int, np.integer)) or not 0 <= label < classes:
                    raise ValueError(f"class_weight: labels go from 0 to {classes - 1}, got {label!r}")
                weights[label] = as_number(f"class_weight: the weight of class {label}", weight)
        else:
            weights = as_array("loss", "class_weight", self.class_weight)
            if weights.dtype.kind not in "fiu":
                raise DTypeError(f"class_weight must be numbers, got dtype {weights.dtype}")
            weights = as_dense(weights, np.float64)
        if weights.shape != (classes,):
            raise ShapeError(f"class_weight must have shape ({classes},), one weight a class, got {weights.shape}")
        if not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise ValueError(f"class_weight must be finite and not negative, got {weights.tolist()}")
        return weights

    def to_core(self, outputs: int, dtype: np.dtype, sample_weight: np.ndarray | None = None) -> dict[str, Any]:
        """As the compiled network and trainer take it; ValueError for class weights beyond the network's dtype."""
        weights = self.class_weights(outputs)
        if weights is not None:
            _check_range("class_weight", weights, dtype)
        return {
            "name": self.name,
            "label_smoothing": float(self.label_smoothing),
            "delta": float(self.delta),
            "class_weight": weights,
            "sample_weight": sample_weight,
        }

    def to_dict(self, outputs: int) -> dict[str, Any]:
        """Name and numbers, as JSON has them: `Loss(**loss.to_dict(outputs))` is the same loss."""
        weights = self.class_weights(outputs)
        return {
            "name": self.name,
            "label_smoothing": float(self.label_smoothing),
            "delta": float(self.delta),
            "class_weight": None if weights is None else weights.tolist(),
        }


def as_loss(value: Any) -> Loss:
    """`value` itself, or the loss of that name."""
    return value if isinstance(value, Loss) else Loss(value)


def check_targets(
    operation: str,
    y: Any,
    loss: Loss,
    rows: int,
    outputs: int,
    dtype: np.dtype,
    device: str = "cpu",
) -> np.ndarray:
    """Targets as the core takes them: int64 labels (rows,), or values (rows, outputs) of the network's dtype.

    Large memory maps of the right dtype stay memory maps; their values are read once, to check them. Those on the GPU
    `device` are copied to the CPU.

    Raises:
        ShapeError: not one target a row. Targets are never broadcast.
        DTypeError: class names, or floats where labels are expected.
        ValueError: a label that is no class, or a probability outside [0, 1].
    """
    array = as_host_array(operation, "y", y, device)
    what = f"{operation}: y"
    if array.dtype.kind not in "iufb":
        raise DTypeError(
            f"{what} must be numbers, got dtype {array.dtype}; class names become labels by "
            "classes, y = numpy.unique(y, return_inverse=True)"
        )
    if array.ndim == 0 or len(array) != rows:
        raise ShapeError(f"{what} must have one target for each of the {rows} rows of X, got shape {array.shape}")
    if loss.name == "cross_entropy" and array.dtype.kind in "iub":
        return _labels(what, array, rows, outputs)
    if loss.name == "cross_entropy" and array.ndim == 1:
        raise DTypeError(
            f"{what} must hold integer labels for cross_entropy, got dtype {array.dtype}; use "
            "y.astype(int), or loss='mse' for a regression"
        )
    return _values(what, array, rows, outputs, dtype, loss.takes_classes)


def _check_label_count(what: str, y: np.ndarray | DeviceArray, rows: int, classes: int) -> None:
    if y.shape != (rows,):
        remedy = "; use y[:, 0]" if y.shape == (rows, 1) else ""
        if y.shape == (rows, classes) and classes > 1:
            remedy = "; rows of zeros and a one become labels by y.argmax(axis=1)"
        raise ShapeError(f"{what} must hold one label a row, shape ({rows},), got {y.shape}{remedy}")
    if classes < 2:
        raise ShapeError(
            f"{what}: cross_entropy needs two outputs or more, the network has {classes}; use "
            "loss='binary_cross_entropy'"
        )


def _labels(what: str, y: np.ndarray, rows: int, classes: int) -> np.ndarray:
    _check_label_count(what, y, rows, classes)
    if rows and not 0 <= int(y.min()) <= int(y.max()) < classes:
        bad = int(np.flatnonzero((y < 0) | (y >= classes))[0])
        raise ValueError(f"{what} must hold labels from 0 to {classes - 1}, got {y[bad]} in row {bad}")
    return np.ascontiguousarray(y, dtype=np.int64)


def _values(what: str, y: np.ndarray, rows: int, outputs: int, dtype: np.dtype, probabilities: bool) -> np.ndarray:
    if y.shape == (rows,) and outputs == 1:
        y = y.reshape(rows, 1)
    if y.shape != (rows, outputs):
        raise ShapeError(f"{what} must have shape ({rows}, {outputs}) (targets are never broadcast), got {y.shape}")
    if probabilities and rows and not (float(y.min()) >= 0 and float(y.max()) <= 1):
        raise ValueError(f"{what} must hold probabilities in [0, 1], got values from {y.min()} to {y.max()}")
    if is_memory_map(y) and y.dtype == dtype:
        return y
    return as_dense(y, dtype)


def check_targets_in_place(
    operation: str, y: Any, loss: Loss, rows: int, outputs: int, dtype: np.dtype, device: str, labels: bool = False
) -> Rows:
    """`check_targets`, but floats on the GPU `device` stay there where the loss takes any: (rows, outputs), or (rows,).

    So do the labels that the core can read there, for a caller whose core looks at them when they make a loss NaN.
    """
    if not is_on_gpu(y) or (loss.takes_classes and not (labels and loss.class_weight is None)):
        return check_targets(operation, y, loss, rows, outputs, dtype, device)
    values = on_device(operation, "y", y, device)
    if loss.name == "cross_entropy" and values.dtype in (np.int32, np.int64):
        _check_label_count(f"{operation}: y", values, rows, outputs)
        return values
    if loss.takes_classes or not is_floating(values):
        return check_targets(operation, values, loss, rows, outputs, dtype, device)
    if values.shape != (rows, outputs) and (outputs != 1 or values.shape != (rows,)):
        raise ShapeError(
            f"{operation}: y must have shape ({rows}, {outputs}) (targets are never broadcast), got {values.shape}"
        )
    return values


def check_sample_weight(
    operation: str, weight: Any, rows: int, dtype: np.dtype, device: str = "cpu"
) -> np.ndarray | None:
    """One weight a row, (rows,) float64, or None.

    Raises:
        ShapeError: not one weight a row.
        DTypeError: no numbers.
        ValueError: a weight that is negative or not finite, or none above 0, or none that the network's dtype has.
    """
    if weight is None:
        return None
    array = as_host_array(operation, "sample_weight", weight, device)
    what = f"{operation}: sample_weight"
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{what} must hold numbers, got dtype {array.dtype}")
    if array.shape != (rows,):
        raise ShapeError(f"{what} must have shape ({rows},), one weight a row, got {array.shape}")
    array = as_dense(array, np.float64)
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise ValueError(f"{what} must be finite and not negative")
    if rows and not array.any():
        raise ValueError(f"{what} must hold a weight above 0")
    _check_range(what, array, dtype)
    return array


def _check_range(what: str, weights: np.ndarray, dtype: np.dtype) -> None:
    """ValueError where `dtype` makes the largest weight infinite or 0."""
    low, high = float(np.finfo(dtype).smallest_subnormal), float(np.finfo(dtype).max)
    if weights.any() and not low <= weights.max() <= high:
        raise ValueError(
            f"{what} must have its largest weight from {low:.2g} to {high:.2g}, the range of the network's {dtype}, "
            f"got {weights.max():.2g}; divide the weights by their mean"
        )
