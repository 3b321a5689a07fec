"""The norm of ∂E/∂W by layer before the first step, for networks that differ in one thing each.

Sigmoid with Glorot's scaling is where gradients truly vanish: its derivative is at most 1/4, at every layer anew. The
skip helps as far as it goes round the sigmoid: added behind it (pre-activation order) gradients keep their size, added in
front of it (g(z + a)) they pass g' once a block instead of once a layer, and vanish half as fast. The rectifier is the
contrast: with He's scaling plain gradients keep their size, and with batch norm they explode towards the input (Yang
et al. 2019, "A mean field theory of batch normalization").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..layers import Layer
from ..network import Network
from .experiments import CLASSES, DIAGNOSED_ROWS, Settings

if TYPE_CHECKING:
    from ..digits import Split

PLAIN, RESIDUAL, INSIDE = "plain, sigmoid", "residual, sigmoid", "skip inside the sigmoid"
HE, NORMALISED = "plain, ReLU, He", "plain, ReLU, batch norm"

SIGMOID: dict[str, Any] = {"activation": "sigmoid", "init": "glorot"}


def at_start(data: Split, settings: Settings) -> dict[str, list[float]]:
    """{network: norm by layer}, each measured on the same rows with mean 0, on networks of the largest depth."""
    inputs, depth = data.x.shape[1], settings.depths[-1]
    x = data.x[:DIAGNOSED_ROWS] - data.x.mean(axis=0)
    y = data.y[:DIAGNOSED_ROWS]
    described = {
        PLAIN: chain(settings.width, depth, **SIGMOID),
        RESIDUAL: chain(settings.width, depth, skip=True, pre=True, **SIGMOID),
        INSIDE: chain(settings.width, depth, skip=True, **SIGMOID),
        HE: chain(settings.width, depth, init="he"),
        NORMALISED: chain(settings.width, depth, norm="batch"),
    }
    return {
        name: Network(inputs, layers, settings.seed).diagnose(x, y).gradient_norm.tolist()
        for name, layers in described.items()
    }


def chain(width: int, depth: int, skip: bool = False, pre: bool = False, **common: Any) -> list[Layer]:
    """`depth` layers, with an identity skip over every two of them where `skip` says so; no scaling of the branches."""
    hidden = [
        Layer(width, pre=pre, skips={2: "identity"} if skip and number % 2 else {}, **common)
        for number in range(2, depth)
    ]
    first = Layer(width, activation=None) if pre else Layer(width, **common)
    head = Layer(CLASSES, pre=True, **common) if pre else Layer(CLASSES, activation=None)
    return [first, *hidden, head]
