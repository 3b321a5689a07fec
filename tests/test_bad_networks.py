"""Topologies that cannot be are refused when the network is made, by a message that says which layer and why."""

import numpy as np
import pytest

import resnetcore as rc


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: rc.Network(8, [rc.Layer(4), rc.Layer(5, skips={2: "identity"})]), ValueError, ("8", "5", "learned")),
        (lambda: rc.Network(8, [rc.Layer(8), rc.Layer(8, skips={3: "identity"})]), ValueError, ("3",)),
        (lambda: rc.Network(8, [rc.Layer(8), rc.Layer(8, skips={1: "identity"})]), ValueError, ("1",)),
        (lambda: rc.Network(8, [rc.Layer(8), rc.Layer(8, skips={-1: "identity"})]), ValueError, ("-1",)),
        (lambda: rc.Network(8, [rc.Layer(8), rc.Layer(8, skips={2: np.ones((8, 7))})]), ValueError, ("8", "7")),
        (lambda: rc.Network(8, []), ValueError, ("layer",)),
        (lambda: rc.Network(8, [rc.Layer(-1)]), ValueError, ("-1",)),
        (lambda: rc.Network(8, [rc.Layer(True)]), (TypeError, ValueError), ("width",)),
        (lambda: rc.Network(8, [rc.Layer(4, activation="rellu")]), ValueError, ("rellu", "relu", "softplus")),
        (lambda: rc.Network(8, [rc.Layer(4, gate=True)]), ValueError, ("8", "4")),
    ],
)
def test_refused(make, error, words):
    with pytest.raises(error) as caught:
        make()
    for word in words:
        assert word in str(caught.value)
