"""Tensors in a GPU's memory as the compiled core looks at them, and the order of PyTorch's stream there.

Invariant: whatever the core reads or writes is PyTorch's own memory, and PyTorch's current stream of that GPU waits for
the core's work before it goes on, as the core has waited for that stream. So PyTorch may reuse the memory as it always does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from .. import _core
from .._blocks import Gpu
from .._errors import ArrayDeviceError, DTypeError
from ..arrays import BFLOAT16
from ..device_arrays import DeviceArray

_DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype("float32"),
    torch.float64: np.dtype("float64"),
    torch.bfloat16: BFLOAT16,
    torch.uint8: np.dtype("uint8"),
}
_KINDS = {dtype: kind for kind, dtype in _DTYPES.items()}
_LEGACY_DEFAULT = 1  # its stream's handle; PyTorch, as CUDA's own functions, calls it 0


class Order(NamedTuple):
    """Where a tensor is, and the stream that PyTorch's work goes to there."""

    device: str
    stream: int


def order_of(tensor: torch.Tensor) -> Order | None:
    """None of a tensor that is not on a CUDA GPU."""
    if not tensor.is_cuda:
        return None
    index = tensor.get_device()
    return Order(f"cuda:{index}", torch.cuda.current_stream(index).cuda_stream or _LEGACY_DEFAULT)


def view(tensor: torch.Tensor, device: str) -> DeviceArray:
    """The tensor's memory on the GPU `device`, for the time of a call."""
    return _core.array_at(
        device, tensor.data_ptr(), tensor.shape, tensor.stride(), _DTYPES[tensor.dtype], tensor.detach()
    )


@dataclass(frozen=True)
class Tensors(Gpu):
    """A GPU's memory for PyTorch's tensors. Every identity term has one and the same gradient, as autograd allows."""

    place: torch.device = field(kw_only=True)

    @classmethod
    def of(cls, first: torch.Tensor) -> Tensors | None:
        """Where the first of a call's tensors is; None where that is no GPU."""
        order = order_of(first)
        return None if order is None else cls(*order, place=first.device)

    def taken(self, operation: str, name: str, value: Any) -> DeviceArray:
        """The memory of a tensor."""
        check_beside(f"{operation}: {name}", value, "sources[0]", self.place)
        if value.dtype not in _DTYPES:
            raise DTypeError(
                f"{operation}: {name} must be float32, float64 or bfloat16, got {value.dtype}; convert it with .to()"
            )
        return view(value.resolve_neg(), self.device)

    def made(self, shape: tuple[int, ...], dtype: np.dtype) -> torch.Tensor:
        """A tensor for a result."""
        return torch.empty(shape, dtype=_KINDS[dtype], device=self.place)

    def view(self, made: torch.Tensor) -> DeviceArray:
        """Its memory."""
        return view(made, self.device)

    def deltas(self, block: Any) -> list[torch.Tensor]:
        """Room for δ alone."""
        return [self.made((block.rows, block.columns), block.dtype)]


def check_beside(what: str, tensor: torch.Tensor, other: str, place: torch.device) -> None:
    """Raises ArrayDeviceError unless the tensor is where the tensor called `other` is."""
    if tensor.device != place:
        raise ArrayDeviceError(
            f"{what} must be on {place} as {other} is, got a tensor on {tensor.device}; move it with .to('{place}')"
        )
