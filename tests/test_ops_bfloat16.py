"""The block in bfloat16: sums are float32's, each result is rounded once, and every kind of array comes back as itself."""

import sys

import ml_dtypes
import numpy as np
import pytest

import resnetcore as rc
from reference import ACTIVATIONS, FROM_OUTPUT, distance, rounded
from resnetcore import ops

BFLOAT16 = ml_dtypes.bfloat16
SHAPES = [(1, (1,), 1), (9, (5, 3), 7), (40, (65,), 33), (131, (64, 31), 48)]
NORM, COMPONENT = 2e-6, 16 * 2.0**-24  # of float32 sums: docs/math.md, "Accuracy"
ROUNDED_NORM = 2e-3


def block(rows, inner, columns, seed=0):
    """Arguments in bfloat16, and the same numbers in float64."""
    rng = np.random.default_rng([seed, rows, columns])
    shapes = [(rows, k) for k in inner], [(k, columns) for k in inner], [(columns,)], [(rows, columns)] * 2
    narrow = [[rng.standard_normal(shape).astype(BFLOAT16) for shape in group] for group in shapes]
    exact = [[array.astype(np.float64) for array in group] for group in narrow]
    return [(*group[:2], group[2][0], group[3]) for group in (narrow, exact)]


def argument(sources, weights, bias, identity):
    """z, and the size of its terms."""
    z = sum(a @ w for a, w in zip(sources, weights, strict=True)) + bias + sum(identity)
    size = sum(abs(a) @ abs(w) for a, w in zip(sources, weights, strict=True)) + abs(bias) + sum(map(abs, identity))
    return z, size


def half_ulp(exact):
    """Half the distance of two bfloat16 numbers of this size."""
    return 2.0 ** (np.floor(np.log2(np.maximum(abs(exact), 2.0**-126))) - 8)


def assert_rounded_once(got, exact, size):
    """`got` is bfloat16, of sums in float32 whose terms are of `size`."""
    error = abs(got.astype(np.float64) - exact)
    # A sum just below a power of two may be rounded as one just above.
    allowed = half_ulp(abs(exact) + COMPONENT * size) + COMPONENT * size
    assert got.dtype == BFLOAT16
    assert (error <= allowed).all(), (error / allowed).max()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_within_the_promised_bounds(place, activation, shape):
    narrow, exact = block(*shape)
    truth = ACTIVATIONS[activation][0](argument(*exact)[0])
    a, wide = ops.residual_forward(*narrow, activation, device=place), np.empty(truth.shape, np.float32)
    assert ops.residual_forward(*narrow, activation, out=wide, device=place) is wide
    assert distance(wide, truth) < NORM
    assert np.array_equal(a, wide.astype(BFLOAT16)) and a.dtype == BFLOAT16
    if truth.size > 1:
        assert distance(a, truth) < ROUNDED_NORM


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_rounded_once(place, activation, shape):
    """Also where g′ needs the argument, which is taken again, and not rounded on the way."""
    narrow, exact = block(*shape)
    sources, weights, *_ = exact
    z, size = argument(*exact)
    a = ops.residual_forward(*narrow, activation, device=place)
    grad = np.random.default_rng(1).standard_normal(z.shape).astype(BFLOAT16)
    slope = FROM_OUTPUT[activation](a.astype(float)) if activation in FROM_OUTPUT else ACTIVATIONS[activation][1](z)
    truth = grad.astype(float) * slope
    d_sources, d_weights, d_bias, (delta, same) = ops.residual_backward(grad, a, *narrow, activation, device=place)
    # |g″| is below 1.2 for every activation that is taken of z.
    assert_rounded_once(delta, truth, abs(grad.astype(float)) * (1.2 * size + 4))
    assert np.array_equal(delta, same) and not np.shares_memory(delta, same)
    # Products are of δ as it is rounded, which it is not for g′ of zeros and ones.
    delta = delta.astype(float)
    sums = [
        *zip(d_sources, [delta @ w.T for w in weights], [abs(delta) @ abs(w.T) for w in weights], strict=True),
        *zip(d_weights, [s.T @ delta for s in sources], [abs(s.T) @ abs(delta) for s in sources], strict=True),
        (d_bias, delta.sum(axis=0), abs(delta).sum(axis=0)),
    ]
    for got, of_delta, of_terms in sums:
        assert_rounded_once(got, of_delta, of_terms)
    if activation in ("relu", "identity"):
        assert np.array_equal(delta, truth)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_is_rounded_once(place, shape):
    """W − lr·dW of a float32 dW: rounding dW first would move one weight in a few."""
    narrow, exact = block(*shape)
    grad = np.random.default_rng(1).standard_normal((shape[0], shape[2])).astype(BFLOAT16)
    a = ops.residual_forward(*narrow)
    delta = grad.astype(float) * (a.astype(float) > 0)
    sources, weights, bias, identity = narrow
    expected = ops.residual_backward(grad, a, *narrow, device=place)
    d_sources, d_identity = ops.residual_update(grad, a, *narrow, lr=0.5, device=place)
    for got, want in zip([*d_sources, *d_identity], [*expected[0], *expected[3]], strict=True):
        assert np.array_equal(got, want)
    for w, before, s in zip([*weights, bias], [*exact[1], exact[2]], [*exact[0], np.ones((len(a), 1))], strict=True):
        step = 0.5 * (s.T @ delta).reshape(before.shape)
        assert_rounded_once(w, before - step, abs(before) + 0.5 * (abs(s.T) @ abs(delta)).reshape(before.shape))
        other_way = (w.astype(float) != rounded(before - step)).mean()
        assert other_way < 0.02  # float32 and float64 sums on two sides of a tie
        if w.size > 1000:
            assert (rounded(before - step) != rounded(before - rounded(step))).mean() > 0.05
    for got, want in zip(sources + identity, exact[0] + exact[3], strict=True):
        assert np.array_equal(got.astype(float), want)


