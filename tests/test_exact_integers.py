"""Small integers in float32 have one right answer: 0 differing bits, at every tail shape."""

import ml_dtypes
import numpy as np
import pytest

import resnetcore as rc

SIZES = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65]


def integers(rng, *shape):
    return rng.integers(-3, 4, shape).astype("float32")


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("rows", SIZES)
def test_every_tail(rows, columns, dtype):
    """Inputs have few bits and float32 holds every sum: in bfloat16 results are those sums, rounded once."""
    rng = np.random.default_rng([rows, columns])

    def stored(*arrays):
        return [array.astype(dtype) for array in arrays]

    for inner in (1, 7, 16, 33):
        sources = [integers(rng, rows, inner), integers(rng, rows, columns)]
        weights = [integers(rng, inner, columns), integers(rng, columns, columns)]
        bias, identity, grad = integers(rng, columns), integers(rng, rows, columns), integers(rng, rows, columns)
        z = sources[0] @ weights[0] + sources[1] @ weights[1] + bias + identity
        arguments = stored(*sources), stored(*weights), *stored(bias), stored(identity)
        a, wide = rc.ops.residual_forward(*arguments), np.empty_like(z)
        rc.ops.residual_forward(*arguments, out=wide)
        assert np.array_equal(wide, np.maximum(z, 0))
        assert np.array_equal(a, wide.astype(dtype)) and a.dtype == dtype
        delta = grad * (z > 0)
        d_sources, d_weights, d_bias, d_identity = rc.ops.residual_backward(grad.astype(dtype), a, *arguments)
        for k in range(2):
            assert np.array_equal(d_sources[k], (delta @ weights[k].T).astype(dtype))
            assert np.array_equal(d_weights[k], (sources[k].T @ delta).astype(dtype))
        assert np.array_equal(d_bias, delta.sum(axis=0).astype(dtype))
        assert np.array_equal(d_identity[0], delta.astype(dtype))


@pytest.mark.parametrize("width", SIZES)
def test_a_network_of_integers(width):
    rng = np.random.default_rng(width)
    net = rc.Network(width, [rc.Layer(width), rc.Layer(width, skips={2: "identity"})])
    arrays = {name: rng.integers(-1, 2, a.shape).astype("float32") for name, a in net.parameters().items()}
    net.set_parameters(arrays)
    for rows in (1, 6, 17, 33):
        x = integers(rng, rows, width)
        a = np.maximum(x @ arrays["1.weight"] + arrays["1.bias"], 0)
        expected = np.maximum(a @ arrays["2.weight"] + arrays["2.bias"] + x, 0)
        assert np.array_equal(net(x), expected)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_sources_of_which_the_narrower_takes_more_rows_at_once(dtype):
    """Rows are laid out in room that all sources of a block share."""
    rng = np.random.default_rng(5)
    sources = [integers(rng, 600, inner) for inner in (1024, 3072)]
    weights = [integers(rng, inner, 40) for inner in (1024, 3072)]
    grad = integers(rng, 600, 40)
    arguments = [s.astype(dtype) for s in sources], [w.astype(dtype) for w in weights], None, []
    a = np.ones((600, 40), dtype)
    _, d_weights, _, _ = rc.ops.residual_backward(grad.astype(dtype), a, *arguments)
    for k in range(2):
        assert np.array_equal(d_weights[k], (sources[k].T @ grad).astype(dtype))
