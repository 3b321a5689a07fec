"""The block as pure functions: against the formula, on any layout, and with nothing changed where a call is refused."""

import itertools
from array import array as buffer

import ml_dtypes
import numpy as np
import pytest

import capsules
import resnetcore as rc
from reference import ACTIVATIONS
from resnetcore import ops
from resnetcore._blocks import overlap

BFLOAT16 = ml_dtypes.bfloat16
DTYPES = ["float32", "float64", BFLOAT16]


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
def test_forward_and_backward_are_the_formulas(rng, place, activation):
    sources, weights, bias, identity = block(rng)
    z = argument(sources, weights, bias, identity)
    g, derivative = ACTIVATIONS[activation]
    a = ops.residual_forward(sources, weights, bias, identity, activation, device=place)
    np.testing.assert_allclose(a, g(z), rtol=1e-12, atol=1e-14)
    grad = rng.standard_normal(z.shape)
    delta = grad * derivative(z)
    d_sources, d_weights, d_bias, d_identity = ops.residual_backward(
        grad, a, sources, weights, bias, identity, activation, device=place
    )
    for d, w in zip(d_sources, weights, strict=True):
        np.testing.assert_allclose(d, delta @ w.T, rtol=1e-11, atol=1e-12)
    for d, s in zip(d_weights, sources, strict=True):
        np.testing.assert_allclose(d, s.T @ delta, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(d_bias, delta.sum(axis=0), rtol=1e-11, atol=1e-12)
    for d in d_identity:
        np.testing.assert_allclose(d, delta, rtol=1e-11, atol=1e-12)


def test_update_takes_gradients_first_and_descends(rng, place):
    sources, weights, bias, identity = block(rng)
    a = ops.residual_forward(sources, weights, bias, identity)
    grad = rng.standard_normal(a.shape)
    d_sources, d_weights, d_bias, d_identity = ops.residual_backward(
        grad, a, sources, weights, bias, identity, device=place
    )
    expected = [w - 0.1 * d for w, d in zip(weights, d_weights, strict=True)], bias - 0.1 * d_bias
    got_sources, got_identity = ops.residual_update(grad, a, sources, weights, bias, identity, lr=0.1, device=place)
    for got, want in zip([*weights, bias], [*expected[0], expected[1]], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-15, atol=1e-16)
    for got, want in zip([*got_sources, *got_identity], [*d_sources, *d_identity], strict=True):
        np.testing.assert_array_equal(got, want)


def layouts(array):
    """The same numbers in other layouts: Fortran order, a step, reversed, unaligned, read-only."""
    wide = np.zeros((array.shape[0] * 2, array.shape[1] * 3), array.dtype)
    wide[::2, ::3] = array
    frozen = array.copy()
    frozen.flags.writeable = False
    padded = np.zeros((array.shape[0], array.shape[1] + 5), array.dtype)[:, : array.shape[1]]
    padded[:] = array
    return [np.asfortranarray(array), wide[::2, ::3], array[::-1].copy()[::-1], unaligned(array), frozen, padded]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_gives_the_same_bits(rng, place, dtype):
    (source,), (weight,), bias, (identity,) = block(rng, dtype, inner=(5,), identities=1)
    exact = ops.residual_forward([source], [weight], bias, [identity], device=place)
    for s, w in itertools.product(layouts(source), layouts(weight)):
        np.testing.assert_array_equal(ops.residual_forward([s], [w], bias, [identity], device=place), exact)
    broadcast = np.broadcast_to(source[:1], source.shape)
    np.testing.assert_array_equal(
        ops.residual_forward([broadcast], [weight], bias, [identity], device=place),
        ops.residual_forward([broadcast.copy()], [weight], bias, [identity], device=place),
    )


def test_weights_whose_copy_has_no_place_in_64_bits():
    tall = np.broadcast_to(np.float32(1), (2**60, 1))
    with pytest.raises(MemoryError):
        ops.residual_forward([np.empty((0, 2**60), "f4")], [tall])


@pytest.mark.parametrize("dtype", DTYPES)
def test_update_in_strided_weights(rng, dtype):
    sources, weights, bias, identity = block(rng, dtype)
    a = ops.residual_forward(sources, weights, bias, identity)
    grad = np.ones_like(a)
    for in_steps in (np.asfortranarray, lambda w: np.repeat(w, 3, axis=-1)[..., ::3][::-1]):
        strided, strided_bias = [in_steps(w) for w in weights], in_steps(bias)
        dense, dense_bias = [w.copy() for w in strided], strided_bias.copy()
        ops.residual_update(grad, a, sources, strided, strided_bias, identity)
        ops.residual_update(grad, a, sources, dense, dense_bias, identity)
        for one, other in zip([*strided, strided_bias], [*dense, dense_bias], strict=True):
            np.testing.assert_array_equal(one, other)
    for one, before in zip(strided, weights, strict=True):
        np.testing.assert_array_equal(one.base[..., 1::3], before)  # what lies between is someone else's


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_threads_gives_the_same_bits(rng, dtype, activation):
    sources, weights, bias, identity = block(rng, dtype, rows=530, inner=(77, 40), columns=150, identities=1)
    before, results = rc.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            rc.set_num_threads(threads)
            a = ops.residual_forward(sources, weights, bias, identity, activation)
            d_sources, d_weights, d_bias, _ = ops.residual_backward(
                identity[0], a, sources, weights, bias, identity, activation
            )
            results.append([a, *d_sources, *d_weights, d_bias])
    finally:
        rc.set_num_threads(before)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_rows_give_no_rows(rng, place, dtype):
    weight = rng.standard_normal((4, 3)).astype(dtype)
    source, grad = np.empty((0, 4), dtype), np.empty((0, 3), dtype)
    assert ops.residual_forward([source], [weight], device=place).shape == (0, 3)
    d_sources, d_weights, d_bias, _ = ops.residual_backward(
        grad, grad, [source], [weight], np.ones(3, dtype), device=place
    )
    assert d_sources[0].shape == (0, 4)
    np.testing.assert_array_equal(d_weights[0], np.zeros((4, 3)))
    np.testing.assert_array_equal(d_bias, np.zeros(3))


@pytest.mark.parametrize("dtype", DTYPES)
def test_out_is_written_and_returned(rng, place, dtype):
    sources, weights, bias, identity = block(rng, dtype)
    memory = np.full((9, 12), 5, dtype)
    out = memory[:, :7]
    assert ops.residual_forward(sources, weights, bias, identity, out=out, device=place) is out
    np.testing.assert_array_equal(out, ops.residual_forward(sources, weights, bias, identity, device=place))
    assert (memory[:, 7:] == 5).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_passes_through(rng, place, dtype):
    sources, weights, bias, identity = block(rng, dtype)
    sources[0][2, 1] = np.nan
    a = ops.residual_forward(sources, weights, bias, identity, device=place)
    assert np.isnan(a[2]).all()
    assert np.isfinite(np.delete(a, 2, axis=0).astype(float)).all()
    with pytest.raises(ValueError, match=r"sources\[0\] holds NaN"):
        ops.residual_forward(sources, weights, bias, identity, check_finite=True)


A, W, B = np.ones((4, 3), "f"), np.ones((3, 2), "f"), np.ones(2, "f")
FORWARD, BACKWARD, UPDATE = ops.residual_forward, ops.residual_backward, ops.residual_update
# What is called with A, W and a gradient AW, all of one dtype.
BAD = {
    "no sources": (lambda a, w, aw: FORWARD([], []), rc.ShapeError, "must not be empty"),
    "fewer weights": (lambda a, w, aw: FORWARD([a, a], [w]), rc.ShapeError, "as many weights"),
    "widths": (lambda a, w, aw: FORWARD([a], [ones_like(w, 5, 2)]), rc.ShapeError, r"sources\[0\] must be \(4, 5\)"),
    "rows": (
        lambda a, w, aw: FORWARD([a, a[:2]], [w, w]),
        rc.ShapeError,
        r"sources\[1\] must be \(4, 3\), got \(2, 3\)",
    ),
    "rank": (lambda a, w, aw: FORWARD([a[0]], [w]), rc.ShapeError, "2 dimensions"),
    "columns": (lambda a, w, aw: FORWARD([a, a], [w, ones_like(w, 3, 1)]), rc.ShapeError, r"weights\[1\]"),
    "bias": (lambda a, w, aw: FORWARD([a], [w], ones_like(w, 3)), rc.ShapeError, "bias must be"),
    "identity": (lambda a, w, aw: FORWARD([a], [w], identity=[a]), rc.ShapeError, r"identity\[0\]"),
    "width 0": (lambda a, w, aw: FORWARD([a[:, :0]], [w[:0]]), rc.ShapeError, "at least 1"),
    "integers": (lambda a, w, aw: FORWARD([a.astype(int)], [w]), rc.DTypeError, "int64"),
    "complex": (lambda a, w, aw: FORWARD([a.astype(complex)], [w]), rc.DTypeError, "complex"),
    "objects": (lambda a, w, aw: FORWARD([a.astype(object)], [w]), rc.DTypeError, "object"),
    "float8": (
        lambda a, w, aw: FORWARD([a.astype(ml_dtypes.float8_e5m2)], [w]),
        rc.DTypeError,
        "must be float32, float64 or bfloat16, got float8",
    ),
    "mixed": (
        lambda a, w, aw: FORWARD([a], [w.astype(float)]),
        rc.DTypeError,
        r"weights\[0\] must be {dtype} as sources\[0\] is, got float64; convert it with .astype\('{dtype}'\)",
    ),
    "mixed the other way": (
        lambda a, w, aw: FORWARD([a.astype(float)], [w]),
        rc.DTypeError,
        r"weights\[0\] must be float64 as sources\[0\] is, got {dtype}",
    ),
    "byte order": (lambda a, w, aw: FORWARD([a.astype(">f4")], [w]), rc.DTypeError, "byte order"),
    "not an array": (lambda a, w, aw: FORWARD([object()], [w]), rc.DTypeError, "must be an array"),
    "not a list": (lambda a, w, aw: FORWARD(a, [w]), rc.DTypeError, "list or tuple"),
    "activation": (lambda a, w, aw: FORWARD([a], [w], activation="rleu"), ValueError, "known are identity, relu"),
    "out shape": (lambda a, w, aw: FORWARD([a], [w], out=a.copy()), rc.ShapeError, "out must be"),
    "out dtype": (lambda a, w, aw: FORWARD([a], [w], out=np.ones((4, 2))), rc.DTypeError, "out must be {dtype} as"),
    "out order": (lambda a, w, aw: FORWARD([a], [w], out=ones_like(w, 2, 4).T), rc.ShapeError, "contiguous"),
    "out unaligned": (
        lambda a, w, aw: FORWARD([a], [w], out=unaligned(aw)),
        rc.ShapeError,
        "out must have contiguous, aligned rows",
    ),
    "lr 0": (lambda a, w, aw: UPDATE(aw, aw, [a], [w], lr=0.0), ValueError, "lr must be positive"),
    "lr NaN": (lambda a, w, aw: UPDATE(aw, aw, [a], [w], lr=float("nan")), ValueError, "lr must be finite"),
    "lr infinite in float32": (
        lambda a, w, aw: UPDATE(aw, aw, [a], [w], lr=1e39),
        ValueError,
        r"positive and finite in float32, got 1e\+39",
    ),
    "lr zero in float32": (
        lambda a, w, aw: UPDATE(aw, aw, [a], [w], lr=1e-60),
        ValueError,
        "positive and finite in float32",
    ),
    "lr text": (lambda a, w, aw: UPDATE(aw, aw, [a], [w], lr="1"), rc.DTypeError, "lr must be a number"),
    "same weights": (lambda a, w, aw: UPDATE(aw, aw, [a, a], [w, w]), ValueError, "must not overlap"),
    "read-only weights": (
        lambda a, w, aw: UPDATE(aw, aw, [a], [np.broadcast_to(w, w.shape)]),
        ValueError,
        "weights.0. is written to, and it is read-only",
    ),
    "unaligned weights": (lambda a, w, aw: UPDATE(aw, aw, [a], [unaligned(w)]), rc.ShapeError, "must be aligned"),
    "grad": (lambda a, w, aw: BACKWARD(a, aw, [a], [w]), rc.ShapeError, "grad must be"),
    "another grad": (lambda a, w, aw: BACKWARD(aw.astype(float), aw, [a], [w]), rc.DTypeError, "grad must be {dtype}"),
    "infinite": (
        lambda a, w, aw: FORWARD([a], [(w * np.inf).astype(w.dtype)], check_finite=True),
        ValueError,
        r"weights\[0\] holds NaN",
    ),
}


def ones_like(array, *shape):
    return np.ones(shape, array.dtype)


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[:] = array
    return raw


@pytest.mark.parametrize("dtype", ["float32", BFLOAT16])
@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_change_nothing(name, dtype):
    call, error, message = BAD[name]
    arrays = [array.astype(dtype) for array in (A, W, A @ W)]
    before = [array.copy() for array in arrays]
    with pytest.raises(error, match=message.replace("{dtype}", np.dtype(dtype).name)):
        call(*arrays)
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_device_that_is_not_there(rng):
    sources, weights, bias, identity = block(rng)
    for name in ("cuda:999", "tpu"):
        with pytest.raises(rc.DeviceError, match=f'^residual_forward: .*"{name}"'):
            ops.residual_forward(sources, weights, bias, identity, device=name)


def test_an_array_on_a_gpu_that_is_not_there(rng):
    (source,), weights, _, _ = block(rng, "float32", inner=(5,))
    there = capsules.Producer(source, device_kind=2, device_index=63)
    with pytest.raises(rc.DeviceError, match=r'^residual_forward: .*"cuda:63" is not available'):
        ops.residual_forward([there], weights)
    assert there.asked == []


@pytest.mark.gpu
def test_more_terms_than_a_gpu_adds(rng, device):
    sources, weights, _, _ = block(rng, "float32", inner=(1,) * 600, identities=0)
    with pytest.raises(rc.DeviceError, match=r'"cuda:0" adds at most \d+ sources .*, got 600; compute it on the CPU'):
        ops.residual_forward(sources, weights, device=device)


@pytest.mark.gpu
def test_wider_than_a_gpu_takes(device):
    wide = np.broadcast_to(np.float32(1), (1, 2**31))
    with pytest.raises(
        rc.DeviceError, match=r'"cuda:0" takes widths of at most \d+, got 2147483648; compute it on the CPU'
    ):
        ops.residual_forward([np.empty((0, 1), "f4")], [wide], device=device)


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


def test_negated_views_of_torch_are_read_as_negated():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    a = torch.tensor([[1 + 2j, -3 + 4j]]).conj().imag  # the memory holds 2 and 4
    w = torch.ones(2, 1)
    assert a.is_neg()
    assert ops.residual_forward([a], [w], activation=None).item() == -6
    assert rc.Network(2, [rc.Layer(1, activation=None)])(a) == rc.Network(2, [rc.Layer(1, activation=None)])(a.clone())
    with pytest.raises(ValueError, match=r"weights\[0\] is written to, and it is a negated view of memory"):
        ops.residual_update(torch.ones(1, 1), torch.ones(1, 1), [torch.ones(1, 1)], [torch._neg_view(torch.ones(1, 1))])


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
    assert overlap(first, second)


def test_memory_between_an_inputs_is_not_an_inputs():
    big, w = np.zeros((3, 6), "f4"), np.ones((4, 2), "f4")
    big[:, :4] = 1
    assert np.array_equal(rc.ops.residual_forward([big[:, :4]], [w], out=big[:, 4:]), np.full((3, 2), 4.0))
    with pytest.raises(ValueError, match="overlap"):
        rc.ops.residual_forward([big[:, :4]], [w], out=big[:, 3:5])
    both = np.ones((3, 4), np.float32)
    ops.residual_update(A @ W, A @ W, [A, A], [both[:, :2], both[:, 2:]])
    assert (both < 1).all()
