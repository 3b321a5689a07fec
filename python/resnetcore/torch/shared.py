"""What every operator here asks of PyTorch: threads, autocast, and which route is open. Nothing here computes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

from .. import _core
from .._errors import DTypeError

DTYPE_NAMES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
# How activations are stored for the products of each matmul precision of float32.
_STORED = {"highest": "float32", "high": "bfloat16x2", "medium": "bfloat16"}
STORED = {*DTYPE_NAMES.values(), *_STORED.values()}
# Of `custom_op`: what a CUDA graph cannot hold, where PyTorch knows of that. "reduce-overhead" then leaves it outside.
OUTSIDE_GRAPHS: dict[str, Any] = (
    {"tags": (torch.Tag.cudagraph_unsafe,)} if hasattr(torch.Tag, "cudagraph_unsafe") else {}
)
_PLAIN = {torch.Tensor, torch.nn.Parameter}
_unwrap_if_dead = torch._C._functorch.unwrap_if_dead
_is_batch_of_gradients = torch._C._functorch.is_legacy_batchedtensor

# Kernels called from here run on PyTorch's own threads: those spin between its operations, beside ours if there were any.
if torch.backends.openmp.is_available():
    _core.adopt_openmp_of("libtorch_cpu.so")


class PyTorchsThreads:
    """Kernels called by this thread use PyTorch's threads, as many as it does or resnetcore's own number if it is lower."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _core.use_host_threads(torch.get_num_threads())

    def __exit__(self, *_: Any) -> None:
        _core.use_host_threads(self._before)


def is_direct(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether the cheap route is open: real tensors, the first of which has memory, and nobody who traces or intercepts
    operators. That the others are beside the first is checked there.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    if not (tensors[0].is_cpu or tensors[0].is_cuda) or not _PLAIN.issuperset(map(type, tensors)):
        return False
    # What a function transform has left behind is of a plain type, too.
    return not any(map(operator.is_not, map(_unwrap_if_dead, tensors), tensors))


def saved(ctx: Any) -> list[torch.Tensor]:
    """What an autograd function has saved, out of what a transform that has ended leaves around it: the function that
    `torch.func.vjp` returns is called afterwards.
    """
    return [_unwrap_if_dead(t) for t in ctx.saved_tensors]


def refuse_batch(grad: torch.Tensor) -> None:
    """Raises what `is_grads_batched`, and `jacobian(vectorize=True)` by it, get: PyTorch's own words would be about itself."""
    if _is_batch_of_gradients(grad):
        _no_vmap(
            "going backward with many gradients at once (is_grads_batched, vectorize)", "ask for them one after another"
        )


def _no_vmap(what: str, remedy: str) -> NoReturn:
    raise NotImplementedError(f"resnetcore.torch: {what} has no rule for this operation; {remedy}")


class Function(torch.autograd.Function):
    """An autograd function of tensors that no ended transform has left, whose kernels have no other rule than backward's."""

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Without what PyTorch does in Python for each argument: it binds it, and looks for what a transform has left."""
        if torch._C._are_functorch_transforms_active():
            return super().apply(*args)
        return super(torch.autograd.Function, cls).apply(*args)  # type: ignore[misc]

    @staticmethod
    def vmap(*_: Any) -> NoReturn:
        """What torch.func.vmap gets."""
        _no_vmap("torch.func.vmap", "make the mapped dimension part of the batch, or call it in a loop")

    @staticmethod
    def jvp(*_: Any) -> NoReturn:
        """What forward mode gets."""
        raise NotImplementedError(
            "resnetcore.torch: there are no forward-mode derivatives (jvp); use reverse mode: backward(), "
            "torch.autograd.grad() or torch.func.vjp()"
        )


def autocast(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """As PyTorch does for its own products: under autocast float32 and lower become the precision it asks for."""
    to = autocast_dtype(tensors[0].device.type)
    return tensors if to is None else [t.to(to) if is_autocast(t) else t for t in tensors]


def autocast_dtype(device: str) -> torch.dtype | None:
    """What that precision is; None where there is no autocast."""
    if device == "meta" or not torch.is_autocast_enabled(device):
        return None
    to = torch.get_autocast_dtype(device)
    if to not in DTYPE_NAMES:
        raise DTypeError(
            f"resnetcore.torch: autocast asks for {to}, in which there are no kernels; use "
            f'torch.autocast("{device}", torch.bfloat16)'
        )
    return to


def is_autocast(tensor: torch.Tensor) -> bool:
    """Whether it is a tensor that autocast casts."""
    return tensor.is_floating_point() and tensor.dtype != torch.float64


def matmul_precision() -> str:
    """What PyTorch lets its own float32 products on the CPU be made of: "highest", "high" or "medium"."""
    # Since 2.9 for each kind of device and operation; torch.set_float32_matmul_precision sets them all.
    products: Any = getattr(torch.backends.mkldnn, "matmul", None)
    asked = getattr(products, "fp32_precision", None)
    if asked is None:
        return torch.get_float32_matmul_precision()
    return {"tf32": "high", "bf16": "medium"}.get(asked, "highest")


@torch.compiler.assume_constant_result
def stored_float32() -> str:
    """What activations in float32 are stored as on the CPU, for the products that PyTorch allows; traced as it is then."""
    return _STORED[_core.available_precision(matmul_precision())]


def no_double_backward(operation: str) -> NoReturn:
    """Raises what a second derivative gets."""
    raise RuntimeError(
        f"{operation}: its gradient cannot be differentiated again (double backward); call backward() or "
        "torch.autograd.grad() without create_graph=True, or use PyTorch's own operations where second derivatives are "
        "needed"
    )


def refuse_second_derivative(operation: str) -> Any:
    """A backward formula, for `register_autograd`, of an operator that is a gradient itself."""

    def formula(ctx: Any, *grads: Any) -> NoReturn:
        no_double_backward(operation)

    return formula
