"""A network as a table of its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .layers import Layer
from .tables import Text, table

if TYPE_CHECKING:
    from .network import Network


def summary(net: Network) -> Text:
    """A table of layer, width, what it computes, skips and number of trained parameters; the input is layer 0."""
    counts = dict.fromkeys(range(1, len(net.layers) + 1), 0)
    for name, array in net.parameters().items():
        counts[int(name.partition(".")[0])] += array.size
    rows = [
        [number, layer.width, _describe(layer), _describe_skips(number, layer), f"{counts[number]:,}"]
        for number, layer in enumerate(net.layers, 1)
    ]
    headers = ["layer", "width", "computes", "skips", "parameters"]
    body = table(headers, [[0, net.inputs, "input", "", ""], *rows], left=4)
    narrow = "" if net.precision == net.dtype.name else f"; activations in {net.precision}"
    return Text(f"{body}\n{sum(counts.values()):,} trained parameters, {net.dtype}{narrow}")


def _describe(layer: Layer) -> str:
    parts = [layer.norm and f"{layer.norm} norm", layer.activation, "linear"]
    order = parts if layer.pre else [parts[2], parts[0], parts[1]]
    if layer.activation == "identity":
        order.remove("identity")
    extras = [
        f"dropout {layer.dropout}" if layer.dropout else "",
        "gate" if layer.gate else "",
        f"branch dropout {layer.branch_dropout}" if layer.branch_dropout else "",
    ]
    return ", ".join(part for part in order + extras if part)


def _describe_skips(number: int, layer: Layer) -> str:
    return ", ".join(
        f"{kind if isinstance(kind, str) else 'fixed'} from {number - back}" for back, kind in layer.skips.items()
    )
