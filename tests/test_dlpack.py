"""DLPack capsules made by hand: what is sound is read in place, what is not is refused, and each is deleted once."""

import ctypes
import gc

import ml_dtypes
import numpy as np
import pytest

import resnetcore as rc
from capsules import BFLOAT, Producer
from resnetcore import _core


def matrix(rows=6, columns=4, dtype="float32"):
    return np.arange(rows * columns, dtype=dtype).reshape(rows, columns)


def taken(producer):
    """The array, as the bindings see it; the producer's memory is deleted with it."""
    return _core.from_dlpack(producer, "test")


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_memory_is_looked_at_in_place_and_deleted_once(versioned, dtype):
    producer = Producer(matrix(dtype=dtype), versioned)
    array = taken(producer)
    assert np.array_equal(array, producer.values) and array.dtype == dtype
    assert np.shares_memory(array, producer.values)
    view = array[1:]
    del array
    gc.collect()
    assert producer.deleted == 0  # the view still looks at it
    del view
    gc.collect()
    assert producer.deleted == 1


def test_read_only():
    values = matrix()
    assert not taken(Producer(values, flags=1)).flags.writeable
    assert taken(Producer(values)).flags.writeable
    # Before version 1 a capsule could not say so; JAX's arrays, which never change, still come like that.
    assert not taken(Producer(values, versioned=False)).flags.writeable


def test_strides_byte_offset_and_c_order():
    values = matrix()
    assert np.array_equal(taken(Producer(values[::2, 1:3])), values[::2, 1:3])
    assert np.array_equal(taken(Producer(values[::-1])), values[::-1])
    assert np.array_equal(taken(Producer(values, strides=False)), values)
    moved = Producer(values, byte_offset=16, ndim=1, shape=(ctypes.c_int64 * 1)(5), strides=None)
    assert np.array_equal(taken(moved), values.ravel()[4:9])


def test_no_elements_and_no_data():
    producer = Producer(np.empty((0, 4), "float32"), data=None)
    assert taken(producer).shape == (0, 4)
    gc.collect()
    assert producer.deleted == 1


def test_bfloat16_becomes_float32_exactly():
    values = np.array([[1.0, -2.5, 3.140625], [np.inf, -0.0, 2.0**-130]], "float32")
    halves = (values.view("uint32") >> 16).astype("uint16")
    producer = Producer(halves, code=BFLOAT)
    array = taken(producer)
    assert array.dtype == "float32"
    assert np.array_equal(array.view("uint32"), values.view("uint32") >> 16 << 16)
    gc.collect()
    assert producer.deleted == 1  # nothing looks at it any more


def test_bfloat16_is_looked_at_in_place():
    halves = np.arange(24, dtype="uint16").reshape(6, 4)
    producer = Producer(halves[::2, 1:], code=BFLOAT)
    array = _core.from_dlpack(producer, "test", widen=False)
    assert array.dtype == _core.bfloat16_dtype()
    assert np.array_equal(array.view("uint16"), halves[::2, 1:])
    assert np.shares_memory(array, halves)
    del array
    gc.collect()
    assert producer.deleted == 1


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"major": 2}, "version 2"),
        ({"device_kind": 2}, "device of DLPack's kind 2"),
        ({"ndim": -1}, "dimensions, got -1"),
        ({"ndim": 33}, "dimensions, got 33"),
        ({"lanes": 4}, "1 lane in an element, got 4"),
        ({"data": None}, "no data"),
        ({"shape": None}, "no shape"),
        ({"shape": (ctypes.c_int64 * 2)(2, -3)}, "negative size, -3"),
        ({"shape": (ctypes.c_int64 * 2)(2**40, 2**40)}, "multiply to more than"),
        ({"name": b"used_dltensor_versioned"}, "consumed already"),
        ({"name": b"something"}, "named 'something'"),
    ],
)
def test_refused_and_left_to_its_capsule(case, message):
    producer = Producer(matrix(), **case)
    with pytest.raises(BufferError, match=message):
        taken(producer)
    gc.collect()
    assert producer.deleted == 1


@pytest.mark.parametrize(
    "case", [{"bits": 8}, {"code": 5, "bits": 64}, {"code": 6, "bits": 16}, {"bits": 24}, {"code": BFLOAT}]
)
def test_element_types_that_numpy_lacks(case):
    producer = Producer(matrix(), **case)
    with pytest.raises(rc.DTypeError, match="element type"):
        taken(producer)
    gc.collect()
    assert producer.deleted == 1


def test_producers_that_fail():
    class Failing:
        def __init__(self, answer):
            self.answer = answer

        def __dlpack__(self, **_):
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    with pytest.raises(BufferError, match="requires grad"):
        taken(Failing(RuntimeError("requires grad")))
    with pytest.raises(BufferError, match="no capsule"):
        taken(Failing(3))


def test_a_producer_from_before_versions():
    class Old(Producer):
        def __dlpack__(self):
            return super().__dlpack__()

    assert np.array_equal(taken(Old(matrix(), versioned=False)), matrix())


def test_who_does_not_say_where_it_is_may_have_another_way_in():
    class Column:
        def __dlpack_device__(self):
            raise NotImplementedError("of strings")

        def to_numpy(self):
            return matrix()

    net = rc.Network(4, [rc.Layer(3)], seed=1)
    assert np.array_equal(net(Column()), net(matrix()))


def test_through_the_public_doors():
    net = rc.Network(4, [rc.Layer(3)], seed=1)
    values = matrix()
    producer = Producer(values)
    assert np.array_equal(net(producer), net(values))
    gc.collect()
    assert producer.deleted == 1
    with pytest.raises(BufferError, match="copy it to the CPU"):
        net(Producer(values, device_kind=2))
    for how, why in (({"flags": 1}, "read-only$"), ({"versioned": False}, "read-only: .* without a version, .* NumPy")):
        out = Producer(np.empty((6, 3), "float32"), **how)
        with pytest.raises(ValueError, match="residual_forward: out is written to, and it is " + why):
            rc.ops.residual_forward([values], [np.ones((4, 3), "float32")], out=out)
        gc.collect()
        assert out.deleted == 1
    with pytest.raises(BufferError, match="lane"):
        rc.ops.residual_forward([Producer(values, lanes=2)], [np.ones((4, 3), "float32")])


def test_bfloat16_of_ml_dtypes():
    net = rc.Network(4, [rc.Layer(3)], seed=1)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(ml_dtypes.bfloat16)
    assert np.array_equal(net(x), net(x.astype("float32")))


def test_bfloat16_of_torch_and_jax():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = rc.Network(4, [rc.Layer(3)], seed=1)
    x = torch.randn(5, 4).to(torch.bfloat16)
    assert np.array_equal(np.asarray(net(x)), net(x.float().numpy()))
    jnp = pytest.importorskip("jax.numpy", reason="JAX is not installed")
    assert np.array_equal(np.asarray(net(jnp.asarray(x.float().numpy(), jnp.bfloat16))), net(x.float().numpy()))
