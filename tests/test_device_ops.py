"""The block's functions on arrays in a GPU's memory: the formulas, where the arrays lie, in the order of streams, and
nothing changed where a call is refused. On the emulation the arrays are made by hand."""

import ml_dtypes
import numpy as np
import pytest

import resnetcore as rc
from capsules import BFLOAT
from gpu_memory import OnGpu, OtherStream, WithInterface, emulated
from reference import ACTIVATIONS, FROM_OUTPUT, distance
from resnetcore import _core, ops
from test_device_arrays import LAYOUTS

pytestmark = pytest.mark.gpu
BFLOAT16 = ml_dtypes.bfloat16
# Relative norms, of sums in float32 and of results that are rounded to bfloat16 once.
BOUND = {"float32": 2e-6, "float64": 1e-13, BFLOAT16: 4e-3}
SHAPES = [(1, (2,), 5), (9, (5, 3), 7), (131, (64, 31), 48)]


def on_gpu(array, offer=OnGpu, **changes):
    if array.dtype == BFLOAT16:
        return OnGpu(array.view("uint16"), code=BFLOAT, **changes)
    return offer(array, **changes)


def host(array):
    """What is in a DeviceArray, bfloat16 as ml_dtypes'."""
    assert isinstance(array, rc.DeviceArray)
    values = array.numpy()
    return values.view("uint16").view(BFLOAT16) if values.dtype.kind == "V" else values


def seen_dtype(dtype):
    return _core.bfloat16_dtype() if dtype == BFLOAT16 else np.dtype(dtype)


def block(dtype="float64", rows=9, inner=(5, 3), columns=7, identities=2, seed=3):
    rng = np.random.default_rng(seed)
    shapes = [(rows, k) for k in inner], [(k, columns) for k in inner], [(columns,)], [(rows, columns)] * identities
    sources, weights, (bias,), identity = [[rng.standard_normal(s).astype(dtype) for s in group] for group in shapes]
    return sources, weights, bias, identity


def moved(sources, weights, bias, identity, offer=OnGpu):
    there = [[on_gpu(a, offer) for a in group] for group in (sources, weights, identity)]
    return there[0], there[1], None if bias is None else on_gpu(bias, offer), there[2]


def exact(arguments):
    return [a.astype(float) if isinstance(a, np.ndarray) else [b.astype(float) for b in a] for a in arguments]


def argument(sources, weights, bias, identity):
    return sum(a @ w for a, w in zip(sources, weights, strict=True)) + bias + sum(identity)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forward_and_backward_are_the_formulas(device, activation, shape, dtype):
    arguments, bound = block(dtype, *shape), BOUND[dtype]
    sources, weights, bias, identity = exact(arguments)
    z, (g, derivative) = argument(sources, weights, bias, identity), ACTIVATIONS[activation]
    there = moved(*arguments)
    a = ops.residual_forward(*there, activation)
    assert a.device == device and host(a).dtype == dtype and distance(host(a), g(z)) < bound
    grad = np.random.default_rng(1).standard_normal(z.shape).astype(dtype)
    slope = FROM_OUTPUT[activation](host(a).astype(float)) if activation in FROM_OUTPUT else derivative(z)
    d_sources, d_weights, d_bias, d_identity = ops.residual_backward(on_gpu(grad), a, *there, activation)
    delta = grad.astype(float) * slope
    assert distance(host(d_identity[0]), delta) < bound
    np.testing.assert_array_equal(host(d_identity[0]), host(d_identity[1]))
    delta = host(d_identity[0]).astype(float) if dtype == BFLOAT16 else delta  # products are of δ as it is rounded
    truth = [*(delta @ w.T for w in weights), *(s.T @ delta for s in sources), delta.sum(axis=0)]
    for got, want in zip([*d_sources, *d_weights, d_bias], truth, strict=True):
        assert host(got).dtype == dtype and host(got).shape == want.shape
        assert distance(host(got), want) < 4 * bound


