"""Builders make the topologies they are named after, and start stable at any depth."""

import numpy as np
import pytest

import resnetcore as rc

BUILDERS = ["plain", "resnet", "highway", "gated_highway", "densenet", "preact_resnet", "tabular_resnet"]


def skips(net):
    return [dict(layer.skips) for layer in net.layers]


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("depth", [4, 8, 50])
def test_depth_counts_layers_with_weights(name, depth):
    net = getattr(rc.models, name)(7, 3, 8, depth, seed=1)
    assert len(net.layers) == depth
    assert (net.inputs, net.outputs) == (7, 3)
    assert net.predict(np.zeros((2, 7), np.float32)).shape == (2, 3)
    assert net.layers[-1].activation == "identity" or net.layers[-1].pre


@pytest.mark.parametrize("name", BUILDERS)
def test_same_seed_same_weights(name):
    one, same, other = (getattr(rc.models, name)(7, 3, 8, 6, seed=s).parameters() for s in (1, 1, 2))
    assert all(np.array_equal(one[k], same[k]) for k in one)
    assert not np.array_equal(one["1.weight"], other["1.weight"])


@pytest.mark.parametrize("name", BUILDERS)
def test_precision_of_products(name):
    build = getattr(rc.models, name)
    assert build(7, 3, 8, 6).matmul_precision == rc.get_matmul_precision()
    assert build(7, 3, 8, 6, matmul_precision="high").matmul_precision == "high"
    with pytest.raises(ValueError, match="matmul_precision"):
        build(7, 3, 8, 6, matmul_precision="exact")


@pytest.mark.gpu
@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_weights_on_every_device(name, device):
    here, there = (getattr(rc.models, name)(7, 3, 8, 6, seed=1, device=where) for where in ("cpu", device))
    assert there.device == device
    for key, value in here.parameters().items():
        assert np.array_equal(there.parameters()[key], value), key


def test_resnet_blocks_of_two():
    assert skips(rc.models.resnet(7, 3, 8, 6)) == [{}, {}, {2: "identity"}, {}, {2: "identity"}, {}]


def test_resnet_blocks_of_three_and_what_is_left_over():
    expected = [{}, {}, {}, {}, {3: "identity"}, {}, {}, {3: "identity"}, {}]
    assert skips(rc.models.resnet(7, 3, 8, 9, block=3)) == expected


def test_resnet_bottleneck():
    net = rc.models.resnet(7, 3, 8, 5, block=3, bottleneck=2)
    assert [layer.width for layer in net.layers] == [8, 2, 2, 8, 3]


def test_sliding_skips():
    expected = [{}, {}, {2: "identity"}, {2: "identity"}, {2: "identity"}, {}]
    assert skips(rc.models.resnet(7, 3, 8, 6, pattern="sliding")) == expected
    assert skips(rc.models.resnet(7, 3, 8, 3, block=3, pattern="sliding")) == [{}, {}, {}]


def test_skips_of_the_same_origin():
    expected = [{}, {}, {2: "learned"}, {3: "learned"}, {4: "learned"}, {}]
    assert skips(rc.models.highway(7, 3, 8, 6, pattern="same_origin")) == expected


def test_densenet_reads_the_last_layers():
    net = rc.models.densenet(7, 3, 8, 6, reach=3)
    assert skips(net) == [{}, {2: "learned"}, *[{2: "learned", 3: "learned"}] * 3, {}]
    assert net.parameters()["2.skip.2.weight"].shape == (7, 8)


def test_gated_highway_carries_at_first():
    net = rc.models.gated_highway(7, 3, 8, 5, gate_bias=-3.0)
    assert [layer.gate for layer in net.layers] == [False, True, True, True, False]
    assert (net.parameters()["3.gate.bias"] == -3).all()


def test_residual_blocks_start_as_the_identity():
    """gamma = 0 after the weight; a zero weight where the norm stands before it."""
    X = np.random.default_rng(0).standard_normal((16, 7)).astype(np.float32)
    for build in (rc.models.resnet, rc.models.preact_resnet):
        net = build(7, 3, 8, 10, norm="batch")
        activations = net._core.activations(X, True)
        for number in (3, 5, 7, 9):
            np.testing.assert_allclose(activations[str(number)], activations[str(number - 2)], atol=1e-7)


