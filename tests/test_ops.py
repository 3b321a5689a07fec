"""The block as pure functions: against the formula, on any layout, and with nothing changed where a call is refused."""

import itertools
from array import array as buffer

import numpy as np
import pytest

import resnetcore as rc
from reference import ACTIVATIONS
from resnetcore import ops


def block(rng, dtype="float64", rows=9, inner=(5, 3), columns=7, identities=2):
    sources = [rng.standard_normal((rows, k)).astype(dtype) for k in inner]
    weights = [rng.standard_normal((k, columns)).astype(dtype) for k in inner]
    bias = rng.standard_normal(columns).astype(dtype)
    identity = [rng.standard_normal((rows, columns)).astype(dtype) for _ in range(identities)]
    return sources, weights, bias, identity


def argument(sources, weights, bias, identity):
    return sum(a @ w for a, w in zip(sources, weights, strict=True)) + bias + sum(identity)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_and_backward_are_the_formulas(rng, activation):
    sources, weights, bias, identity = block(rng)
    z = argument(sources, weights, bias, identity)
    g, derivative = ACTIVATIONS[activation]
    a = ops.residual_forward(sources, weights, bias, identity, activation)
    np.testing.assert_allclose(a, g(z), rtol=1e-12, atol=1e-14)
    grad = rng.standard_normal(z.shape)
    delta = grad * derivative(z)
    d_sources, d_weights, d_bias, d_identity = ops.residual_backward(
        grad, a, sources, weights, bias, identity, activation
    )
    for d, w in zip(d_sources, weights, strict=True):
        np.testing.assert_allclose(d, delta @ w.T, rtol=1e-11, atol=1e-12)
    for d, s in zip(d_weights, sources, strict=True):
        np.testing.assert_allclose(d, s.T @ delta, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(d_bias, delta.sum(axis=0), rtol=1e-11, atol=1e-12)
    for d in d_identity:
        np.testing.assert_allclose(d, delta, rtol=1e-11, atol=1e-12)


def test_update_takes_gradients_first_and_descends(rng):
    sources, weights, bias, identity = block(rng)
    a = ops.residual_forward(sources, weights, bias, identity)
    grad = rng.standard_normal(a.shape)
    d_sources, d_weights, d_bias, d_identity = ops.residual_backward(grad, a, sources, weights, bias, identity)
    expected = [w - 0.1 * d for w, d in zip(weights, d_weights, strict=True)], bias - 0.1 * d_bias
    got_sources, got_identity = ops.residual_update(grad, a, sources, weights, bias, identity, lr=0.1)
    for got, want in zip([*weights, bias], [*expected[0], expected[1]], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-15, atol=1e-16)
    for got, want in zip([*got_sources, *got_identity], [*d_sources, *d_identity], strict=True):
        np.testing.assert_array_equal(got, want)


def layouts(array):
    """The same numbers in other layouts: Fortran order, a step, reversed, unaligned, read-only."""
    wide = np.zeros((array.shape[0] * 2, array.shape[1] * 3), array.dtype)
    wide[::2, ::3] = array
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[:] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    padded = np.zeros((array.shape[0], array.shape[1] + 5), array.dtype)[:, : array.shape[1]]
    padded[:] = array
    return [np.asfortranarray(array), wide[::2, ::3], array[::-1].copy()[::-1], raw, frozen, padded]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layout_gives_the_same_bits(rng, dtype):
    (source,), (weight,), bias, (identity,) = block(rng, dtype, inner=(5,), identities=1)
    exact = ops.residual_forward([source], [weight], bias, [identity])
    for s, w in itertools.product(layouts(source), layouts(weight)):
        np.testing.assert_array_equal(ops.residual_forward([s], [w], bias, [identity]), exact)
    broadcast = np.broadcast_to(source[:1], source.shape)
    np.testing.assert_array_equal(
        ops.residual_forward([broadcast], [weight], bias, [identity]),
        ops.residual_forward([broadcast.copy()], [weight], bias, [identity]),
    )


def test_update_in_strided_weights(rng):
    sources, weights, bias, identity = block(rng)
    a = ops.residual_forward(sources, weights, bias, identity)
    grad = np.ones_like(a)
    strided = [np.asfortranarray(w) for w in weights]
    ops.residual_update(grad, a, sources, strided, bias.copy(), identity)
    ops.residual_update(grad, a, sources, weights, bias.copy(), identity)
    for one, other in zip(strided, weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_rows_give_no_rows(rng):
    weight = rng.standard_normal((4, 3))
    assert ops.residual_forward([np.empty((0, 4))], [weight]).shape == (0, 3)
    d_sources, d_weights, _, _ = ops.residual_backward(np.empty((0, 3)), np.empty((0, 3)), [np.empty((0, 4))], [weight])
    assert d_sources[0].shape == (0, 4)
    np.testing.assert_array_equal(d_weights[0], np.zeros((4, 3)))


def test_out_is_written_and_returned(rng):
    sources, weights, bias, identity = block(rng, "float32")
    out = np.full((9, 12), 5, np.float32)[:, :7]
    assert ops.residual_forward(sources, weights, bias, identity, out=out) is out
    np.testing.assert_array_equal(out, ops.residual_forward(sources, weights, bias, identity))


def test_nan_passes_through(rng):
    sources, weights, bias, identity = block(rng, "float32")
    sources[0][2, 1] = np.nan
    a = ops.residual_forward(sources, weights, bias, identity)
    assert np.isnan(a[2]).all()
    assert np.isfinite(np.delete(a, 2, axis=0)).all()
    with pytest.raises(ValueError, match=r"sources\[0\] holds NaN"):
        ops.residual_forward(sources, weights, bias, identity, check_finite=True)


A, W, B = np.ones((4, 3), "f"), np.ones((3, 2), "f"), np.ones(2, "f")
BAD = {
    "no sources": (lambda: ops.residual_forward([], []), rc.ShapeError, "must not be empty"),
    "fewer weights": (lambda: ops.residual_forward([A, A], [W]), rc.ShapeError, "as many weights"),
    "widths": (
        lambda: ops.residual_forward([A], [np.ones((5, 2), "f")]),
        rc.ShapeError,
        r"sources\[0\] must be \(4, 5\)",
    ),
    "rows": (
        lambda: ops.residual_forward([A, A[:2]], [W, W]),
        rc.ShapeError,
        r"sources\[1\] must be \(4, 3\), got \(2, 3\)",
    ),
    "rank": (lambda: ops.residual_forward([A[0]], [W]), rc.ShapeError, "2 dimensions"),
    "columns": (lambda: ops.residual_forward([A, A], [W, np.ones((3, 1), "f")]), rc.ShapeError, r"weights\[1\]"),
    "bias": (lambda: ops.residual_forward([A], [W], np.ones(3, "f")), rc.ShapeError, "bias must be"),
    "identity": (lambda: ops.residual_forward([A], [W], identity=[A]), rc.ShapeError, r"identity\[0\]"),
    "width 0": (lambda: ops.residual_forward([A[:, :0]], [W[:0]]), rc.ShapeError, "at least 1"),
    "integers": (lambda: ops.residual_forward([A.astype(int)], [W]), rc.DTypeError, "int64"),
    "complex": (lambda: ops.residual_forward([A.astype(complex)], [W]), rc.DTypeError, "complex"),
    "objects": (lambda: ops.residual_forward([A.astype(object)], [W]), rc.DTypeError, "object"),
    "mixed": (lambda: ops.residual_forward([A], [W.astype(float)]), rc.DTypeError, "float64"),
    "byte order": (lambda: ops.residual_forward([A.astype(">f4")], [W]), rc.DTypeError, "byte order"),
    "not an array": (lambda: ops.residual_forward([object()], [W]), rc.DTypeError, "must be an array"),
    "not a list": (lambda: ops.residual_forward(A, [W]), rc.DTypeError, "list or tuple"),
    "activation": (lambda: ops.residual_forward([A], [W], activation="rleu"), ValueError, "known are identity, relu"),
    "out shape": (lambda: ops.residual_forward([A], [W], out=np.ones((4, 3), "f")), rc.ShapeError, "out must be"),
    "out dtype": (lambda: ops.residual_forward([A], [W], out=np.ones((4, 2))), rc.DTypeError, "out must be float32"),
    "out order": (lambda: ops.residual_forward([A], [W], out=np.ones((2, 4), "f").T), rc.ShapeError, "contiguous"),
    "lr 0": (lambda: ops.residual_update(A @ W, A @ W, [A], [W], lr=0.0), ValueError, "lr must be positive"),
    "lr NaN": (lambda: ops.residual_update(A @ W, A @ W, [A], [W], lr=float("nan")), ValueError, "lr must be finite"),
    "lr infinite in float32": (
        lambda: ops.residual_update(A @ W, A @ W, [A], [W], lr=1e39),
        ValueError,
        r"positive and finite in float32, got 1e\+39",
    ),
    "lr zero in float32": (
        lambda: ops.residual_update(A @ W, A @ W, [A], [W], lr=1e-60),
        ValueError,
        "positive and finite in float32",
    ),
    "lr text": (lambda: ops.residual_update(A @ W, A @ W, [A], [W], lr="1"), rc.DTypeError, "lr must be a number"),
    "same weights": (lambda: ops.residual_update(A @ W, A @ W, [A, A], [W, W]), ValueError, "must not overlap"),
    "grad": (lambda: ops.residual_backward(A, A @ W, [A], [W]), rc.ShapeError, "grad must be"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_change_nothing(name):
    call, error, message = BAD[name]
    before = A.copy(), W.copy(), B.copy()
    with pytest.raises(error, match=message):
        call()
    for array, copy in zip((A, W, B), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_overlapping_and_read_only_outputs(rng):
    memory = np.ones((8, 3), np.float32)
    with pytest.raises(ValueError, match="overlap"):
        ops.residual_forward([memory[:4]], [np.ones((3, 3), "f")], out=memory[2:6])
    assert (memory == 1).all()
    frozen = np.ones((3, 2), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ops.residual_update(A @ W, A @ W, [A], [frozen])
    out = np.ones((4, 2), np.float32)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        ops.residual_forward([A], [W], out=out)


def test_torch_tensors_are_read_in_place_and_returned():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    a, w = torch.ones(4, 3), torch.ones(3, 2)
    result = ops.residual_forward([a], [w])
    assert isinstance(result, torch.Tensor)
    assert torch.equal(result, torch.full((4, 2), 3.0))
    ops.residual_update(torch.ones(4, 2), result, [a], [w], lr=0.5)
    assert torch.equal(w, torch.full((3, 2), -1.0))
    with pytest.raises(rc.DTypeError):
        ops.residual_forward([a.to(torch.bfloat16)], [w.to(torch.bfloat16)])


def test_what_is_written_to_must_be_the_callers_memory():
    x, w, grad = np.ones((3, 4), "f4"), np.ones((4, 2), "f4"), np.ones((3, 2), "f4")

    class Copies:
        def __array__(self, dtype=None, copy=None):
            return np.ones((4, 2), "f4")

    for bad in ([[0.0, 0.0]] * 3, Copies()):
        with pytest.raises(rc.DTypeError, match="out is written to"):
            rc.ops.residual_forward([x], [w], out=bad)
    a = rc.ops.residual_forward([x], [w])
    with pytest.raises(rc.DTypeError, match=r"weights\[0\] is written to"):
        rc.ops.residual_update(grad, a, [x], [Copies()])
    bias = np.ones(2, "f4")
    bias.flags.writeable = False
    with pytest.raises(ValueError, match="bias is written to, and it is read-only"):
        rc.ops.residual_update(grad, a, [x], [w], bias)
    rc.ops.residual_update(grad, a, [x], [w], lr=np.int64(1))


class Producer:
    """Speaks DLPack, and copies unless it is told not to; its `to_numpy` copies in any case."""

    def __init__(self, values):
        self.values = values

    def to_numpy(self):
        return self.values.copy()

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, *, copy=None, **arguments):
        return (self.values if copy is False else self.values.copy()).__dlpack__(**arguments)


class OldProducer(Producer):
    """Knows no question about copies."""

    def __dlpack__(self, *, max_version=None):
        return self.values.__dlpack__(max_version=max_version)


@pytest.mark.parametrize("kind", [Producer, OldProducer, memoryview])
def test_the_callers_memory_is_written_to(kind):
    weight, bias, out = W.copy(), B.copy(), np.zeros((4, 2), "f")
    a = ops.residual_forward([A], [W], out=kind(out))
    assert isinstance(a, kind)
    np.testing.assert_array_equal(out, A @ W)
    ops.residual_update(A @ W, A @ W, [A], [kind(weight)], kind(bias))
    assert (weight < W).all() and (bias < B).all()


def test_buffers_of_the_standard_library():
    bias = buffer("f", B)
    ops.residual_update(A @ W, A @ W, [A], [W.copy()], bias)
    assert max(bias) < 1
    with pytest.raises(ValueError, match="bias is written to, and it is read-only"):
        ops.residual_update(A @ W, A @ W, [A], [W.copy()], memoryview(B).toreadonly())


def test_an_element_is_updated_once():
    memory = np.ones(16, np.float32)
    repeated = np.lib.stride_tricks.as_strided(memory, (3, 2), (0, 4))
    unaligned = memory.view(np.uint8)[1:25].view(np.float32).reshape(3, 2)
    for weight in (repeated, unaligned):
        with pytest.raises(rc.ShapeError, match=r"weights\[0\] must be aligned and have each element once"):
            ops.residual_update(A @ W, A @ W, [A], [weight])
    assert (memory == 1).all()


def test_where_a_common_element_is_too_hard_to_find_there_may_be_one():
    # The example of numpy.shares_memory's documentation, which would take minutes.
    memory = np.zeros(192163377, np.int8)
    first = np.lib.stride_tricks.as_strided(memory, (1049, 1049, 1049), (36674, 61119, 85569))
    second = np.lib.stride_tricks.as_strided(memory[64023025:], (1049, 1049, 1), (12223, 12224, 1))
    assert ops._overlap(first, second)


def test_memory_between_an_inputs_is_not_an_inputs():
    big, w = np.zeros((3, 6), "f4"), np.ones((4, 2), "f4")
    big[:, :4] = 1
    assert np.array_equal(rc.ops.residual_forward([big[:, :4]], [w], out=big[:, 4:]), np.full((3, 2), 4.0))
    with pytest.raises(ValueError, match="overlap"):
        rc.ops.residual_forward([big[:, :4]], [w], out=big[:, 3:5])
    both = np.ones((3, 4), np.float32)
    ops.residual_update(A @ W, A @ W, [A, A], [both[:, :2], both[:, 2:]])
    assert (both < 1).all()
