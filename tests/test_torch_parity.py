"""The same networks in PyTorch's operations, autograd and optimizers, in float64 and float32."""

import numpy as np
import pytest

import resnetcore as rc
from comparison import OPTIMIZERS, Renumbering, our_gradients, torch_gradients
from strategies import random_case

pytest.importorskip("torch", reason="PyTorch is not installed")
pytestmark = pytest.mark.torch


class Unchanged(Renumbering):
    def __init__(self, case):
        super().__init__(case, 0)
        self.units = {width: np.arange(width) for width in self.units}
        self.rows = np.arange(len(self.rows))


def relative(a, b):
    return np.linalg.norm(np.asarray(a, np.float64) - b) / max(np.linalg.norm(b), 1e-300)


@pytest.mark.parametrize("seed", range(1000, 1060))
def test_gradients_of_random_networks(seed):
    case = random_case(seed, smooth=True)
    ours, theirs = our_gradients(case, "float64"), torch_gradients(case, "float64", Unchanged(case))
    assert ours.keys() == theirs.keys()
    largest = max(np.linalg.norm(theirs[name]) for name in theirs)
    for name in theirs:
        # Gradients that are zero but for rounding have no relative error.
        assert relative(ours[name], theirs[name]) < 1e-9 or np.linalg.norm(theirs[name]) < 1e-12 * largest, name


def fixed_case(dtype):
    """Every kind of layer, well-conditioned for twenty steps."""
    layers = [
        rc.Layer(16, activation="tanh"),
        rc.Layer(16, activation="silu", norm="batch", skips={2: "identity"}),
        rc.Layer(16, activation="gelu", skips={2: "learned"}),
        rc.Layer(16, activation="elu", norm="batch", pre=True, skips={3: "identity"}),
        rc.Layer(16, activation="softplus", gate=True),
        rc.Layer(5, activation=None, skips={5: "learned"}),
    ]
    net = rc.Network(16, layers, seed=3)
    rng = np.random.default_rng(0)
    return net.astype(dtype), rng.standard_normal((40, 16)).astype("float32").astype(dtype), rng.integers(0, 5, 40)


@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-9), ("float32", 2e-4)])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twenty_steps(optimizer, dtype, bound):
    import torch

    from torch_network import TorchNetwork, loss_of, optimizer_of

    net, x, y = fixed_case(dtype)
    ours, settings = OPTIMIZERS[optimizer]
    arrays = {**net.parameters(), **net.buffers()}
    twin = TorchNetwork(net._core.layers, arrays, list(net.parameters()), dtype)
    theirs = optimizer_of(twin.parameters.values(), lr=ours.lr, **settings)
    trainer = rc.Trainer(net, optimizer=ours)
    tensor = torch.tensor(x)
    for _ in range(20):
        theirs.zero_grad()
        loss = loss_of(twin(tensor), y, "cross_entropy")
        loss.backward()
        theirs.step()
        assert abs(trainer.step(x, y) - loss.item()) < bound
    for name, array in {**net.parameters(), **net.buffers()}.items():
        assert relative(array, twin.arrays()[name]) < bound, name
    twin.training = False
    assert relative(net(x), twin(tensor).detach().numpy()) < 10 * bound
