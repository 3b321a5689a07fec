"""Data of every kind trains to the same bits, and files larger than memory are never loaded whole."""

import numpy as np
import pytest

import resnetcore as rc
from resnetcore.arrays import as_array, is_memory_map


def problem(rows=60):
    X = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    return X, (X[:, 0] > 0).astype(np.int64)


def trained(X, y=None, **fit):
    trainer = rc.Trainer(rc.models.resnet(4, 2, 8, 4), optimizer=rc.SGD(lr=0.1), batch_size=16)
    trainer.fit(X, y, epochs=2, **fit)
    return trainer.net.parameters()


def assert_same(one, other):
    assert all(np.array_equal(one[name], other[name]) for name in one)


class Frame:
    """What pandas and polars frames have in common."""

    def __init__(self, array):
        self._array = array

    def to_numpy(self):
        return self._array


class Dlpack:
    def __init__(self, array, device=(1, 0)):
        self._array, self._device = array, device

    def __dlpack__(self, **arguments):
        return self._array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self._device


class ArrayLike:
    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


@pytest.mark.parametrize("kind", [Frame, Dlpack, ArrayLike, memoryview, np.asfortranarray, list])
def test_kinds_of_arrays(kind):
    X, y = problem()
    wrapped = X.tolist() if kind is list else kind(X)
    assert_same(trained(wrapped, kind(y) if kind is not list else y.tolist()), trained(X, y))
    net = rc.models.resnet(4, 2, 8, 4)
    np.testing.assert_array_equal(net.predict(wrapped), net.predict(X))


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, bool]
)
def test_labels_of_any_integer_dtype(dtype):
    X, y = problem()
    assert_same(trained(X, y.astype(dtype)), trained(X, y))


def test_read_only_and_strided_arrays():
    X, y = problem()
    wide = np.zeros((120, 8), np.float32)
    wide[::2, ::2] = X
    wide.flags.writeable = False
    frozen = X.copy()
    frozen.flags.writeable = False
    assert_same(trained(frozen, y), trained(X, y))
    assert_same(trained(wide[::2, ::2], np.repeat(y, 2)[::2]), trained(X, y))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_maps(tmp_path, dtype, order):
    X, y = problem()
    path = tmp_path / "x"
    written = np.memmap(path, dtype, "w+", shape=X.shape, order=order)
    written[:] = X
    written.flush()
    mapped = np.memmap(path, dtype, "r", shape=X.shape, order=order)
    assert_same(trained(mapped, y, validation=(mapped, y)), trained(X, y))
    assert_same(trained(np.asarray(mapped), y), trained(X, y))
    net = rc.models.resnet(4, 2, 8, 4)
    np.testing.assert_array_equal(net.predict(mapped), net.predict(X))


def test_memory_mapped_targets(tmp_path):
    X, _ = problem()
    np.save(tmp_path / "y.npy", X[:, :2].copy())
    mapped = np.load(tmp_path / "y.npy", mmap_mode="r")
    results = []
    for y in (mapped, X[:, :2].astype(np.float64)):
        trainer = rc.Trainer(rc.models.resnet(4, 2, 8, 4), "mse", rc.SGD(lr=0.1), batch_size=16)
        trainer.fit(X, y, epochs=2)
        results.append(trainer.net.parameters())
    assert_same(*results)


def test_a_memory_map_is_known_through_views(tmp_path):
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=(4, 4))
    assert is_memory_map(mapped)
    assert is_memory_map(np.asarray(mapped)[1:].T)
    assert not is_memory_map(np.array(mapped))


def test_a_file_larger_than_memory_is_not_loaded(tmp_path):
    """8 GiB of holes: 64 rows are read, everything else would take minutes and the machine's memory."""
    rows = 1 << 29
    path = tmp_path / "x"
    with path.open("wb") as file:
        file.truncate(rows * 4 * 4)
    mapped = np.memmap(path, np.float32, "r", shape=(rows, 4))
    from resnetcore.data import ArrayData

    net = rc.models.resnet(4, 2, 8, 4)
    data = ArrayData.__new__(ArrayData)  # without its targets, which would be as many
    data._X, data._dtype, data._weight, data._y = mapped, net.dtype, None, np.zeros(rows, np.bool_)
    trainer = rc.Trainer(net, optimizer=rc.SGD(lr=0.1))
    data._y = np.lib.stride_tricks.as_strided(np.zeros(1, np.int64), (rows,), (0,))
    data.begin(trainer._core, np.linspace(0, rows - 1, 64).astype(np.int64), 0.1)
    assert np.isfinite(trainer._core.finish_step())


def batches_of(X, y):
    return [(X[i : i + 16], y[i : i + 16]) for i in range(0, len(X), 16)]


