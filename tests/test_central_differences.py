"""Gradients against central differences of the loss in float64: the reference's own, and the library's."""

import numpy as np
import pytest

from reference import Pass, loss_and_gradient
from strategies import random_case

STEP = 1e-5


def loss_at(case, arrays, x):
    z = Pass(case.layers, arrays, x, True, seed=case.net.seed).a[-1]
    return loss_and_gradient(z=z, y=case.y, **case.loss_settings)


@pytest.mark.parametrize("seed", range(12))
def test_directional_derivatives(seed):
    # Smooth activations only, so that no step of the difference crosses a kink.
    case = random_case(seed, smooth=True)
    net, x, y = case.in_precision("float64")
    arrays = case.arrays
    forward = Pass(case.layers, arrays, x, True, seed=net.seed)
    reference, d_x = forward.backward(loss_and_gradient(z=forward.a[-1], y=y, **case.loss_settings)[1])
    _, ours, our_d_x = net.gradients(x, y, case.loss, sample_weight=case.sample_weight)
    assert ours.keys() == reference.keys() == net.parameters().keys()
    rng = np.random.default_rng(seed)
    scale = max(np.linalg.norm(g) for g in [*reference.values(), d_x])
    for name in [*reference, "input"]:
        at = x if name == "input" else arrays[name]
        way = rng.standard_normal(at.shape)
        way /= np.linalg.norm(way)
        ends = []
        for sign in (1, -1):
            moved = at + sign * STEP * way
            inside = arrays if name == "input" else {**arrays, name: moved}
            ends.append(loss_at(case, inside, moved if name == "input" else x)[0])
        slope = (ends[0] - ends[1]) / (2 * STEP)
        for gradient in (d_x, our_d_x) if name == "input" else (reference[name], ours[name]):
            assert abs(slope - (gradient * way).sum()) <= 1e-6 * max(scale, 1), name