@pytest.mark.parametrize("dtype", BOUND)
def test_no_rows_and_no_bias(device, dtype):
    sources, weights, _, identity = moved(*block(dtype, rows=0))
    a = ops.residual_forward(sources, weights, None, identity)
    d_sources, d_weights, d_bias, d_identity = ops.residual_backward(a, a, sources, weights, None, identity)
    assert a.shape == (0, 7) and d_bias is None and [d.shape for d in d_sources] == [(0, 5), (0, 3)]
    assert not any(host(d).any() for d in d_weights) and d_identity[1].shape == (0, 7)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_where_it_lies(device, layout, dtype):
    (source,), (weight,), bias, (identity,) = block(dtype, inner=(6,), identities=1)
    lie = LAYOUTS[layout]
    for offer in (OnGpu, WithInterface):
        arrays = lie(source), lie(weight), lie(np.stack([bias] * 3))[1], lie(identity)
        dense = [on_gpu(np.ascontiguousarray(a)) for a in arrays]
        strided = [on_gpu(a, offer) for a in arrays]
        a = ops.residual_forward([strided[0]], [strided[1]], strided[2], [strided[3]], "silu")
        expected = ops.residual_forward([dense[0]], [dense[1]], dense[2], [dense[3]], "silu")
        np.testing.assert_array_equal(host(a), host(expected))
        grad = on_gpu(lie(host(a)))
        one = ops.residual_backward(grad, a, [strided[0]], [strided[1]], strided[2], [strided[3]], "silu")
        other = ops.residual_backward(grad, a, [dense[0]], [dense[1]], dense[2], [dense[3]], "silu")
        for x, y in zip([*one[0], *one[1], one[2], *one[3]], [*other[0], *other[1], other[2], *other[3]], strict=True):
            np.testing.assert_array_equal(host(x), host(y))


@pytest.mark.parametrize("dtype", BOUND)
def test_out_is_written_and_returned(device, dtype):
    arguments = block(dtype)
    truth = np.maximum(argument(*exact(arguments)), 0)
    for wide in (dtype, "float32" if dtype == BFLOAT16 else dtype):
        memory = np.zeros((18, 12), wide)
        out = on_gpu(memory[::2, 3:10])
        assert ops.residual_forward(*moved(*arguments), out=out) is out
        seen = host(_core.device_array(out, "test"))
        assert distance(seen, truth) < (BOUND[dtype] if wide == dtype else BOUND["float32"])
        whole = _core.array_at(
            device, out.memory.pointer - 3 * memory.itemsize, (18, 12), (12, 1), seen_dtype(wide), out
        )
        beside = whole.numpy().view("uint8").reshape(18, 12, -1)
        beside[::2, 3:10] = 0
        assert not beside.any()


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("layout", ["rows", "columns", "vector in steps"])
def test_update_takes_gradients_first_and_descends(device, layout, dtype):
    arguments = block(dtype)
    sources, weights, bias, identity = arguments
    a = ops.residual_forward(*moved(*arguments))
    grad = np.random.default_rng(1).standard_normal(a.shape).astype(dtype)
    d_sources, d_weights, d_bias, d_identity = ops.residual_backward(on_gpu(grad), a, *moved(*arguments))
    if layout == "columns":
        weights = [np.asfortranarray(w) for w in weights]
    if layout == "vector in steps":
        bias = np.repeat(bias, 3)[::3]
    there = moved(sources, weights, bias, identity)
    got_sources, got_identity = ops.residual_update(on_gpu(grad), a, *there, lr=0.25)
    for got, want in zip([*got_sources, *got_identity], [*d_sources, *d_identity], strict=True):
        np.testing.assert_array_equal(host(got), host(want))
    for got, was, d in zip([*there[1], there[2]], [*weights, bias], [*d_weights, d_bias], strict=True):
        now = host(_core.device_array(got, "test"))
        want = was.astype(float) - 0.25 * host(d).astype(float)
        assert now.shape == was.shape and distance(now, want) < BOUND[dtype]
        assert distance(now, was.astype(float)) > 0.01


