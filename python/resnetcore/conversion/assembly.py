"""The network of matched layers: constants that are added anywhere in a layer become its one bias.

A bias before a batch norm, which such a layer has not, is subtracted from the running mean: the batch's own mean takes it
away in training, and the running one in inference. A constant after the norm is added to the norm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..layers import Layer
from ..network import Network
from .graph import Graph
from .matching import MatchedLayer
from .nodes import Array, Norm


def assemble(graph: Graph, layers: Sequence[MatchedLayer], dtype: Any) -> Network:
    """The network of the input and the layers that follow it, with their arrays."""
    descriptions: list[Layer] = []
    arrays: dict[str, Array] = {}
    for layer in layers[1:]:
        own = _arrays(graph, layer)
        descriptions.append(_description(layer, "bias" in own))
        arrays.update({f"{layer.number}.{name}": array for name, array in own.items()})
    inputs = layers[0].output.width
    assert inputs is not None  # the first product has told
    net = Network(inputs, descriptions, dtype=dtype)
    net.set_parameters(arrays)
    return net


def _description(layer: MatchedLayer, bias: bool) -> Layer:
    assert layer.normal is not None and layer.normal.product is not None
    skips: dict[int, Any] = {}
    for back, term in layer.skips.items():
        product = term.product
        skips[back] = "identity" if product is None else "learned" if product.trained else product.weight
    return Layer(
        layer.normal.product.weight.shape[1],
        activation=layer.activation,
        skips=skips,
        norm=None if layer.norm is None else "batch",
        bias=bias or (layer.norm is not None and not layer.pre),
        pre=layer.pre,
        gate=layer.gate is not None,
        dropout=layer.dropout,
        branch_dropout=layer.normal.dropout,
    )


def _arrays(graph: Graph, layer: MatchedLayer) -> dict[str, Array]:
    assert layer.normal is not None and layer.normal.product is not None
    product = layer.normal.product
    arrays = {"weight": product.weight}
    added = list(layer.constants)
    for back, term in layer.skips.items():
        if term.product is not None:
            arrays[f"skip.{back}.weight"] = term.product.weight
            added += [] if term.product.bias is None else [term.product.bias]
    if added and layer.normal.dropout:
        graph.fail(
            layer.output.where, "adds a bias after the layer's dropout, and a layer's bias is dropped with its product"
        )
    if layer.norm is not None:
        arrays.update(_norm(layer.norm))
    if layer.norm is not None and not layer.pre:
        if product.bias is not None:
            arrays["norm.running_mean"] = _sum([arrays["norm.running_mean"], -product.bias])
        arrays["norm.bias"] = _sum([arrays["norm.bias"], *added])
    else:
        added += [] if product.bias is None else [product.bias]
        if added:
            arrays["bias"] = np.broadcast_to(_sum(added), product.weight.shape[1:])
    if layer.gate is not None:
        arrays["gate.weight"] = layer.gate.weight
        zero = np.zeros(layer.gate.weight.shape[1], layer.gate.weight.dtype)
        arrays["gate.bias"] = zero if layer.gate.bias is None else layer.gate.bias
    return arrays


def _norm(norm: Norm) -> dict[str, Array]:
    values = {"weight": norm.weight, "bias": norm.bias, "running_mean": norm.mean, "running_var": norm.var}
    return {f"norm.{name}": array for name, array in values.items()}


def _sum(rows: Sequence[Any]) -> Array:
    """Of one row the very numbers; of several, their sum in float64."""
    total = np.asarray(rows[0])
    for row in rows[1:]:
        total = np.add(total, row, dtype=np.float64)
    return total
