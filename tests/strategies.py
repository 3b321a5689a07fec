"""Random networks for the comparison with tests/reference.py: one seed, one network, batch, loss and target."""

from __future__ import annotations

import numpy as np

import resnetcore as rc
from reference import ACTIVATIONS

LOSSES = ("cross_entropy", "binary_cross_entropy", "mse", "mae", "huber")


def random_case(seed, dtype, *, smooth=False):
    """(network, x, y, loss). `smooth`: only activations without a kink, for comparisons that rounding may not upset."""
    rng = np.random.default_rng([seed, smooth])
    names = [n for n in ACTIVATIONS if not smooth or n not in ("relu", "leaky_relu", "elu")]
    inputs, depth, base = rng.integers(1, 71), rng.integers(1, 13), rng.integers(1, 71)
    widths = [int(inputs)]
    layers = []
    for number in range(1, depth + 1):
        width = int(base if rng.random() < 0.7 else rng.integers(1, 71))
        skips = {}
        for back in range(2, number + 1):
            if rng.random() > 2.0 / number:
                continue
            source = widths[number - back]
            kinds = ["learned", "fixed"] + (["identity"] if source == width else [])
            kind = rng.choice(kinds)
            skips[back] = rng.standard_normal((source, width)) / np.sqrt(source) if kind == "fixed" else str(kind)
        pre = bool(rng.random() < 0.2)
        layers.append(
            rc.Layer(
                width,
                activation=str(rng.choice(names)),
                norm="batch" if rng.random() < 0.3 else None,
                bias=bool(rng.random() < 0.8),
                pre=pre,
                gate=bool(not pre and widths[-1] == width and rng.random() < 0.2),
                dropout=float(rng.choice([0.0, 0.0, 0.25])),
                branch_dropout=float(rng.choice([0.0, 0.0, 0.25])),
                skips=skips,
            )
        )
        widths.append(width)
    net = rc.Network(int(inputs), layers, seed=int(seed), dtype=dtype)
    rows = int(rng.integers(2, 131))
    x = rng.standard_normal((rows, inputs)).astype(dtype)
    loss = str(rng.choice(LOSSES[:3] if smooth else LOSSES))
    outputs = widths[-1]
    if outputs == 1 and loss == "cross_entropy":  # has no gradient
        loss = "mse"
    if loss == "cross_entropy":
        y = rng.integers(0, outputs, rows)
    elif loss == "binary_cross_entropy":
        y = rng.integers(0, 2, (rows, outputs)).astype(dtype)
    else:
        y = rng.standard_normal((rows, outputs)).astype(dtype)
    return net, x, y, loss