def fetched(other, array):
    """A copy from the GPU, when that stream's turn comes."""
    values = np.empty(array.shape, array.dtype)
    other.read(values, _core.layout_of(array).ctypes.data)
    other.wait()
    return values


@pytest.mark.parametrize("function", ["forward", "backward", "update"])
def test_work_comes_in_the_order_of_the_stream_that_is_named(device, function):
    """What the stream was given before is seen, and what it is given after sees the results: in no other way, here."""
    other = OtherStream()
    arguments = block()
    sources, weights, *_ = arguments
    z = argument(*arguments)
    delta = np.ones_like(z) * (z > 0)
    late = WithInterface(np.zeros_like(sources[0]), stream=None)  # nothing says when it is there but the stream below
    there = moved(*arguments)
    there[0][0] = late
    other.write(late.memory.pointer, sources[0])
    if function == "forward":
        found = [ops.residual_forward(*there, stream=other.handle)]
        truth = [np.maximum(z, 0)]
    elif function == "backward":
        grad, a = on_gpu(np.ones_like(z)), on_gpu(np.maximum(z, 0))
        d_sources, d_weights, d_bias, d_identity = ops.residual_backward(grad, a, *there, stream=other.handle)
        found = [d_sources[0], d_weights[0], d_bias, *d_identity]
        truth = [delta @ weights[0].T, sources[0].T @ delta, delta.sum(axis=0), delta, delta]
    else:
        grad, a = on_gpu(np.ones_like(z)), on_gpu(np.maximum(z, 0))
        there[1][0] = _core.to_device(weights[0], device)
        ops.residual_update(grad, a, *there, lr=0.5, stream=other.handle)
        found, truth = [there[1][0]], [weights[0] - 0.5 * sources[0].T @ delta]
    for got, want in zip(found, truth, strict=True):
        np.testing.assert_allclose(fetched(other, got), want, rtol=1e-11, atol=1e-12)


def test_what_is_looked_at_is_in_the_order_of_the_stream_too(device):
    other, there = OtherStream(), moved(*block("float32"))
    there[0][0] = late = WithInterface(np.zeros((9, 5), "float32"), stream=None)
    other.write(late.memory.pointer, np.full((9, 5), np.nan, "float32"))
    with pytest.raises(ValueError, match=r"sources\[0\] holds NaN"):
        ops.residual_forward(*there, check_finite=True, stream=other.handle)


@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_that_is_given_a_stream_waits_for_nothing(device, layout, dtype):
    """Not even where the GPU has to copy an argument."""
    other, lie = OtherStream(), LAYOUTS[layout]
    sources, weights, bias, identity = block(dtype)
    there = moved(*(list(map(lie, arrays)) for arrays in (sources, weights)), bias, list(map(lie, identity)))
    trained = [on_gpu(np.asfortranarray(w)) for w in weights]
    grad = on_gpu(lie(np.ones((9, 7), dtype)))
    before = emulated("waits")
    a = ops.residual_forward(*there, stream=other.handle)
    ops.residual_backward(grad, a, *there, stream=other.handle)
    ops.residual_update(grad, a, there[0], trained, *there[2:], stream=other.handle)
    assert emulated("waits") == before


