"""A stack's loss. On the CPU a training pass goes forward, through the loss and backward at once, as a step of `rc.Trainer`
does: rows of narrow layers go through all of it while they are in cache, and no tape is kept. Everywhere else the loss is
PyTorch's own, of the stack's outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from .._errors import DTypeError
from ..losses import Loss, as_loss, check_sample_weight, check_targets
from .gpu import check_beside, order_of
from .losses import mean_loss
from .shared import DTYPE_NAMES, Function, PyTorchsThreads, is_direct, no_double_backward, refuse_batch
from .stack_operators import Core, arranged, outputs_of, program, running, stack, trained

Tensor = torch.Tensor
_OPERATION = "ResidualStack"
_WHOLE = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.uint32,
    torch.uint64,
}
_NUMBERS = {*_WHOLE, torch.float16, *DTYPE_NAMES}


def stack_loss(
    x: Tensor,
    values: Sequence[Tensor],
    seed: Tensor,
    topology: str,
    training: bool,
    y: Any,
    loss: str | Loss,
    sample_weight: Any,
) -> list[Tensor]:
    """The mean loss of x against y, and of a training pass the running statistics carried on."""
    given = [_dense_numbers("y", y, x)]
    if sample_weight is not None:
        given.append(_dense_numbers("sample_weight", sample_weight, x))
    # Tensors of a transform of torch.func are of a plain type, but without memory.
    are_real = is_direct([x, *values, *given]) and not torch._C._are_functorch_transforms_active()
    if are_real and x.is_cpu:
        at_once = training and len(x) > 0 and order_of(x) is None and _is_differentiated(x, values, given)
        if not at_once or sample_weight is not None or not _is_as_read(y, loss, x, topology):
            _check(y, sample_weight, loss, x, topology)
        if at_once:
            y, weight = _as_read(y, loss, x), None if sample_weight is None else sample_weight.to(x.dtype)
            return list(_AtOnce.apply(x, seed, topology, loss, y, weight, x.requires_grad, *values))
    out, *carried = stack(x, values, seed, topology, training)
    return [mean_loss(_OPERATION, loss, out, y, sample_weight), *carried]


def _dense_numbers(name: str, value: Any, x: Tensor) -> Tensor:
    if not isinstance(value, Tensor):
        raise DTypeError(f"{_OPERATION}: {name} must be a tensor, got {type(value).__name__}")
    if value.layout is not torch.strided or value.is_nested or value.dtype not in _NUMBERS:
        kind = "nested" if value.is_nested else f"{value.dtype}, {value.layout}"
        raise DTypeError(f"{_OPERATION}: {name} must be a dense tensor of real numbers, got one of {kind}")
    check_beside(f"{_OPERATION}: {name}", value, "x", x.device)
    return value


def _is_differentiated(x: Tensor, values: Sequence[Tensor], given: Sequence[Tensor]) -> bool:
    """By what the core has gradients of, backward, and by nothing else."""
    wanted = torch.is_grad_enabled() and (x.requires_grad or any(v.requires_grad for v in values))
    return wanted and not any(t.requires_grad for t in given) and forward_ad._current_level < 0


def _takes_labels(loss: str | Loss) -> bool:
    return (loss if isinstance(loss, str) else loss.name) == "cross_entropy"


def _is_as_read(y: Tensor, loss: str | Loss, x: Tensor, topology: str) -> bool:
    """Whether targets are of the dtype and the shape that the core reads; it looks at their numbers itself."""
    if not isinstance(loss, (str, Loss)):
        return False
    outputs = outputs_of(topology)
    if y.dtype == torch.int64:
        return _takes_labels(loss) and outputs > 1 and y.shape == x.shape[:1]
    return y.dtype == x.dtype and y.shape == (len(x), outputs)


def _check(y: Tensor, sample_weight: Tensor | None, loss: str | Loss, x: Tensor, topology: str) -> None:
    """Raises what `check_targets` and `check_sample_weight` do."""
    rows, dtype = len(x), np.dtype(DTYPE_NAMES[x.dtype])
    check_targets(_OPERATION, _numpys(y), as_loss(loss), rows, outputs_of(topology), dtype)
    if sample_weight is not None:
        check_sample_weight(_OPERATION, _numpys(sample_weight), rows, dtype)


def _numpys(tensor: Tensor) -> np.ndarray:
    tensor = tensor.detach().resolve_neg()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _as_read(y: Tensor, loss: str | Loss, x: Tensor) -> Tensor:
    """Targets that are good, as the core reads them. PyTorch then notices where they are changed before they are read again."""
    if _takes_labels(loss) and not y.dtype.is_floating_point:
        return y.long()
    y = y.to(x.dtype)
    return y if y.ndim == 2 else y[:, None]


class _AtOnce(Function):
    """The gradients come with the loss, and are handed out once: for whoever asks again the pass is made again."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        seed: Tensor,
        topology: str,
        loss: str | Loss,
        y: Tensor,
        sample_weight: Tensor | None,
        input_gradient: bool,
        *values: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.settings = topology, loss, input_gradient
        ctx.save_for_backward(x, seed, y, sample_weight, *values)
        result, ctx.gradients, carried = _pass(x, seed, y, sample_weight, values, topology, loss, input_gradient)
        ctx.mark_non_differentiable(*carried)
        ctx.set_materialize_grads(False)
        return result, *carried

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None,) * len(ctx.needs_input_grad)
        refuse_batch(grad)
        topology, _, input_gradient = ctx.settings
        gradients: Any
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            x, seed, y, sample_weight, *values = ctx.saved_tensors
            gradients = _pass(x, seed, y, sample_weight, values, *ctx.settings)[1]
        if torch.is_grad_enabled():  # create_graph: someone may ask for a second derivative
            x, _, _, _, *values = ctx.saved_tensors
            gradients = _Scaled.apply(gradients, grad, x, *values)
        else:
            gradients = _scaled(gradients, grad)
        d_x, d_values = arranged(topology, input_gradient, gradients)
        return d_x, None, None, None, None, None, None, *d_values


