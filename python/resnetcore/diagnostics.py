"""What depth does to gradients and skips, layer by layer. Measured on a copy: the network is unchanged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import norm_eps
from .arrays import as_dense, as_host_array, as_rows
from .layers import Layer
from .losses import Loss
from .tables import table

if TYPE_CHECKING:
    from .network import Network


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """One number a layer in each array, (layers,), first layer first; its repr is a table.

    Attributes:
        loss: the loss of the rows it was measured on, in training mode.
        layer: numbers of the layers, from 1.
        gradient_norm: ‖∂E/∂W‖ of the weight of the normal path (Frobenius).
        skip_ratio: ‖Σ skips‖ / ‖norm(z)‖ over all rows: above 1 the layer leans on its skips, below 1 on its own
            branch; inf where the branch is zero, NaN where there are no skips.
        dead: fraction of units that are 0 on every row.
        activation_norm: root mean square of the layer's output.
    """

    loss: float
    layer: np.ndarray
    gradient_norm: np.ndarray
    skip_ratio: np.ndarray
    dead: np.ndarray
    activation_norm: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """The same as lists, for JSON."""
        return {name: getattr(value, "tolist", lambda value=value: value)() for name, value in vars(self).items()}

    def __repr__(self) -> str:
        rows = [
            [number, f"{gradient:.3e}", "" if np.isnan(ratio) else f"{ratio:.3g}", f"{dead:.0%}", f"{size:.3g}"]
            for number, gradient, ratio, dead, size in zip(
                self.layer, self.gradient_norm, self.skip_ratio, self.dead, self.activation_norm, strict=True
            )
        ]
        return table(["layer", "gradient norm", "skip / branch", "dead", "activation rms"], rows)


def diagnose(net: Network, X: Any, y: Any, loss: str | Loss = "cross_entropy") -> Diagnosis:
    """Measures a network on some rows, in training mode without dropout. A few hundred rows are enough.

    Args:
        net: the network; not changed.
        X: (n, inputs), n ≥ 1. All activations of these rows are held in memory.
        y: targets, as `Loss` describes them.
        loss: a name or a `Loss`.

    Example:
        >>> print(net.diagnose(X[:256], y[:256]))
    """
    still = _without_dropout(net)
    X, y = as_host_array("diagnose", "X", X, net.device), as_host_array("diagnose", "y", y, net.device)
    value, gradients, _ = still._gradients("diagnose", "X", X, y, loss)
    rows = as_rows("diagnose", "X", X, net.inputs)
    found = still._core.activations(as_dense(rows, net.dtype), True)
    values = {name: array.astype(np.float64) for name, array in found.items()}
    arrays = still._arrays()
    count = len(net.layers)
    outputs = [values[str(number)] for number in range(1, count + 1)]
    with np.errstate(over="ignore", invalid="ignore"):  # numbers near the end of the range: theirs are infinite or NaN
        return Diagnosis(
            loss=value,
            layer=np.arange(1, count + 1),
            gradient_norm=np.array(
                [np.linalg.norm(gradients[f"{n}.weight"].astype(np.float64)) for n in range(1, count + 1)]
            ),
            skip_ratio=np.array([_skip_ratio(n, still.layers[n - 1], values, arrays) for n in range(1, count + 1)]),
            dead=np.array([(a == 0).all(axis=0).mean() for a in outputs]),
            activation_norm=np.array([np.sqrt(np.mean(a * a)) for a in outputs]),
        )


def _without_dropout(net: Network) -> Network:
    from .network import Network

    layers = [replace(layer, dropout=0.0, branch_dropout=0.0) for layer in net.layers]
    still = Network(net.inputs, layers, net.seed, net.precision, matmul_precision=net.matmul_precision)
    still.set_parameters(net._arrays())
    return still


def _skip_ratio(number: int, layer: Layer, values: dict[str, np.ndarray], arrays: dict[str, np.ndarray]) -> float:
    if not layer.skips:
        return float("nan")
    skips = np.zeros_like(values[str(number)])
    for back, kind in layer.skips.items():
        source = values[str(number - back)]
        skips += (
            source if isinstance(kind, str) and kind == "identity" else source @ arrays[f"{number}.skip.{back}.weight"]
        )
    branch = np.linalg.norm(_branch(number, layer, values, skips, arrays))
    return float(np.linalg.norm(skips) / branch) if branch else float("inf")


def _branch(
    number: int, layer: Layer, values: dict[str, np.ndarray], skips: np.ndarray, arrays: dict[str, np.ndarray]
) -> np.ndarray:
    if layer.pre:  # a = branch + skips: nothing follows the sum
        return values[str(number)] - skips
    if layer.norm is None:
        return values[str(number - 1)] @ arrays[f"{number}.weight"] + arrays.get(f"{number}.bias", 0.0)
    z = values[f"{number}.branch"]  # what the norm had before it
    scale = arrays[f"{number}.norm.weight"] / np.sqrt(z.var(axis=0) + norm_eps())
    return (z - z.mean(axis=0)) * scale + arrays[f"{number}.norm.bias"]