def test_every_zero_start_can_learn():
    """The array that starts at zero has a gradient, so that a block does not stay the identity."""
    X = np.random.default_rng(0).standard_normal((16, 7)).astype(np.float32)
    y = np.arange(16) % 3
    gradients = rc.models.resnet(7, 3, 8, 10, norm="batch").gradients(X, y)[1]
    assert all(gradients[f"{n}.norm.weight"].any() for n in (3, 5, 7, 9))
    gradients = rc.models.preact_resnet(7, 3, 8, 10).gradients(X, y)[1]
    assert all(gradients[f"{n}.weight"].any() for n in (3, 5, 7, 9))


@pytest.mark.parametrize("pattern", ["blocks", "sliding", "same_origin"])
@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("name", ["resnet", "highway"])
def test_patterns_are_stable_at_any_depth(name, norm, pattern):
    check_stable(getattr(rc.models, name)(32, 10, 32, 100, norm=norm, pattern=pattern, seed=3))


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("name", ["gated_highway", "densenet", "preact_resnet", "tabular_resnet"])
def test_others_are_stable_at_any_depth(name, norm):
    check_stable(getattr(rc.models, name)(32, 10, 32, 100, norm=norm, seed=3))


@pytest.mark.parametrize("depth", [10, 50, 400])
@pytest.mark.parametrize("reach", [2, 4])
def test_densenets_with_norms_are_of_one_size_at_any_depth(reach, depth):
    """In inference too, where at the start no statistics hold a normalised path's size."""
    net = rc.models.densenet(32, 10, 64, depth, reach=reach, norm="batch", seed=1)
    X = np.random.default_rng(0).standard_normal((128, 32)).astype(np.float32)
    for training in (True, False):
        activations = net._core.activations(X, training)
        sizes = [float(np.sqrt(np.mean(np.square(activations[str(n)])))) for n in range(1, depth)]
        assert 0.02 < min(sizes)  # 400 random factors of a narrow network drift
        assert max(sizes) < 10


def check_stable(net):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((64, 32)).astype(np.float32)
    activations = net._core.activations(X, True)
    sizes = [float(np.sqrt(np.mean(np.square(activations[str(n)])))) for n in range(1, 100)]
    assert min(sizes) > 0.03
    assert max(sizes) < 30
    loss, gradients, _ = net.gradients(X, rng.integers(0, 10, 64))
    assert loss < 20
    assert 1e-4 < np.linalg.norm(gradients["1.weight"]) < 1e3


def test_tabular_resnet_is_the_papers():
    """a + linear(relu(linear(norm(a)))), then linear(relu(norm(a))), by NumPy."""
    net = rc.models.tabular_resnet(5, 3, 4, 4, hidden=6, dropout=0.5, seed=2, dtype="float64")
    p = net.parameters()
    X = np.random.default_rng(0).standard_normal((10, 5))

    def norm(a):  # of inference, at the start: mean 0, variance 1
        return a / np.sqrt(1 + 1e-5)

    a = X @ p["1.weight"] + p["1.bias"]
    hidden = np.maximum(norm(a) @ p["2.weight"] + p["2.bias"], 0)
    a = a + hidden @ p["3.weight"] + p["3.bias"]
    expected = np.maximum(norm(a), 0) @ p["4.weight"] + p["4.bias"]
    np.testing.assert_allclose(net.predict(X), expected, rtol=1e-12)


@pytest.mark.parametrize("name", BUILDERS)
def test_builders_train_in_double_precision_too(name):
    net = getattr(rc.models, name)(7, 3, 8, 6, dtype="float64")
    assert net.dtype == np.float64


@pytest.mark.parametrize(
    "build, error, words",
    [
        (lambda m: m.plain(7, 3, 8, 1), ValueError, "at least 2"),
        (lambda m: m.resnet(7, 3, 8, 3), ValueError, "at least 4"),
        (lambda m: m.resnet(7, 3, 8, 9, block=4), ValueError, "2 or 3"),
        (lambda m: m.resnet(7, 3, 8, 9, pattern="zigzag"), ValueError, "zigzag.*blocks, sliding, same_origin"),
        (lambda m: m.resnet(7, 3, 8, 9, pattern="sliding", bottleneck=2), rc.ShapeError, "bottleneck"),
        (lambda m: m.resnet(7, 3, 8, 9.0), rc.DTypeError, "depth must be an int"),
        (lambda m: m.densenet(7, 3, 8, 9, reach=1), ValueError, "reach"),
        (lambda m: m.tabular_resnet(7, 3, 8, 9), ValueError, "even"),
        (lambda m: m.plain(7, 3, 0, 4), rc.ShapeError, "width"),
        (lambda m: m.plain(7, 3, 8, 4, activation="rellu"), ValueError, "rellu.*relu"),
    ],
)
def test_bad_arguments(build, error, words):
    with pytest.raises(error, match=words):
        build(rc.models)