@pytest.mark.parametrize("inner", [1, 2, 3, 257])
def test_the_sign_of_a_zero_does_not_depend_on_the_batch(inner):
    # Products that are too small for a number: some sums are of terms that are all -0.
    a, w = np.full((49, inner), 1e-30, ml_dtypes.bfloat16), np.full((inner, 16), -1e-30, ml_dtypes.bfloat16)
    whole = ops.residual_forward([a], [w], None, [], None)
    signs = np.signbit(whole.astype("float32"))
    assert (signs == signs[0]).all()
    for rows in (1, 4, 5, 6):
        one = ops.residual_forward([a[:rows]], [w], None, [], None)
        np.testing.assert_array_equal(np.signbit(one.astype("float32")), signs[:rows])


def test_a_step_below_half_the_last_place_is_lost():
    w = np.ones((1, 1), BFLOAT16)
    one = np.ones((1, 1), BFLOAT16)
    ops.residual_update(one, one, [one], [w], lr=2.0**-9)  # half way from 1 to the number below it: to even
    assert w == 1
    ops.residual_update(one, one, [one], [w], lr=2.0**-8)
    assert w == 1 - 2.0**-8


def in_torch(array):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)


def in_jax(array):
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    return jnp.asarray(array)


def as_numpy(array):
    return np.asarray(array if not hasattr(array, "float") else array.float().numpy()).astype(BFLOAT16)


@pytest.mark.parametrize("kind", [in_torch, in_jax])
def test_each_library_gets_its_own_arrays(kind):
    (sources, weights, bias, identity), _ = block(*SHAPES[1])
    theirs = [*map(kind, sources)], [*map(kind, weights)], kind(bias), [*map(kind, identity)]
    a, expected = ops.residual_forward(*theirs), ops.residual_forward(sources, weights, bias, identity)
    backward = ops.residual_backward(a, a, *theirs)
    of_numpy = ops.residual_backward(expected, expected, sources, weights, bias, identity)
    got = [a, *backward[0], *backward[1], backward[2], *backward[3]]
    want = [expected, *of_numpy[0], *of_numpy[1], of_numpy[2], *of_numpy[3]]
    for ours, numpys in zip(got, want, strict=True):
        assert type(ours) is type(theirs[2]) and ours.dtype == theirs[2].dtype
        assert np.array_equal(as_numpy(ours), numpys)


def test_torch_tensors_are_read_and_written_in_place():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    (sources, weights, bias, identity), _ = block(*SHAPES[2])
    w, b = in_torch(weights[0]).T.contiguous().T, in_torch(bias)
    x, skips = in_torch(sources[0]), [*map(in_torch, identity)]
    wide, narrow = torch.zeros(40, 33), torch.zeros(40, 50, dtype=torch.bfloat16)[:, :33]
    for out in (wide, narrow):
        assert ops.residual_forward([x], [w], b, skips, out=out) is out
    assert torch.equal(wide.to(torch.bfloat16), narrow) and wide.any()
    ops.residual_update(narrow, narrow, [x], [w], b, skips)
    ops.residual_update(as_numpy(narrow), as_numpy(narrow), sources, weights, bias, identity)
    assert np.array_equal(as_numpy(w), weights[0]) and np.array_equal(as_numpy(b), bias)


def test_jax_arrays_are_never_written_to():
    pytest.importorskip("jax", reason="JAX is not installed")
    (sources, weights, *_), _ = block(*SHAPES[1])
    a = ops.residual_forward(sources, weights)
    with pytest.raises(ValueError, match=r"weights\[1\] is written to, and it is read-only: .* without a version"):
        ops.residual_update(a, a, sources, [weights[0], in_jax(weights[1])])


def test_a_float32_out_may_not_overlap_an_input():
    memory = np.zeros((4, 6), BFLOAT16)
    with pytest.raises(ValueError, match="overlap"):
        ops.residual_forward([memory], [np.ones((6, 3), BFLOAT16)], out=memory.view(np.float32))
    with pytest.raises(rc.DTypeError, match="out must be float32 as the inputs are, got bfloat16"):
        ops.residual_forward([np.ones((4, 6), "f")], [np.ones((6, 3), "f")], out=np.ones((4, 3), BFLOAT16))


def test_where_nobody_can_hold_the_result(monkeypatch):
    """An array of an unknown library is no reason to import one; what is written to is the caller's own."""

    class Offering:
        def __init__(self, tensor):
            self.tensor, self.__dlpack__, self.__dlpack_device__ = tensor, tensor.__dlpack__, tensor.__dlpack_device__

    (sources, weights, *_), _ = block(4, (3,), 2)
    x, w = Offering(in_torch(sources[0])), Offering(in_torch(weights[0]))
    expected, out = ops.residual_forward(sources, weights), np.zeros((4, 2), np.float32)
    assert np.array_equal(ops.residual_forward([x], [w]), expected)
    monkeypatch.delitem(sys.modules, "ml_dtypes")
    assert np.array_equal(ops.residual_forward([x], [w], out=out).astype(BFLOAT16), expected)
    y = Offering(in_torch(expected))
    calls = [
        lambda: ops.residual_forward([x], [w]),
        lambda: ops.residual_backward(y, y, [x], [w]),
        lambda: ops.residual_update(y, y, [x], [w]),
    ]
    for call in calls:
        with pytest.raises(
            rc.DTypeError, match=r"sources\[0\] is bfloat16 in an array of type Offering, .* import ml_dtypes"
        ):
            call()
    assert np.array_equal(as_numpy(w.tensor), weights[0])