@pytest.mark.parametrize("dtype", BOUND)
def test_weights_with_contiguous_columns_are_not_copied(device, dtype):
    sources, weights, bias, identity = moved(*block(dtype))
    turned = [on_gpu(np.asfortranarray(w)) for w in block(dtype)[1]]
    before = emulated("gathers")
    a = ops.residual_forward(sources, turned, bias, identity, "gelu")
    gradients = ops.residual_backward(a, a, sources, turned, bias, identity, "gelu")
    assert emulated("gathers") == before
    np.testing.assert_array_equal(host(a), host(ops.residual_forward(sources, weights, bias, identity, "gelu")))
    expected = ops.residual_backward(a, a, sources, weights, bias, identity, "gelu")
    for got, want in zip([*gradients[0], *gradients[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_array_equal(host(got), host(want))


@pytest.mark.parametrize(
    ("stream", "error", "message"),
    [
        (0, ValueError, "stream must be None or a cudaStream_t's address, got 0; give 1"),
        (-1, ValueError, "got -1"),
        (True, TypeError, "an int, got True"),
        ("main", TypeError, "an int, got 'main'"),
        (12345, rc.DeviceError, "no such stream"),
    ],
)
def test_a_stream_that_is_none(device, stream, error, message):
    if stream == 12345:
        OtherStream()  # or skipped: CUDA does not look at what an address points to
    with pytest.raises(error, match=message):
        ops.residual_forward(*moved(*block()), stream=stream)


def test_a_stream_of_the_cpus_arrays_is_refused():
    with pytest.raises(ValueError, match=r"sources\[0\] is in the CPU's memory; leave stream out"):
        ops.residual_forward(*block(), stream=1)


SOURCES, WEIGHTS, BIAS, IDENTITY = block("float32")
REFUSED = {
    "host weight": (
        lambda t: t[1].__setitem__(0, WEIGHTS[0]),
        rc.DeviceError,
        r"weights\[0\] must be on cuda:0 as .*CPU's",
    ),
    "host identity": (lambda t: t[3].__setitem__(1, IDENTITY[1]), rc.DeviceError, r"identity\[1\] must be on cuda:0"),
    "other GPU": (
        lambda t: t[0].__setitem__(1, on_gpu(SOURCES[1], device_index=1)),
        rc.DeviceError,
        r"sources\[1\] must be on cuda:0 as sources\[0\] is, got an array on cuda:1; copy it to cuda:0",
    ),
    "width": (lambda t: t[1].__setitem__(0, on_gpu(WEIGHTS[1])), rc.ShapeError, r"sources\[0\] must be \(9, 3\)"),
    "dtype": (
        lambda t: t[1].__setitem__(0, on_gpu(WEIGHTS[0].astype("float64"))),
        rc.DTypeError,
        r"weights\[0\] must be float32",
    ),
    "integers": (lambda t: t[0].__setitem__(0, on_gpu(SOURCES[0].astype("int32"))), rc.DTypeError, "float32, float64"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_changes_nothing(device, case):
    change, error, message = REFUSED[case]
    there = moved(SOURCES, WEIGHTS, BIAS, IDENTITY)
    change(there)
    out = on_gpu(np.full((9, 7), 5, "float32"))
    with pytest.raises(error, match=message):
        ops.residual_forward(*there, out=out)
    with pytest.raises(error, match=message):
        ops.residual_update(out, out, *there)
    assert (host(_core.device_array(out, "test")) == 5).all()
    for weight, was in zip(there[1][1:], WEIGHTS[1:], strict=True):
        np.testing.assert_array_equal(host(_core.device_array(weight, "test")), was)


def test_a_gpus_array_among_the_cpus(device):
    with pytest.raises(rc.DeviceError, match=r"weights\[1\] must be in the CPU's memory"):
        ops.residual_forward(SOURCES, [WEIGHTS[0], on_gpu(WEIGHTS[1])], BIAS)


def test_the_device_is_where_the_arrays_are(device):
    there = moved(SOURCES, WEIGHTS, BIAS, IDENTITY)
    np.testing.assert_array_equal(host(ops.residual_forward(*there, device="cuda")), host(ops.residual_forward(*there)))
    with pytest.raises(rc.DeviceError, match=r"sources\[0\] is on cuda:0, and device is 'cpu'; leave device out"):
        ops.residual_forward(*there, device="cpu")


def test_outputs_and_weights_that_are_refused(device):
    there = moved(SOURCES, WEIGHTS, BIAS, IDENTITY)

    def forward(out):
        ops.residual_forward(*there, out=out)

    for out, error, message in (
        (on_gpu(np.zeros((9, 7), "float64")), rc.DTypeError, "out must be float32"),
        (on_gpu(np.zeros((9, 8), "float32")), rc.ShapeError, r"out must be \(9, 7\)"),
        (on_gpu(np.zeros((7, 9), "float32").T), rc.ShapeError, "contiguous, aligned rows"),
        (on_gpu(np.zeros((9, 7), "float32"), flags=1), ValueError, "out is written to, and it is read-only"),
        (np.zeros((9, 7), "float32"), rc.DeviceError, "out must be on cuda:0"),
        (there[3][0], ValueError, "out must not overlap an input"),
    ):
        with pytest.raises(error, match=message):
            forward(out)
    a = ops.residual_forward(*there)
    in_steps = on_gpu(np.repeat(np.repeat(WEIGHTS[0], 2, 0), 2, 1)[::2, ::2])
    for weight, error, message in (
        (in_steps, rc.ShapeError, r"weights\[0\] must have contiguous rows or columns on a GPU"),
        (on_gpu(WEIGHTS[0], flags=1), ValueError, r"weights\[0\] is written to, and it is read-only"),
        (on_gpu(np.broadcast_to(WEIGHTS[0][:1].copy(), (5, 7))), rc.ShapeError, "have each element once"),
    ):
        with pytest.raises(error, match=message):
            ops.residual_update(a, a, there[0], [weight, there[1][1]], there[2])
    with pytest.raises(ValueError, match="NaN"):
        ops.residual_forward([on_gpu(np.full((9, 5), np.nan, "float32")), there[0][1]], there[1], check_finite=True)


def test_what_dlpack_cannot_say_the_interface_may(device):
    """Of a DLPack without a version: whether the memory may be written to."""
    sources, weights, *_ = block("float32")
    source, grad = on_gpu(sources[0]), on_gpu(np.ones((9, 7), "float32"))

    def update(weight):
        ops.residual_update(grad, grad, [source], [weight], lr=0.5)

    offered = on_gpu(weights[0], versioned=False)
    with pytest.raises(ValueError, match=r"weights\[0\] is .* without a version.* give its __cuda_array_interface__"):
        update(offered)
    interface = WithInterface(weights[0]).__cuda_array_interface__
    for read_only in (True, False):
        offered.__cuda_array_interface__ = {**interface, "data": (offered.memory.pointer, read_only)}
        if read_only:
            with pytest.raises(ValueError, match=r"weights\[0\] is written to, and it is read-only$"):
                update(offered)
    update(offered)
    now = host(_core.device_array(offered, "test"))
    np.testing.assert_allclose(now, weights[0] - 0.5 * sources[0].sum(axis=0)[:, None], rtol=1e-5, atol=1e-5)
    assert offered.deleted == len(offered.asked)


def test_every_array_is_given_back_once(device):
    there = moved(*block())
    everything = [*there[0], *there[1], there[2], *there[3]]
    a = ops.residual_forward(*there)
    ops.residual_backward(a, a, *there)
    ops.residual_update(a, a, *there)
    with pytest.raises(rc.ShapeError):
        ops.residual_update(a, on_gpu(np.ones((2, 2))), *there)
    assert all(array.deleted == len(array.asked) > 0 for array in everything)


def test_more_than_the_kernels_take(device):
    source, weight = on_gpu(np.ones((2, 3), "float32")), on_gpu(np.ones((3, 2), "float32"))
    with pytest.raises(rc.DeviceError, match=r'residual_forward: device "cuda:0" adds at most \d+ sources.*on the CPU'):
        ops.residual_forward([source] * 2000, [weight] * 2000)
