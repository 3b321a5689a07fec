"""What PyTorch's modules and functions are in the intermediate form, for tensors of two dimensions, (batch, width)."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .._core import norm_eps
from ..conversion import Constant, Graph, Operand

_MOMENTUM = 0.1  # of a batch norm here


def constant(tensor: torch.Tensor) -> Constant:
    """A tensor's numbers; bfloat16's as float32."""
    values = tensor.detach().cpu()
    values = values.float() if values.dtype == torch.bfloat16 else values
    return Constant(values.numpy(), trained=tensor.requires_grad)


def linear(graph: Graph, where: str, x: Operand, weight: Operand, bias: Operand | None = None) -> Operand:
    """`F.linear`, whose weight is (out, in)."""
    if isinstance(weight, Constant):
        weight = Constant(weight.values.T, weight.trained)
    return graph.product(where, x, weight, bias)


def _linear(graph: Graph, where: str, module: nn.Linear, x: Operand) -> Operand:
    bias = None if module.bias is None else constant(module.bias)
    return linear(graph, where, x, constant(module.weight), bias)


def _batch_norm(graph: Graph, where: str, module: nn.BatchNorm1d, x: Operand) -> Operand:
    names = ("weight", "bias", "running_mean", "running_var")
    missing = [name for name in names if getattr(module, name) is None]
    if missing:
        graph.fail(where, f"must have weight, bias and running statistics, and lacks {', '.join(missing)}")
    if module.eps != norm_eps() or module.momentum != _MOMENTUM:
        graph.fail(
            where,
            f"must have eps={norm_eps()} and momentum={_MOMENTUM}, as a norm has here, got eps={module.eps} and "
            f"momentum={module.momentum}",
        )
    return graph.norm(where, x, [constant(getattr(module, name)).values for name in names], module.eps)


def _flatten(graph: Graph, where: str, x: Operand, start_dim: int = 0, end_dim: int = -1) -> Operand:
    if (start_dim, end_dim) not in ((1, -1), (1, 1)):
        graph.fail(
            where, f"flattens dimensions {start_dim} to {end_dim}, and only 1 to -1 keeps (batch, width) as it is"
        )
    return x


def _cat(graph: Graph, where: str, tensors: Any, dim: int = 0) -> Operand:
    if dim not in (1, -1):
        graph.fail(where, f"concatenates along dimension {dim}; columns are dimension 1")
    return graph.concat(where, tensors)


def _dropout(
    graph: Graph, where: str, x: Operand, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Operand:
    return graph.dropout(where, x, p) if training else x


def _number(value: float) -> Constant:
    return Constant(np.asarray(value, np.float64))


def _binary(name: str) -> Callable[..., Operand]:
    def rule(graph: Graph, where: str, x: Any, y: Any, *, alpha: float = 1) -> Operand:
        if alpha != 1:
            graph.fail(where, f"must have alpha=1, got {alpha}")
        return getattr(graph, name)(where, *(_number(one) if isinstance(one, (int, float)) else one for one in (x, y)))

    return rule


def _activation(name: str, **required: Any) -> Callable[..., Operand]:
    """One whose settings must be ours: their names in the order of the function's parameters."""

    def rule(graph: Graph, where: str, x: Operand, *given: Any, inplace: bool = False, **named: Any) -> Operand:
        settings = {**dict(zip(required, given, strict=False)), **named}
        for setting, value in settings.items():
            ours: Any = required.get(setting)
            if setting not in required or not (value == ours or (ours != "none" and math.isclose(value, ours))):
                graph.fail(where, f"must have {setting}={ours}, as {name} has here, got {value!r}")
        return graph.activation(where, x, name)

    return rule


_relu, _tanh, _sigmoid, _silu = (_activation(name) for name in ("relu", "tanh", "sigmoid", "silu"))
_leaky_relu = _activation("leaky_relu", negative_slope=0.01)
_elu = _activation("elu", alpha=1.0)
_gelu = _activation("gelu", approximate="none")
_softplus = _activation("softplus", beta=1.0, threshold=20.0)


def _module(rule: Callable[..., Operand], *settings: str) -> Callable[..., Operand]:
    """A function's rule for the module that has these of its arguments as attributes."""
    return lambda graph, where, module, *x: rule(graph, where, *x, **{name: getattr(module, name) for name in settings})


def _same(_: Graph, __: str, x: Operand) -> Operand:
    return x


# By the module's very class: one that inherits may compute something else.
MODULES: dict[type[nn.Module], Callable[..., Operand]] = {
    nn.BatchNorm1d: _batch_norm,
    nn.Dropout: _module(_dropout, "p"),
    nn.ELU: _module(_elu, "alpha"),
    nn.Flatten: _module(_flatten, "start_dim", "end_dim"),
    nn.GELU: _module(_gelu, "approximate"),
    nn.Identity: _module(_same),
    nn.LeakyReLU: _module(_leaky_relu, "negative_slope"),
    nn.Linear: _linear,
    nn.ReLU: _module(_relu),
    nn.SiLU: _module(_silu),
    nn.Sigmoid: _module(_sigmoid),
    nn.Softplus: _module(_softplus, "beta", "threshold"),
    nn.Tanh: _module(_tanh),
}

_ADD, _SUBTRACT, _MULTIPLY, _PRODUCT = (_binary(name) for name in ("add", "subtract", "multiply", "product"))

FUNCTIONS: dict[Callable[..., Any], Callable[..., Operand]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add), _ADD),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub), _SUBTRACT),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), _MULTIPLY),
    **dict.fromkeys((operator.matmul, torch.matmul, torch.mm), _PRODUCT),
    **dict.fromkeys((operator.truediv, torch.div), _binary("divide")),
    **dict.fromkeys((torch.relu, F.relu), _relu),
    **dict.fromkeys((torch.tanh, F.tanh), _tanh),
    **dict.fromkeys((torch.sigmoid, F.sigmoid), _sigmoid),
    **dict.fromkeys((torch.cat, torch.concat), _cat),
    F.dropout: _dropout,
    F.elu: _elu,
    F.gelu: _gelu,
    F.leaky_relu: _leaky_relu,
    F.linear: linear,
    F.silu: _silu,
    F.softplus: _softplus,
    torch.erf: _activation("erf"),
    torch.flatten: _flatten,
}

METHODS: dict[str, Callable[..., Operand]] = {
    "add": _ADD,
    "add_": _ADD,
    "contiguous": _same,
    "flatten": _flatten,
    "matmul": _PRODUCT,
    "mul": _MULTIPLY,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "sub": _SUBTRACT,
    "tanh": _tanh,
}
