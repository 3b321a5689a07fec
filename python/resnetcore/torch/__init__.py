"""The fused block inside PyTorch: a differentiable function, modules and their operators.

Needs the extra `torch`. Gradients are PyTorch's to see: its optimizers, hooks and `torch.compile` work as they do with
its own operations. Memory is PyTorch's own, on the CPU or on a CUDA GPU, and not copied; threads on the CPU are as many as
PyTorch has, and work on a GPU comes in the order of PyTorch's stream there.
`from_module` and `to_module` convert between networks and modules of PyTorch's own layers.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "resnetcore.torch needs PyTorch, which is not installed: pip install 'resnetcore[torch]'", name="torch"
    ) from None

from .block import residual
from .plain import PlainLayer, PlainStack, to_module
from .stack import ResidualLayer, ResidualStack
from .tracing import from_module

__all__ = ["PlainLayer", "PlainStack", "ResidualLayer", "ResidualStack", "from_module", "residual", "to_module"]