class _Scaled(Function):
    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], by: Tensor, *_: Tensor) -> Any:
        return tuple(_scaled(gradients, by))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        no_double_backward("residual_stack")


def _scaled(gradients: list[Tensor], by: Tensor) -> list[Tensor]:
    factor = float(by)
    if factor != 1:
        torch._foreach_mul_(gradients, factor)
    return gradients


@functools.lru_cache(maxsize=64)
def _described_by_name(loss: str, outputs: int, dtype: torch.dtype) -> dict[str, Any]:
    return as_loss(loss).to_core(outputs, np.dtype(DTYPE_NAMES[dtype]))


def _described(loss: str | Loss, outputs: int, dtype: torch.dtype) -> dict[str, Any]:
    """As the compiled core takes it."""
    if isinstance(loss, str):
        return _described_by_name(loss, outputs, dtype)
    return loss.to_core(outputs, np.dtype(DTYPE_NAMES[dtype]))


def _pass(
    x: Tensor,
    seed: Tensor,
    y: Tensor,
    sample_weight: Tensor | None,
    values: Sequence[Tensor],
    topology: str,
    loss: str | Loss,
    input_gradient: bool,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The loss; the gradient of x if it is asked for, and those of the trained values; the running statistics carried on."""
    core = Core(x)
    run = program(topology, True, input_gradient)
    x, y, dense = core.dense(x, "x"), core.dense(y, "y"), core.all_dense(values)
    carried = [dense[i].clone() for i in running(topology)]
    d_values = [torch.empty_like(dense[i]) for i in trained(topology)]
    d_x = [torch.empty(x.shape, dtype=x.dtype, device=core.place)] if input_gradient else []
    value = torch.empty((), dtype=x.dtype, device=core.place)
    arrays = core.shown((x, y, value, *d_x))
    given, targets, out, to = arrays if d_x else (*arrays, None)
    weights = None if sample_weight is None else core.shown((core.dense(sample_weight, "sample_weight"),))[0]
    shown, gradients, statistics = core.shown(dense), core.shown(d_values), core.shown(carried)
    described = _described(loss, run.outputs, x.dtype)
    with PyTorchsThreads():
        run.loss(given, shown, int(seed), described, targets, weights, out, to, gradients, statistics)
    return value, [*d_x, *d_values], carried
