"""One step changes the weights by the formula of its optimizer, and nothing that is fixed."""

import numpy as np
import pytest

import resnetcore as rc
from reference import Optimizer


def case(dtype="float64"):
    rng = np.random.default_rng(0)
    fixed = rng.standard_normal((6, 9))
    layers = [
        rc.Layer(9, norm="batch"),
        rc.Layer(9, skips={2: fixed}),
        rc.Layer(9, skips={2: "identity", 3: "learned"}),
        rc.Layer(3, activation=None),
    ]
    return rc.Network(6, layers, dtype=dtype), rng.standard_normal((20, 6)).astype(dtype), rng.integers(0, 3, 20)


@pytest.mark.parametrize(
    ("ours", "settings"),
    [
        (rc.SGD(lr=0.1, momentum=0.0), {"name": "sgd"}),
        (rc.SGD(lr=0.1, momentum=0.9, nesterov=True), {"name": "sgd", "momentum": 0.9, "nesterov": True}),
        (rc.Adam(lr=0.1), {"name": "adam"}),
        (rc.AdamW(lr=0.1, weight_decay=0.1), {"name": "adamw", "weight_decay": 0.1}),
    ],
    ids=["sgd", "nesterov", "adam", "adamw"],
)
def test_one_step(ours, settings):
    net, x, y = case()
    before, buffers = net.parameters(), net.buffers()
    _, gradients, _ = net.gradients(x, y)
    rc.Trainer(net, optimizer=ours).step(x, y)
    expected = Optimizer(**settings).step(before, gradients, 0.1)
    for name, array in net.parameters().items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-13, atol=1e-15, err_msg=name)
    assert np.array_equal(net.buffers()["2.skip.2.weight"], buffers["2.skip.2.weight"])


def test_every_norm_of_many_is_updated(place):
    layers = [rc.Layer(4, norm="batch", activation="tanh") for _ in range(70)] + [rc.Layer(2, activation=None)]
    net = rc.Network(3, layers, device=place)
    before = {**net.parameters(), **net.buffers()}
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)).astype("float32"), rng.integers(0, 2, 20)
    rc.Trainer(net, optimizer=rc.SGD(lr=1e-3, momentum=0.0)).step(x, y)
    after = {**net.parameters(), **net.buffers()}
    norms = [name for name in before if "norm" in name or "running" in name]
    assert len(norms) == 4 * 70
    assert [name for name in norms if np.array_equal(before[name], after[name])] == []


def test_descent_and_gradients_taken_first():
    rng = np.random.default_rng(1)
    x, w, b = rng.standard_normal((5, 4)), rng.standard_normal((4, 3)), rng.standard_normal(3)
    grad = rng.standard_normal((5, 3))
    a = rc.ops.residual_forward([x], [w], b)
    delta = grad * (a > 0)
    new_w, new_b = w.copy(), b.copy()
    d_sources, _ = rc.ops.residual_update(grad, a, [x], [new_w], new_b, lr=0.5)
    np.testing.assert_allclose(new_w, w - 0.5 * x.T @ delta, rtol=1e-12)
    np.testing.assert_allclose(new_b, b - 0.5 * delta.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(d_sources[0], delta @ w.T, rtol=1e-12, atol=1e-14)


def test_predictions_follow_every_change():
    # Inference folds a norm into its weights: the fold must not outlive them.
    net, x, y = case()
    trainer = rc.Trainer(net)
    net(x)
    for change in (lambda: trainer.step(x, y), lambda: net.set_parameters({"1.norm.running_mean": np.full(9, 0.5)})):
        change()
        assert np.array_equal(net(x), net.copy()(x))
        assert np.array_equal(trainer.evaluate(x, y)["loss"], rc.Trainer(net.copy()).evaluate(x, y)["loss"])
