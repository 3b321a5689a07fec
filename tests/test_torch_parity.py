"""The same network in PyTorch: outputs, gradients, running statistics and twenty steps of each optimizer."""

import numpy as np
import pytest

import resnetcore as rc

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


class Twin(torch.nn.Module):
    """Linear, batch norm and ReLU with an identity skip from the input, then a learned skip, then logits."""

    def __init__(self, arrays):
        super().__init__()
        self.w = torch.nn.ParameterDict(
            {k.replace(".", "_"): torch.nn.Parameter(torch.tensor(v)) for k, v in arrays.items()}
        )
        self.norm_mean, self.norm_var = torch.zeros(16, dtype=torch.float64), torch.ones(16, dtype=torch.float64)

    def forward(self, x):
        w, f = self.w, torch.nn.functional
        a1 = torch.tanh(x @ w["1_weight"] + w["1_bias"])
        z = a1 @ w["2_weight"]
        z = f.batch_norm(z, self.norm_mean, self.norm_var, w["2_norm_weight"], w["2_norm_bias"], self.training)
        a2 = f.silu(z + x)
        a3 = f.gelu(a2 @ w["3_weight"] + w["3_bias"] + a1 @ w["3_skip_2_weight"])
        return a3 @ w["4_weight"] + w["4_bias"]


def pair():
    layers = [
        rc.Layer(16, activation="tanh"),
        rc.Layer(16, activation="silu", norm="batch", skips={2: "identity"}),
        rc.Layer(16, activation="gelu", skips={2: "learned"}),
        rc.Layer(5, activation=None),
    ]
    net = rc.Network(16, layers, dtype="float64", seed=3)
    rng = np.random.default_rng(0)
    return net, Twin(net.parameters()), rng.standard_normal((40, 16)), rng.integers(0, 5, 40)


def assert_same(net, twin, bound):
    for name, array in net.parameters().items():
        theirs = twin.w[name.replace(".", "_")].detach().numpy()
        assert np.linalg.norm(array - theirs) <= bound * np.linalg.norm(theirs) + 1e-14, name
    np.testing.assert_allclose(net.buffers()["2.norm.running_mean"], twin.norm_mean.numpy(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(net.buffers()["2.norm.running_var"], twin.norm_var.numpy(), rtol=1e-9)


def test_gradients():
    net, twin, x, y = pair()
    loss, gradients, d_x = net.gradients(x, y)
    tx = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(twin(tx), torch.tensor(y))
    theirs.backward()
    assert abs(loss - theirs.item()) < 1e-13
    np.testing.assert_allclose(d_x, tx.grad.numpy(), rtol=1e-9, atol=1e-13)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, twin.w[name.replace(".", "_")].grad.numpy(), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_twenty_steps(kind):
    net, twin, x, y = pair()
    ours, theirs = {
        "sgd": (
            rc.SGD(lr=0.05, momentum=0.9, weight_decay=0.01),
            torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
        ),
        "adam": (rc.Adam(lr=0.01), torch.optim.Adam(twin.parameters(), lr=0.01)),
        "adamw": (
            rc.AdamW(lr=0.01, weight_decay=0.1),
            torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.1),
        ),
    }[kind]
    trainer = rc.Trainer(net, optimizer=ours)
    for _ in range(20):
        theirs.zero_grad()
        loss = torch.nn.functional.cross_entropy(twin(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        theirs.step()
        assert abs(trainer.step(x, y) - loss.item()) < 1e-9
    assert_same(net, twin, 1e-9)
    twin.eval()
    np.testing.assert_allclose(net(x), twin(torch.tensor(x)).detach().numpy(), rtol=1e-7, atol=1e-9)
