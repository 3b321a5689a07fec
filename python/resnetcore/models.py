"""Builders of common topologies. `depth` counts the layers with weights, input and output layer included.

Hidden layers come in blocks of `block` layers with one skip each. Where the hidden layers do not divide into blocks,
the one or two left over stand before the first block, without a skip. Residual builders start stable at any depth: a
block's last norm starts at γ = 0, so that every block starts as the identity (Goyal et al. 2017), or, without norms,
the block's last weight is scaled by 1/√blocks, which keeps the sum of all branches at the size of one (Zhang et al.
2019 do the same with other exponents).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ._errors import ShapeError
from .checks import as_integer
from .layers import Layer
from .network import Network

__all__ = ["densenet", "gated_highway", "highway", "plain", "preact_resnet", "resnet", "tabular_resnet"]

_PATTERNS = ("blocks", "sliding", "same_origin")


def plain(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    norm: str | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    init: str | None = None,
    seed: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
    matmul_precision: str | None = None,
) -> Network:
    """A network without skips: what the others are compared with.

    Args:
        inputs, outputs, width: number of columns of X, of outputs, and of units in each hidden layer.
        depth: layers with weights, input and output layer included; at least 2.
        norm, activation, dropout, init: of every hidden layer, as in `Layer`.
        seed: of the initial weights.
        dtype: "float32", "float64" or "bfloat16", as in `Network`.
        device: where the network is to be, as in `Network`.
        matmul_precision: of float32 products, as in `Network`.

    Example:
        >>> net = plain(64, 10, width=64, depth=5, norm="batch")
    """
    _check_depth("plain", depth, 2)
    hidden = Layer(width, norm=norm, activation=activation, dropout=dropout, init=init)
    layers = [hidden] * (depth - 1) + [Layer(outputs, activation=None, init=init)]
    return Network(inputs, layers, seed, dtype, device, matmul_precision)


def resnet(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    block: int = 2,
    pattern: str = "blocks",
    bottleneck: int | None = None,
    norm: str | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    seed: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
    matmul_precision: str | None = None,
) -> Network:
    """Identity skips (He et al. 2016a): `a = g(z + a_{l-k})`.

    Args:
        inputs, outputs, width, depth, norm, activation, dropout, seed, dtype, device, matmul_precision: as in
            `plain`; depth is at least 3.
        block: layers per skip, 2 (basic) or 3 (bottleneck).
        pattern: "blocks": one skip per block; "sliding": every layer skips from `block` layers back; "same_origin":
            every layer skips from layer 1.
        bottleneck: width of the layers inside a block; None is `width`.

    Example:
        >>> net = resnet(64, 10, width=64, depth=50, norm="batch")
    """
    layer = Layer(width, norm=norm, activation=activation, dropout=dropout)
    layers = _post_activation("resnet", "identity", layer, depth, block, pattern, bottleneck)
    return Network(inputs, [*layers, Layer(outputs, activation=None)], seed, dtype, device, matmul_precision)


def highway(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    block: int = 2,
    pattern: str = "blocks",
    bottleneck: int | None = None,
    norm: str | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    seed: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
    matmul_precision: str | None = None,
) -> Network:
    """Learned skip weights, `a = g(z + a_{l-k} W)`: what the source article calls HighwayNets.

    The gated layers published under that name are `gated_highway`. Arguments are those of `resnet`. Skip weights start
    as the identity, so the network starts as that ResNet and is as stable: random ones would be a deep plain network.
    """
    layer = Layer(width, norm=norm, activation=activation, dropout=dropout)
    layers = _post_activation("highway", "learned", layer, depth, block, pattern, bottleneck)
    net = Network(inputs, [*layers, Layer(outputs, activation=None)], seed, dtype, device, matmul_precision)
    skips = (name for name in net.parameters() if ".skip." in name)
    net.set_parameters({name: np.eye(width) for name in skips})
    return net


def gated_highway(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    gate_bias: float | None = None,
    norm: str | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    seed: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
    matmul_precision: str | None = None,
) -> Network:
    """Transform gates (Srivastava et al. 2015): every hidden layer but the first is `T * g(z) + (1 - T) * a_prev`.

    Args:
        inputs, outputs, width, depth, norm, activation, dropout, seed, dtype, device, matmul_precision: as in
            `plain`; depth is at least 3.
        gate_bias: initial bias of the gates; the more negative, the more is carried at first. None: −2, or −ln(depth)
            where that is lower, so that what is carried through all layers keeps its size.
    """
    _check_depth("gated_highway", depth, 3)
    if gate_bias is None:
        gate_bias = min(-2.0, -math.log(depth))
    gated = Layer(width, gate=True, gate_bias=gate_bias, norm=norm, activation=activation, dropout=dropout)
    first = Layer(width, norm=norm, activation=activation, dropout=dropout)
    layers = [first] + [gated] * (depth - 2) + [Layer(outputs, activation=None)]
    return Network(inputs, layers, seed, dtype, device, matmul_precision)


def densenet(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    reach: int = 4,
    norm: str | None = None,
    activation: str = "relu",
    dropout: float = 0.0,
    seed: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
    matmul_precision: str | None = None,
) -> Network:
    """Parallel learned skips (DenseNet, Huang et al. 2017, as a sum): each layer reads the last `reach` layers.

    A concatenation followed by a weight matrix is the sum of the products with that matrix's blocks, so nothing is
    concatenated. Layers near the input read as many as there are, the input included. All paths of a layer start equally
    strong: a norm's γ at 1/√paths, as the skips' weights are for so many inputs.

    Args:
        inputs, outputs, width, depth, norm, activation, dropout, seed, dtype, device, matmul_precision: as in
            `plain`; depth is at least 3.
        reach: how many earlier layers each hidden layer reads: the one before, and reach − 1 learned skips.
    """
    _check_depth("densenet", depth, 3)
    if as_integer("densenet: reach", reach) < 2:
        raise ValueError(f"densenet: reach must be at least 2 (1 would be a plain network), got {reach}")
    layers = [
        Layer(
            width,
            norm=norm,
            activation=activation,
            dropout=dropout,
            skips={back: "learned" for back in range(2, paths + 1)},
            norm_init=1 / math.sqrt(paths) if norm else 1.0,
        )
        for paths in (min(reach, number) for number in range(1, depth))
    ]
    return Network(inputs, [*layers, Layer(outputs, activation=None)], seed, dtype, device, matmul_precision)


def preact_resnet(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    block: int = 2,
    bottleneck: int | None = None,
    norm: str | None = "batch",
    activation: str = "relu",
    dropout: float = 0.0,
    seed: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
    matmul_precision: str | None = None,
) -> Network:
    """Pre-activation residual blocks (He et al. 2016b): `a = g(norm(a_prev)) W + b + a_{l-k}`.

    The first layer is linear, and the output layer has its own norm and activation before its weight. Here the norm
    comes before the weight, so a γ of 0 would leave relu nothing to pass a gradient through: with norms, a block
    starts as the identity by a last weight of 0 instead. Arguments are those of `resnet`.
    """
    _check_depth("preact_resnet", depth, 3)
    inner = _inner_width("preact_resnet", block, bottleneck, width)
    blocks, rest = _divide("preact_resnet", depth - 2, block)
    common: dict[str, Any] = {"norm": norm, "activation": activation, "pre": True}
    layers = [Layer(width, activation=None)] + [Layer(width, dropout=dropout, **common)] * rest
    start: dict[str, Any] = {"init": "zero"} if norm else {"init_scale": 1 / math.sqrt(max(blocks, 1))}
    body = [Layer(inner, dropout=dropout, **common)] * (block - 1)
    body.append(Layer(width, skips={block: "identity"}, branch_dropout=dropout, **common, **start))
    return Network(inputs, [*layers, *body * blocks, Layer(outputs, **common)], seed, dtype, device, matmul_precision)


def tabular_resnet(
    inputs: int,
    outputs: int,
    width: int,
    depth: int,
    *,
    hidden: int | None = None,
    norm: str | None = "batch",
    dropout: float = 0.1,
    residual_dropout: float = 0.0,
    seed: int = 0,
    dtype: Any = "float32",
    device: str = "cpu",
    matmul_precision: str | None = None,
) -> Network:
    """The ResNet for tables of Gorishniy et al. 2021 (section 3.2), standardised features in, logits out.

    A block is `a + dropout(linear(dropout(relu(linear(norm(a))))))`: two pre-activation layers, the first with its norm
    and no activation, the second with relu and no norm. Dropping before relu or after it is the same. The network is
    `linear, blocks, linear(relu(norm(a)))`. A block's second weight is scaled by 1/√blocks.

    Args:
        inputs, outputs: number of columns of X, and of outputs.
        width: of the residual stream.
        depth: layers with weights, 2 + 2·blocks; an even number, at least 4.
        hidden: width inside a block; None is 2·width.
        norm: "batch" or None.
        dropout: inside a block, after relu.
        residual_dropout: on a block's branch, before it is added.
        seed, dtype, device, matmul_precision: as in `plain`.
    """
    _check_depth("tabular_resnet", depth, 4)
    if depth % 2:
        raise ValueError(f"tabular_resnet: depth must be even, 2 + 2 * blocks, got {depth}")
    blocks = (depth - 2) // 2
    first = Layer(2 * width if hidden is None else hidden, pre=True, norm=norm, activation=None, dropout=dropout)
    second = Layer(
        width, pre=True, skips={2: "identity"}, branch_dropout=residual_dropout, init_scale=1 / math.sqrt(blocks)
    )
    head = Layer(outputs, pre=True, norm=norm)
    layers = [Layer(width, activation=None)] + [first, second] * blocks + [head]
    return Network(inputs, layers, seed, dtype, device, matmul_precision)


def _post_activation(
    name: str, kind: str, layer: Layer, depth: int, block: int, pattern: str, bottleneck: int | None
) -> list[Layer]:
    """All layers but the output layer: `layer`, with and without a skip of this kind."""
    _check_depth(name, depth, 3)
    if pattern not in _PATTERNS:
        raise ValueError(f"{name}: unknown pattern {pattern!r}; known are {', '.join(_PATTERNS)}")
    inner = _inner_width(name, block, bottleneck, layer.width)
    if pattern != "blocks" and inner != layer.width:
        raise ShapeError(
            f"{name}: bottleneck={bottleneck} needs pattern='blocks'; with {pattern!r} every layer is {layer.width} wide"
        )
    hidden = depth - 2
    if pattern == "blocks":
        blocks, rest = _divide(name, hidden, block)
        last = replace(layer, skips={block: kind}, **_start(layer.norm, blocks))
        return [layer] * (1 + rest) + ([replace(layer, width=inner)] * (block - 1) + [last]) * blocks
    if pattern == "sliding":
        skipping = replace(layer, skips={block: kind}, **_start(layer.norm, hidden - block + 1))
        return [skipping if number > block else layer for number in range(1, depth)]
    # A layer here is the only way to the one before it: γ = 0 would cut that off, so only the weight is scaled.
    start = _start(None, hidden - 1)
    return [replace(layer, skips={n - 1: kind}, **start) if n > 2 else layer for n in range(1, depth)]


def _start(norm: str | None, blocks: int) -> dict[str, Any]:
    if norm:
        return {"norm_init": 0.0}
    return {"init_scale": 1 / math.sqrt(max(blocks, 1))}


def _check_depth(name: str, depth: Any, least: int) -> None:
    if as_integer(f"{name}: depth", depth) < least:
        raise ValueError(f"{name}: depth counts the input and output layers and must be at least {least}, got {depth}")


def _inner_width(name: str, block: Any, bottleneck: int | None, width: int) -> int:
    if as_integer(f"{name}: block", block) not in (2, 3):
        raise ValueError(f"{name}: block must be 2 or 3 layers, got {block}")
    return width if bottleneck is None else bottleneck


def _divide(name: str, hidden: int, block: int) -> tuple[int, int]:
    if hidden < block:
        raise ValueError(f"{name}: depth must be at least {block + 2} for blocks of {block} layers, got {hidden + 2}")
    return divmod(hidden, block)