class Loader:
    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_iterables_of_batches():
    X, y = problem()
    expected = trained(batches_of(X, y))
    assert_same(trained(Loader(batches_of(X, y))), expected)
    weighted = [(a, b, np.ones(len(a))) for a, b in batches_of(X, y)]
    assert_same(trained(weighted), expected)
    assert_same(trained([list(b) for b in batches_of(X.astype(np.float64), y)]), expected)


def test_a_fit_that_continues_inside_an_epoch_of_an_iterable():
    X, y = problem()
    batches = Loader(batches_of(X, y))

    class Stop(rc.Callback):
        def on_step_end(self, trainer, loss):
            if trainer.steps == 6:
                trainer.stop()

    trainer = rc.Trainer(rc.models.resnet(4, 2, 8, 4), optimizer=rc.SGD(lr=0.1), batch_size=16)
    trainer.fit(batches, epochs=2, callbacks=[Stop()])
    assert trainer.steps == 6
    trainer.fit(batches, epochs=2)
    assert trainer.steps == 8
    assert_same(trainer.net.parameters(), trained(batches))


def test_an_iterator_serves_one_epoch():
    X, y = problem()
    trainer = rc.Trainer(rc.models.resnet(4, 2, 8, 4))
    trainer.fit(iter(batches_of(X, y)), epochs=1)
    assert trainer.steps == 4
    with pytest.raises(ValueError, match="iterated over again"):
        trainer.fit(iter(batches_of(X, y)), epochs=3)
    assert trainer.steps == 4


def test_an_iterable_that_runs_dry():
    with pytest.raises(ValueError, match="no batch"):
        rc.Trainer(rc.models.resnet(4, 2, 8, 4)).fit([], epochs=1)


@pytest.mark.parametrize(
    "batches, error, words",
    [
        ([(np.zeros((2, 4)), np.zeros(2, int)), np.zeros((2, 4))], rc.DTypeError, "batch 1"),
        ([(np.zeros((2, 3)), np.zeros(2, int))], rc.ShapeError, "batch 0.*4"),
        ([(np.zeros((2, 4)), np.full(2, 9))], ValueError, "batch 0.*0 to 1"),
        ([(np.zeros((0, 4)), np.zeros(0, int))], rc.ShapeError, "at least one row"),
        (np.zeros((2, 4)), rc.DTypeError, "without y"),
        ("text", rc.DTypeError, "iterable"),
        (5, rc.DTypeError, "iterable"),
    ],
)
def test_bad_batches(batches, error, words):
    trainer = rc.Trainer(rc.models.resnet(4, 2, 8, 4))
    with pytest.raises(error, match=words):
        trainer.fit(batches, epochs=1)


def test_arrays_of_other_devices():
    X, _ = problem()
    with pytest.raises(rc.DeviceError, match="CPU"):
        rc.models.resnet(4, 2, 8, 4).predict(Dlpack(X, device=(2, 0)))


def test_ragged_lists():
    with pytest.raises(rc.ShapeError, match="rectangular"):
        as_array("predict", "X", [[1.0, 2.0], [3.0]])


def test_frames():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    X, y = problem()
    frame = pandas.DataFrame(X, columns=list("abcd"))
    assert_same(trained(frame, pandas.Series(y)), trained(X, y))
    with pytest.raises(rc.DTypeError, match="numeric columns"):
        trained(frame.assign(a="text"), y)


def test_polars_frames():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    X, y = problem()
    assert_same(trained(polars.DataFrame(X, schema=list("abcd")), polars.Series(y)), trained(X, y))


def test_torch_tensors_come_back_as_tensors():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    X, y = problem()
    assert_same(trained(torch.from_numpy(X), torch.from_numpy(y)), trained(X, y))
    net = rc.models.resnet(4, 2, 8, 4)
    result = net.predict(torch.from_numpy(X))
    assert isinstance(result, torch.Tensor)
    np.testing.assert_array_equal(result.numpy(), net.predict(X))
    with pytest.raises(BufferError, match=r"detach|grad"):
        net.predict(torch.from_numpy(X).requires_grad_())
    with pytest.raises(rc.DTypeError, match=r"use X.float\(\)"):
        net.predict(torch.from_numpy(X).int())


def test_a_list_of_integers():
    net = rc.models.plain(2, 2, 4, 3)
    with pytest.raises(rc.DTypeError, match=r"use numpy.asarray\(X, 'float32'\)"):
        net.predict([[1, 2]])


def test_a_frame_of_numbers_that_numpy_takes_for_objects():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [0.5, 1.5, 2.5], "b": [True, False, True]})
    net = rc.models.plain(2, 2, 4, 3)
    with pytest.raises(rc.DTypeError, match=r"use X.astype\('float32'\), of its numeric columns"):
        net(frame)
    assert net(frame.astype("float32")).shape == (3, 2)
