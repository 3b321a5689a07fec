"""A network as an `nn.Module` of PyTorch's own layers: the formula of `Layer`, to read, change and deploy without us."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from .._errors import DTypeError
from ..layers import Layer
from ..network import Network

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


class PlainLayer(nn.Module):
    """One `resnetcore.Layer`: what it has not is an `nn.Identity`, and `gate` is None.

    Args:
        layer: the layer.
        widths: of the input and of all layers before it.
    """

    def __init__(self, layer: Layer, widths: Sequence[int]) -> None:
        super().__init__()
        before, width = widths[-1], layer.width
        self.pre = layer.pre
        normed = layer.norm is not None
        self.linear = nn.Linear(before, width, bias=layer.bias and (layer.pre or not normed))
        self.norm = nn.BatchNorm1d(before if layer.pre else width) if normed else nn.Identity()
        self.activation = _ACTIVATIONS[layer.activation or "identity"]()
        self.skips = nn.ModuleDict()
        for back, kind in layer.skips.items():
            if isinstance(kind, str) and kind == "identity":
                self.skips[str(back)] = nn.Identity()
            else:
                self.skips[str(back)] = nn.Linear(widths[-back], width, bias=False)
                self.skips[str(back)].requires_grad_(isinstance(kind, str))  # a matrix is fixed
        self.gate = nn.Linear(before, width) if layer.gate else None
        self.branch_dropout = nn.Dropout(layer.branch_dropout) if layer.branch_dropout else nn.Identity()
        self.dropout = nn.Dropout(layer.dropout) if layer.dropout else nn.Identity()

    def forward(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        """The layer's output from those of the input and of all layers before it."""
        before = outputs[-1]
        if self.pre:
            z = self.linear(self.activation(self.norm(before)))
        else:
            z = self.norm(self.linear(before))
        z = self.branch_dropout(z)
        for back, skip in self.skips.items():
            z = z + skip(outputs[-int(back)])
        a = z if self.pre else self.activation(z)
        if self.gate is not None:
            t = torch.sigmoid(self.gate(before))
            a = t * a + (1 - t) * before
        return self.dropout(a)


class PlainStack(nn.Module):
    """The layers of a network; `to_module` makes one with the network's numbers."""

    def __init__(self, inputs: int, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        widths = [inputs]
        for layer in layers:
            self.layers.append(PlainLayer(layer, widths))
            widths.append(layer.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs) to (batch, outputs)."""
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs))
        return outputs[-1]


def to_module(net: Network) -> PlainStack:
    """An `nn.Module` of `nn.Linear`, `nn.BatchNorm1d`, `nn.Dropout` and activations that computes what a network does.

    It has copies of the network's numbers in `net.dtype`, is in training mode, and needs resnetcore for its class alone.
    Its state dict has `layers.0.linear.weight`, (out, in), `layers.0.linear.bias`, `layers.1.norm.running_mean`,
    `layers.2.skips.2.weight`, `layers.5.gate.weight`, …; a fixed skip's weight requires no gradient. `from_module` makes
    it a network again. Dropout takes its masks from PyTorch.

    Raises DTypeError for anything but a network.
    """
    if not isinstance(net, Network):
        raise DTypeError(f"torch.to_module: net must be a resnetcore.Network, got {type(net).__name__}")
    with torch.device("meta"):  # draws no numbers, which would move PyTorch's generator on
        module = PlainStack(net.inputs, net.layers)
    state: dict[str, Any] = {
        name: torch.zeros((), dtype=torch.int64) for name in module.state_dict() if name.endswith("num_batches_tracked")
    }
    for name, array in net._arrays().items():
        state[_name(name)] = torch.from_numpy(np.array(array.T, order="C"))
    module.load_state_dict(state, assign=True)
    return module


def _name(ours: str) -> str:
    number, _, rest = ours.partition(".")
    rest = rest.replace("skip.", "skips.") if "." in rest else f"linear.{rest}"
    return f"layers.{int(number) - 1}.{rest}"
