"""The block `a = g(Σ A·W + b + Σ identity)` on tensors, and its gradient.

There are two routes with the same kernels: registered operators, which torch.compile and other tracers see through, and
an autograd function, which costs less for each call. Checks and results are those of `resnetcore.ops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import ops
from .._blocks import Block
from .._errors import DTypeError, ShapeError
from .gpu import Tensors, check_beside
from .shared import (
    OUTSIDE_GRAPHS,
    Function,
    PyTorchsThreads,
    autocast,
    is_direct,
    no_double_backward,
    refuse_batch,
    refuse_second_derivative,
    saved,
)

Tensor = torch.Tensor


def residual(
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None = None,
    identity: Sequence[Tensor] = (),
    activation: str | None = "relu",
) -> Tensor:
    """The block's output, (batch, N), differentiable by every tensor: `resnetcore.ops.residual_forward` for PyTorch.

    Args:
        sources: non-empty, tensors of shape (batch, K_s), all float32, float64 or bfloat16.
        weights: as many tensors of shape (K_s, N): they multiply from the right. Of an `nn.Linear`, `weight.t()`.
        bias: (N,), or None.
        identity: tensors of shape (batch, N), added unweighted.
        activation: a name from `resnetcore.activations()`, or None for the identity.

    Under autocast, tensors are cast to its precision as for PyTorch's own products. While torch.compile traces, and for
    tensors that are not plain ones, this is `torch.ops.resnetcore.residual_forward`.

    Raises:
        ShapeError, DTypeError, ValueError: as `resnetcore.ops.residual_forward`.
        DeviceError: tensors that are on several devices, or on another than the CPU and CUDA GPUs.
        RuntimeError: a second derivative is asked for.
    """
    for name, value in (("sources", sources), ("weights", weights), ("identity", identity)):
        if not isinstance(value, (list, tuple)) or not all(isinstance(t, Tensor) for t in value):
            raise DTypeError(f"residual: {name} must be a list or tuple of tensors, got {value!r:.80}")
    if bias is not None and not isinstance(bias, Tensor):
        raise DTypeError(f"residual: bias must be a tensor or None, got {type(bias).__name__}")
    if not sources or len(sources) != len(weights):
        raise ShapeError(
            f"residual: there must be at least one source and as many weights, got {len(sources)} sources and "
            f"{len(weights)} weights"
        )
    name = "identity" if activation is None else activation
    tensors = autocast([*sources, *weights, *identity, *([] if bias is None else [bias])])
    if is_direct(tensors):
        return _Direct.apply(len(sources), len(identity), name, *tensors)
    parts = _split(len(sources), len(identity), tensors)
    return torch.ops.resnetcore.residual_forward(parts[0], parts[1], parts[3], parts[2], name)


Parts = tuple[list[Any], list[Any], list[Any], Any]  # tensors, or arrays of them


def _split(n: int, n_identity: int, tensors: Sequence[Any]) -> Parts:
    """Sources, weights, identity terms and the bias of one flat list."""
    given = list(tensors)
    rest = given[2 * n + n_identity :]
    return given[:n], given[n : 2 * n], given[2 * n : 2 * n + n_identity], rest[0] if rest else None


def _shown(tensors: Sequence[Tensor]) -> list[Any]:
    """What `resnetcore.ops` looks at: NumPy's arrays of the same memory, which cost less than DLPack's, where it has any."""
    if any(t.dtype == torch.bfloat16 or not t.is_cpu for t in tensors):
        for t in tensors:
            if not (t.is_cpu or t.is_cuda):
                check_beside("residual: every tensor", t, "sources[0]", torch.device("cpu"))
        return [t.detach() for t in tensors]
    return [t.detach().resolve_neg().numpy() for t in tensors]


def _taken(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else torch.from_numpy(result)


def _forward(
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None,
    identity: Sequence[Tensor],
    activation: str,
) -> Tensor:
    place = Tensors.of(sources[0])
    if place is not None:
        return place.forward(Block.of("residual_forward", place, sources, weights, bias, identity, activation), None)
    given = [*sources, *weights, *identity, *([] if bias is None else [bias])]
    shown_sources, shown_weights, shown_identity, shown_bias = _split(len(sources), len(identity), _shown(given))
    with PyTorchsThreads():
        return _taken(ops.residual_forward(shown_sources, shown_weights, shown_bias, shown_identity, activation))


def _backward(
    grad: Tensor,
    a: Tensor,
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None,
    identity: Sequence[Tensor],
    activation: str,
) -> list[Tensor]:
    """Gradients of the sources, the weights, of every identity term alike if there is one, of the bias likewise."""
    place = Tensors.of(sources[0])
    if place is not None:
        block = Block.of("residual_backward", place, sources, weights, bias, identity, activation)
        d_sources, d_weights, d_bias, d_identity = place.backward(block, *block.output_pair(grad, a))
        return [*d_sources, *d_weights, *d_identity, *([] if bias is None else [d_bias])]
    given = [*sources, *weights, *identity, *([] if bias is None else [bias])]
    shown_grad, shown_a, *shown = _shown([grad, a, *given])
    shown_sources, shown_weights, shown_identity, shown_bias = _split(len(sources), len(identity), shown)
    with PyTorchsThreads():
        d_sources, d_weights, d_bias, d_identity = ops.residual_backward(
            shown_grad, shown_a, shown_sources, shown_weights, shown_bias, shown_identity, activation
        )
    gradients = [*d_sources, *d_weights, *d_identity[:1], *([] if bias is None else [d_bias])]
    return [_taken(gradient) for gradient in gradients]


def _arranged(n: int, n_identity: int, has_bias: bool, gradients: Sequence[Tensor]) -> Parts:
    """What `_backward` returned, by argument. Identity terms share one tensor, as autograd allows."""
    given = list(gradients)
    identity = [given[2 * n]] * n_identity if n_identity else []
    return given[:n], given[n : 2 * n], identity, given[-1] if has_bias else None


class _Direct(Function):
    @staticmethod
    def forward(n: int, n_identity: int, activation: str, *tensors: Tensor) -> Tensor:
        sources, weights, identity, bias = _split(n, n_identity, tensors)
        return _forward(sources, weights, bias, identity, activation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.n, ctx.n_identity, ctx.activation, *tensors = inputs
        ctx.save_for_backward(output, *tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        refuse_batch(grad)
        a, *tensors = saved(ctx)
        has_bias = len(tensors) > 2 * ctx.n + ctx.n_identity
        if torch.is_grad_enabled():  # create_graph: someone may ask for a second derivative
            gradients = _DirectGradient.apply(ctx.n, ctx.n_identity, ctx.activation, grad, a, *tensors)
        else:
            sources, weights, identity, bias = _split(ctx.n, ctx.n_identity, tensors)
            gradients = _backward(grad, a, sources, weights, bias, identity, ctx.activation)
        *lists, d_bias = _arranged(ctx.n, ctx.n_identity, has_bias, gradients)
        return None, None, None, *(d for one in lists for d in one), *([d_bias] if has_bias else [])


class _DirectGradient(Function):
    @staticmethod
    def forward(n: int, n_identity: int, activation: str, grad: Tensor, a: Tensor, *tensors: Tensor) -> Any:
        sources, weights, identity, bias = _split(n, n_identity, tensors)
        return tuple(_backward(grad, a, sources, weights, bias, identity, activation))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        no_double_backward("residual")


residual_forward = torch.library.custom_op(
    "resnetcore::residual_forward",
    _forward,
    mutates_args=(),
    **OUTSIDE_GRAPHS,
    schema="(Tensor[] sources, Tensor[] weights, Tensor? bias, Tensor[] identity, str activation) -> Tensor",
)
residual_backward = torch.library.custom_op(
    "resnetcore::residual_backward",
    _backward,
    mutates_args=(),
    **OUTSIDE_GRAPHS,
    schema="(Tensor grad, Tensor a, Tensor[] sources, Tensor[] weights, Tensor? bias, Tensor[] identity, str activation)"
    " -> Tensor[]",
)


@residual_forward.register_fake
def _(
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None,
    identity: Sequence[Tensor],
    activation: str,
) -> Tensor:
    return sources[0].new_empty((sources[0].shape[0], weights[0].shape[1]))


@residual_backward.register_fake
def _(
    grad: Tensor,
    a: Tensor,
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None,
    identity: Sequence[Tensor],
    activation: str,
) -> list[Tensor]:
    # As NumPy lays results out: in C order, whatever the strides of the arguments.
    return [t.new_empty(t.shape) for t in [*sources, *weights, *identity[:1], *([] if bias is None else [bias])]]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    sources, weights, bias, identity, ctx.activation = inputs
    ctx.n, ctx.n_identity = len(sources), len(identity)
    ctx.save_for_backward(output, *sources, *weights, *identity, *([] if bias is None else [bias]))


def _derive(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    a, *tensors = ctx.saved_tensors
    sources, weights, identity, bias = _split(ctx.n, ctx.n_identity, tensors)
    gradients = torch.ops.resnetcore.residual_backward(grad, a, sources, weights, bias, identity, ctx.activation)
    d_sources, d_weights, d_identity, d_bias = _arranged(ctx.n, ctx.n_identity, bias is not None, gradients)
    return d_sources, d_weights, d_bias, d_identity, None


residual_forward.register_autograd(_derive, setup_context=_save)
residual_backward.register_autograd(refuse_second_derivative("residual"))
