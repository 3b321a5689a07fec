"""Random numbers by counter: the published words, and the library's weights, masks and shuffles made of them."""

import numpy as np
import pytest

import resnetcore as rc
from reference import dropout_mask, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (2**64 - 1, 2**32 - 1, 2**32 - 1),
            2**64 - 1,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x85A308D3243F6A88, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_published_words(counter, key, expected):
    # Random123's known answers for Philox4x32-10 (Salmon et al. 2011). `index` counts words: a block is four.
    block, purpose, step = counter
    words = [int(philox_block(key, purpose, step, block)[i]) for i in range(4)]
    assert words == list(expected)


def philox_block(key, purpose, step, block):
    if block < 2**62:
        return philox(key, purpose, step, 4 * block + np.arange(4))
    # The reference's word numbers are 64-bit: blocks beyond them are reached by their own counter.
    return philox(key, purpose, step, np.arange(4), block=block)


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 3])
def test_initial_weights(seed):
    net = rc.Network(7, [rc.Layer(9), rc.Layer(5, activation="tanh", bias=False)], seed=seed, dtype="float64")
    names = list(net.parameters())
    scales = {"1.weight": np.sqrt(2 / 7), "2.weight": np.sqrt(2 / (9 + 5))}  # He et al. 2015; Glorot & Bengio 2010
    for name, scale in scales.items():
        got = net.parameters()[name]
        index = np.arange(got.size, dtype=np.uint64)
        u = (philox(seed, 0, names.index(name), 2 * index) + 0.5) / 2.0**32
        v = philox(seed, 0, names.index(name), 2 * index + 1) / 2.0**32
        normal = np.sqrt(-2 * np.log(u)) * np.cos(2 * np.pi * v)  # Box & Muller 1958
        np.testing.assert_allclose(got.ravel(), scale * normal, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize("branch", [0, 1])
def test_dropout_masks(branch, step):
    option = {"branch_dropout" if branch else "dropout": 0.3}
    net = rc.Network(11, [rc.Layer(11, activation=None, bias=False, **option)], seed=5, dtype="float64")
    net.set_parameters({"1.weight": np.eye(11)})
    x, y = np.ones((40, 11)), np.zeros((40, 11))
    _, _, d_x = net.gradients(x, y, "mse", step=step)
    mask = dropout_mask(5, 1, branch, step, x.shape, 0.3)
    # ∂(mean of (m·x)²)/∂x = 2·m²·x / n
    np.testing.assert_allclose(d_x, 2 * mask**2 / x.size, rtol=1e-12)
    assert set(np.unique(mask > 0)) == {False, True}
