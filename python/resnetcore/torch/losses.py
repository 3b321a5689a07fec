"""Our losses of a module's outputs by PyTorch's functions, which have the same definitions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from .._errors import ShapeError
from ..losses import Loss, as_loss

Tensor = torch.Tensor
_NO_LABEL = -(2**62)  # what PyTorch's would leave out; ours leaves no row out


class Terms(NamedTuple):
    """A loss as numbers that a traced program may hold."""

    name: str
    label_smoothing: float
    delta: float
    class_weight: tuple[float, ...] | None


@torch.compiler.assume_constant_result
def terms(loss: str | Loss, outputs: int) -> Terms:
    """Those of a loss, or of the one of that name, for so many outputs."""
    loss = as_loss(loss)
    weights = loss.class_weights(outputs)
    by_class = None if weights is None else tuple(weights.tolist())
    return Terms(loss.name, float(loss.label_smoothing), float(loss.delta), by_class)


def mean_loss(
    operation: str, loss: str | Loss, outputs: Tensor, y: Tensor, sample_weight: Tensor | None = None
) -> Tensor:
    """The mean over rows, weighted by class for labels, or over all elements; zero where nothing has a weight. Shapes are
    looked at, numbers are not: this may be traced, or on a GPU.

    Raises:
        ShapeError: targets or weights that are not one for each row, or for each output; they are never broadcast.
    """
    given = terms(loss, outputs.shape[1])
    labels = given.name == "cross_entropy" and not y.dtype.is_floating_point
    if given.name == "cross_entropy" and outputs.shape[1] == 1:
        raise ShapeError(f"{operation}: y: cross_entropy needs two outputs or more, got 1; use 'binary_cross_entropy'")
    if y.ndim == 1 and outputs.shape[1] == 1 and not labels:
        y = y[:, None]
    rows = outputs.shape[:1]
    _check_shape(operation, "y", y, rows if labels else outputs.shape)
    by_class = None
    if given.class_weight is not None:
        by_class = torch.tensor(given.class_weight, dtype=outputs.dtype, device=outputs.device)
    y = y.long() if labels else y.to(outputs.dtype)
    each = _of_rows(given, outputs, y, by_class).double()  # with any weights, as the core sums them
    share = by_class[y].double() if labels and by_class is not None else torch.ones_like(each)
    if sample_weight is not None:
        _check_shape(operation, "sample_weight", sample_weight, rows)
        weight = sample_weight.double()
        each, share = each * weight, share * weight
    total = share.sum()
    return (each.sum() / torch.where(total > 0, total, 1)).to(outputs.dtype)


def _of_rows(given: Terms, outputs: Tensor, y: Tensor, by_class: Tensor | None) -> Tensor:
    if given.name == "cross_entropy":
        smoothing = given.label_smoothing
        return functional.cross_entropy(
            outputs, y, by_class, reduction="none", label_smoothing=smoothing, ignore_index=_NO_LABEL
        )
    if given.name == "binary_cross_entropy":
        weight = None if by_class is None else by_class[1] * y + by_class[0] * (1 - y)
        return functional.binary_cross_entropy_with_logits(outputs, y, weight, reduction="none").mean(1)
    if given.name == "huber":
        return functional.huber_loss(outputs, y, reduction="none", delta=given.delta).mean(1)
    by_name = {"mse": functional.mse_loss, "mae": functional.l1_loss}
    return by_name[given.name](outputs, y, reduction="none").mean(1)


def _check_shape(operation: str, name: str, given: Tensor, shape: torch.Size) -> None:
    if given.shape != shape:
        raise ShapeError(
            f"{operation}: {name} must have shape {tuple(shape)} (targets are never broadcast), got {tuple(given.shape)}"
        )
