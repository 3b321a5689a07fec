"""Arrays on a GPU are taken in place and given in place: DLPack and __cuda_array_interface__, both sides, and the rules of
their streams. What is computed is what the same numbers give from the CPU's memory, to the bit."""

import gc
import types

import numpy as np
import pytest

import resnetcore as rc
from capsules import BFLOAT, Consumed, Producer
from gpu_memory import OnGpu, OtherStream, WithInterface, emulated, stream
from resnetcore import _core

gpu = pytest.mark.gpu
ROWS, INPUTS, OUTPUTS = 12, 6, 3


def network(device="cpu", dtype="float32", outputs=OUTPUTS):
    layers = [
        rc.Layer(9, norm="batch"),
        rc.Layer(9, skips={2: "learned"}, dropout=0.25),
        rc.Layer(outputs, activation=None),
    ]
    return rc.Network(INPUTS, layers, seed=3, dtype=dtype, device=device)


def rows(dtype="float32", seed=0, count=ROWS):
    return np.random.default_rng(seed).standard_normal((count, INPUTS)).astype(dtype)


def labels(dtype="int64", count=ROWS):
    return np.random.default_rng(1).integers(0, OUTPUTS, count).astype(dtype)


def values(dtype="float32"):
    return np.random.default_rng(2).standard_normal((ROWS, OUTPUTS)).astype(dtype)


def as_bfloat16(array):
    """The upper halves of float32s, and those halves as float32s."""
    halves = (array.view("uint32") >> 16).astype("uint16")
    return halves, (halves.astype("uint32") << 16).view("float32")


def weights(trainer):
    return {**trainer.net.parameters(), **trainer.net.buffers(), **trainer.state()["optimizer"]}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


LAYOUTS = {
    "dense": lambda x: x,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "part of wider rows": lambda x: np.pad(x, ((0, 0), (1, 2)))[:, 1:-2],
    "columns first": lambda x: np.asfortranarray(x),
    "backwards": lambda x: x[::-1].copy()[::-1],
    "one row for all": lambda x: np.broadcast_to(x[:1].copy(), x.shape),
}


@gpu
@pytest.mark.parametrize("offer", [OnGpu, lambda x: OnGpu(x, versioned=False), WithInterface], ids=["v1", "v0", "cai"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_is_read_where_it_lies(device, offer, layout):
    x, net = LAYOUTS[layout](rows()), network(device)
    array = offer(x)
    out = net.predict(array)
    assert isinstance(out, rc.DeviceArray) and out.device == device
    np.testing.assert_array_equal(out.numpy(), net.predict(x))
    seen = _core.device_array(array, "test")
    assert seen.__cuda_array_interface__["data"][0] == array.memory.pointer
    np.testing.assert_array_equal(seen.numpy(), x)


@gpu
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_any_float_becomes_the_networks_on_the_gpu(device, dtype):
    net = network(device, dtype)
    for given in ("float32", "float64"):
        x = rows(given)
        np.testing.assert_array_equal(net.predict(OnGpu(x)).numpy(), net.predict(x))
        np.testing.assert_array_equal(net.predict(WithInterface(x[::2])).numpy(), net.predict(x[::2]))
    halves, x = as_bfloat16(rows())
    np.testing.assert_array_equal(net.predict(OnGpu(halves, code=BFLOAT)).numpy(), net.predict(x))
    np.testing.assert_array_equal(
        net.predict(OnGpu(1e300 * rows("float64"))).numpy(), net.predict(1e300 * rows("float64"))
    )


@gpu
def test_no_rows_and_many(device):
    net = network(device)
    assert net.predict(OnGpu(rows(count=0))).shape == (0, OUTPUTS)
    x = rows(count=16384 + 5)  # more than NumPy's are taken at a time
    np.testing.assert_array_equal(net.predict(OnGpu(x)).numpy(), net.predict(x))


@gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_are_predicted_as_many_at_a_time_as_memory_has_room_for(device, dtype):
    net, x = network(device, dtype), rows("float64", count=70)  # each part is converted, which is counted
    whole = net.predict(x)
    before = emulated("gathers")
    net.predict(OnGpu(x))
    assert emulated("gathers") - before == 1
    for memory in (1, 1000, 5000):
        before = emulated("gathers")
        parts = net._core.predict(_core.to_device(x, device), memory=memory)
        assert emulated("gathers") - before > 1
        np.testing.assert_array_equal(parts.numpy(), whole)
        narrow = _core.to_device(x.astype("float32"), device)
        np.testing.assert_array_equal(net._core.predict(narrow, memory=memory).numpy(), whole)


@gpu
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"clip_norm": 0.1}, {"label_smoothing": 0.1}], ids=str)
def test_a_label_on_the_gpu_that_is_no_class_is_named_and_changes_nothing(device, dtype, settings):
    here, there = (rc.Trainer(network(device), optimizer="adam", **settings) for _ in range(2))
    x, y = rows(), labels(dtype)
    for value in (-1, OUTPUTS, np.iinfo(dtype).min, np.iinfo(dtype).max):
        assert here.step(x, y) == there.step(OnGpu(x), OnGpu(y))
        before, steps, bad = weights(there), there.steps, y.copy()
        bad[7] = value
        for offered in (OnGpu(bad), OnGpu(np.repeat(bad, 2)[::2])):
            with pytest.raises(
                ValueError, match=rf"^step: y must hold labels from 0 to {OUTPUTS - 1}, got {value} in row 7$"
            ):
                there.step(OnGpu(x), offered)
        assert there.steps == steps
        assert_same(weights(there), before)
    nan = x.copy()
    nan[2, 0] = np.nan
    with pytest.raises(FloatingPointError, match="layer 0, the input"):
        there.step(OnGpu(nan), OnGpu(y))
    with pytest.raises(rc.ShapeError, match=rf"one label a row, shape \({ROWS},\), got"):
        there.step(OnGpu(x), OnGpu(y[1:]))
    for layout in (np.repeat(y, 2)[::2], y[::-1].copy()[::-1]):
        assert here.step(x, y) == there.step(OnGpu(x), OnGpu(layout))
    assert_same(weights(here), weights(there))


@gpu
def test_labels_that_class_weights_go_by_are_looked_at_first(device):
    here, there = (rc.Trainer(network(device), class_weight=[1, 2, 3]) for _ in range(2))
    assert here.step(rows(), labels()) == there.step(OnGpu(rows()), OnGpu(labels()))
    with pytest.raises(ValueError, match="got 3 in row 0"):
        there.step(OnGpu(rows()), OnGpu(labels() * 0 + 3))
    assert here.step(rows(), labels()) == there.step(OnGpu(rows()), OnGpu(labels()))


@gpu
def test_nobody_waits_for_labels_on_the_gpu(device):
    def waits(loss, y):
        trainer, x, y = rc.Trainer(network(device), loss=loss), OnGpu(rows()), OnGpu(y)
        for _ in range(3):
            before = emulated("waits")
            trainer.step(x, y)
        return emulated("waits") - before

    assert waits("cross_entropy", labels()) == waits("mse", values())


@gpu
@pytest.mark.parametrize("offer", [OnGpu, WithInterface])
def test_steps_on_it_are_those_from_the_cpu(device, offer):
    """Each batch at an address of its own, again at a known one, and of another size between."""
    for loss, targets in (("cross_entropy", labels()), ("mse", values()), ("cross_entropy", labels("int32"))):
        here, there = (rc.Trainer(network(device), loss=loss, optimizer="adam") for _ in range(2))
        batches = [
            (slice(0, ROWS), offer(rows()), offer(targets)),
            (slice(0, 7), offer(rows()[:7]), offer(targets[:7])),
        ]
        weight = np.arange(1, ROWS + 1) / 4
        for chosen, x, y in [*batches, batches[0], batches[0], batches[1], batches[0]]:
            assert here.step(rows()[chosen], targets[chosen]) == there.step(x, y)
        assert here.step(rows(), targets, weight) == there.step(batches[0][1], batches[0][2], offer(weight))
        assert here.step(rows(), targets) == there.step(batches[0][1], targets)
        assert here.step(rows(), targets) == there.step(rows(), batches[0][2])
        assert_same(weights(here), weights(there))


@gpu
def test_gradients_and_their_kind(device):
    net = network(device)
    for loss, targets in (("cross_entropy", labels()), ("mse", values())):
        loss_here, here, d_x_here = net.gradients(rows(), targets, loss)
        loss_there, there, d_x_there = net.gradients(OnGpu(rows()), OnGpu(targets), loss)
        assert loss_here == loss_there and isinstance(d_x_here, np.ndarray) and isinstance(d_x_there, rc.DeviceArray)
        assert_same(here, there)
        np.testing.assert_array_equal(d_x_here, d_x_there.numpy())


@gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fit_and_evaluate(device, dtype):
    x, y, weight = rows(dtype, count=50), labels(count=50), np.arange(1, 51) / 8
    held_out = (rows(seed=5), labels())
    trainers = [rc.Trainer(network(device), batch_size=16) for _ in range(2)]
    trainers[0].fit(x, y, epochs=2, validation=held_out, sample_weight=weight, progress=False)
    trainers[1].fit(
        OnGpu(x),
        OnGpu(y),
        epochs=2,
        validation=tuple(map(OnGpu, held_out)),
        sample_weight=OnGpu(weight),
        progress=False,
    )
    assert_same(*map(weights, trainers))
    assert_same(*(trainer.history.to_dict() for trainer in trainers))
    assert trainers[0].evaluate(x, y, weight) == trainers[1].evaluate(OnGpu(x), OnGpu(y), OnGpu(weight))


@gpu
def test_batches_of_an_iterable(device):
    batches = [(rows(seed=seed), values()) for seed in range(3)]
    trainers = [rc.Trainer(network(device), loss="mse") for _ in range(2)]
    there = [(OnGpu(x), OnGpu(y)) for x, y in batches]
    trainers[0].fit(batches, epochs=2, validation=batches, progress=False)
    trainers[1].fit(there, epochs=2, validation=there, progress=False)
    assert_same(*map(weights, trainers))
    assert_same(*(trainer.history.to_dict() for trainer in trainers))
    gc.collect()
    assert all(array.deleted == len(array.asked) > 0 for pair in there for array in pair)


@gpu
def test_a_batch_may_be_overwritten_when_the_next_is_asked_for(device):
    """Steps of a fit are left in flight, but not while they read memory that is another's."""
    stream = OtherStream()
    batches = [(rows(seed=seed), labels()) for seed in range(4)]

    array = WithInterface(rows(), stream=stream.handle)

    def in_one_buffer():
        for x, y in batches:
            stream.write(array.memory.pointer, x)
            yield array, y

    here, there = (rc.Trainer(network(device)) for _ in range(2))
    here.fit(batches, epochs=1, progress=False)
    there.fit(in_one_buffer(), epochs=1, progress=False)
    assert_same(weights(here), weights(there))


@gpu
def test_one_output_takes_a_vector(device):
    y = values()[:, 0].copy()
    here, there = (rc.Trainer(network(device, outputs=1), loss="mse") for _ in range(2))
    assert here.step(rows(), y) == there.step(OnGpu(rows()), OnGpu(y))
    assert here.step(rows(), y) == there.step(OnGpu(rows()), OnGpu(np.repeat(y, 2)[::2]))
    assert here.evaluate([(rows(), y)]) == there.evaluate([(OnGpu(rows()), OnGpu(y))])
    assert_same(weights(here), weights(there))


@gpu
def test_probabilities_parameters_and_diagnosis(device):
    net = network(device)
    probabilities = net.predict_proba(OnGpu(rows()))
    assert probabilities.device == device
    np.testing.assert_array_equal(probabilities.numpy(), net.predict_proba(rows()))
    for copies in (net.parameters, net.buffers):
        there = copies(device)
        assert all(isinstance(array, rc.DeviceArray) and array.device == device for array in there.values())
        assert_same(copies(), {name: array.numpy() for name, array in there.items()})
        assert_same(copies("cpu"), copies())
    other = network(device)
    other.set_parameters({"1.weight": np.zeros((INPUTS, 9), "float32")})
    other.set_parameters(net.parameters(device))
    assert_same(other.parameters(), net.parameters())
    assert str(net.diagnose(OnGpu(rows()), OnGpu(labels()))) == str(net.diagnose(rows(), labels()))
    with pytest.raises(ValueError, match="check_finite"):
        net.predict(OnGpu(np.full((2, INPUTS), np.nan, "float32")), check_finite=True)


@gpu
def test_the_producer_is_given_our_stream_and_what_it_does_then_is_seen(device):
    x = rows()

    class Late(OnGpu):
        def __dlpack__(self, **arguments):
            if arguments["stream"] == stream():
                self.memory.write(x)
            return super().__dlpack__(**arguments)

    net, late = network(device), Late(np.zeros_like(x))
    np.testing.assert_array_equal(net.predict(late).numpy(), net.predict(x))
    assert late.asked == [{"stream": stream(), "max_version": (1, 0)}]


@gpu
def test_a_producer_from_before_versions_is_given_the_stream_alone(device):
    class Old(OnGpu):
        def __dlpack__(self, stream):
            return super().__dlpack__(stream=stream)

    net, old = network(device), Old(rows(), versioned=False)
    np.testing.assert_array_equal(net.predict(old).numpy(), net.predict(rows()))
    assert old.asked == [{"stream": stream()}]


@gpu
@pytest.mark.parametrize(
    "case", ["a stream", "legacy default", "thread default", "version 2", "version 2 with a stream"]
)
def test_work_of_the_interfaces_stream_comes_first(device, case):
    other = OtherStream({"a stream": None, "thread default": 2}.get(case, 1))
    named = {"version": 2, **({"stream": None} if "with" in case else {})} if "2" in case else {"stream": other.handle}
    x, net = rows(), network(device)
    array = WithInterface(np.zeros_like(x), **named)
    other.write(array.memory.pointer, x)
    np.testing.assert_array_equal(net.predict(array).numpy(), net.predict(x))


@gpu
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"stream": 0}, BufferError, "names stream 0, which may be either"),
        ({"version": 4}, BufferError, "version 4"),
        ({"mask": object()}, BufferError, "masked"),
        ({"shape": (2, -6)}, BufferError, "negative size"),
        ({"shape": (2**40, 2**40)}, BufferError, "more than"),
        ({"strides": (24,)}, BufferError, "1 strides for 2 dimensions"),
        ({"strides": (25, 4)}, BufferError, "whole elements, got 25"),
        ({"data": (64, False)}, BufferError, "in no GPU's memory"),
        ({"data": "here"}, BufferError, "not sound"),
        ({"typestr": ">f4"}, rc.DTypeError, "byte order"),
        ({"typestr": "|O"}, rc.DTypeError, "must hold numbers"),
        ({"typestr": None}, BufferError, "not sound"),
        ({"typestr": "<q9"}, BufferError, "not sound: data type"),
        ({"typestr": "<i4"}, rc.DTypeError, "must be float32 or float64, got int32"),
        ({"shape": (6,), "strides": None}, rc.ShapeError, "must be"),
    ],
)
def test_an_interface_that_is_refused(device, changes, error, message):
    with pytest.raises(error, match=message):
        network(device).predict(WithInterface(rows(), **changes))


@gpu
def test_an_array_between_elements_is_refused(device):
    between = WithInterface(rows())
    between.__cuda_array_interface__["data"] = (between.memory.pointer + 1, False)
    with pytest.raises(BufferError, match="a boundary of its elements, of 4 bytes"):
        network(device).predict(between)


@gpu
@pytest.mark.parametrize(
    ("case", "error", "message"),
    [
        ({"major": 2}, BufferError, "version 2"),
        ({"ndim": -1}, BufferError, "dimensions, got -1"),
        ({"lanes": 4}, BufferError, "1 lane"),
        ({"data": None}, BufferError, "no data"),
        ({"code": 5, "bits": 64}, rc.DTypeError, "element type"),
        ({"code": 0}, rc.DTypeError, "must be float32 or float64, got int32"),
        ({"ndim": 1}, rc.ShapeError, "must be"),
        ({"name": b"used_dltensor_versioned"}, BufferError, "consumed already"),
    ],
)
def test_a_capsule_that_is_refused_is_deleted_once(device, case, error, message):
    producer = OnGpu(rows(), **case)
    with pytest.raises(error, match=message):
        network(device).predict(producer)
    gc.collect()
    assert producer.deleted == 1


@gpu
def test_deleted_once_where_something_else_is_wrong(device):
    trainer = rc.Trainer(network(device))
    bad_labels, x = OnGpu(np.full(ROWS, OUTPUTS)), OnGpu(rows(), flags=1)
    with pytest.raises(ValueError, match="labels from 0 to 2, got 3"):
        trainer.step(x, bad_labels)
    with pytest.raises(FloatingPointError):
        trainer.step(nan := OnGpu(np.full((ROWS, INPUTS), np.nan, "float32")), labels())
    with pytest.raises(rc.ShapeError, match="targets are never broadcast"):
        rc.Trainer(network(device), loss="mse").step(x, wide := OnGpu(np.zeros((ROWS, OUTPUTS + 1), "float32")))
    with pytest.raises(ValueError, match="weight above 0"):
        trainer.step(x, labels(), zeros := OnGpu(np.zeros(ROWS)))
    gc.collect()
    for array in (bad_labels, x, nan, wide, zeros):
        assert array.deleted == len(array.asked) > 0


def outcome(call, *arguments):
    """What it returns, or what it raises."""
    try:
        return call(*arguments)
    except Exception as error:
        return type(error), str(error)


@gpu
@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "binary_cross_entropy"])
@pytest.mark.parametrize("outputs", [1, OUTPUTS])
def test_batches_of_ours_are_not_looked_at_twice_and_get_the_errors_of_any(device, loss, outputs):
    """Those of another library are looked at in Python."""
    ours, any_other = (rc.Trainer(network(device, outputs=outputs), loss=loss) for _ in range(2))
    x, integers, floats = rows(), labels() % max(outputs, 2), values()[:, :outputs].copy()
    of_x = [x, x[:, 1:].copy(), x[0], x.astype("float64"), x.astype("int32"), x[:0]]
    of_y = [
        *(integers, integers[1:].copy(), integers[:, None], integers.astype("int32"), integers.astype("int8")),
        *(integers - 1, integers.astype("float32"), floats, floats.astype("float64"), floats[1:].copy()),
        *(floats[0].copy(), floats[:, 0].copy(), np.repeat(floats, 2, axis=1), np.abs(np.tanh(floats))),
    ]
    outcomes, producers = [], []
    for a, b in [*((x, y) for y in of_y), *((bad, y) for bad in of_x for y in (integers, floats))]:
        producers += OnGpu(a), OnGpu(b)
        outcomes.append(outcome(any_other.step, *producers[-2:]))
        there = [_core.to_device(array, device) for array in (a, b)]
        assert outcome(ours.step, *there) == outcomes[-1]
        if ours._core.takes(*there):
            assert isinstance(outcomes[-1], float) or outcomes[-1][1].startswith("step: y must hold labels from")
    raised = sum(isinstance(one, tuple) for one in outcomes)
    assert raised > 8 and (raised < len(outcomes) or (loss, outputs) == ("cross_entropy", 1))
    assert_same(weights(ours), weights(any_other))
    gc.collect()
    assert all(array.deleted == len(array.asked) for array in producers)


@gpu
def test_what_is_taken_without_a_look(device):
    there, here, numbers = (lambda array: _core.to_device(array, device)), rows(), values()
    classes, regression = (rc.Trainer(network(device), loss=loss)._core.takes for loss in ("cross_entropy", "mse"))
    for y in (labels(), labels("int32"), np.repeat(labels(), 2)[::2]):
        assert classes(there(here), there(y)) and not regression(there(here), there(y))
    assert regression(there(here), there(numbers)) and not classes(there(here), there(numbers))
    assert (
        not classes(there(here), labels()) and not classes(here, there(labels())) and not classes(OnGpu(here), labels())
    )
    assert not rc.Trainer(network(device), class_weight=[1, 2, 3])._core.takes(there(here), there(labels()))
    for takes in (classes, rc.Trainer(network())._core.takes):
        assert takes(here, labels()) and not takes(here, labels().tolist())
        for other in (here[:, ::-1], here.astype("float64"), here[:, 1:], here[0], here.tolist(), np.ma.array(here)):
            assert not takes(other, labels())
    assert not rc.Trainer(network())._core.takes(there(here), there(labels()))


@gpu
def test_a_matrix_of_ours_gets_the_errors_of_any(device):
    net = network(device)
    for x in (rows()[:, 1:].copy(), rows()[0], rows().astype("int32"), rows()[None]):
        array = _core.to_device(x, device)
        assert not net._core.takes(array)
        assert outcome(net.predict, array) == outcome(net.predict, OnGpu(x))
    assert net._core.takes(_core.to_device(rows(), device)) and net._core.takes(rows())
    elsewhere = network("cpu")
    assert not elsewhere._core.takes(_core.to_device(rows(), device))
    with pytest.raises(rc.DeviceError, match="must be in the CPU's memory, as its network is"):
        elsewhere.predict(_core.to_device(rows(), device))
    assert net.predict(_core.to_device(rows(count=0), device)).shape == (0, OUTPUTS)


@gpu
def test_another_gpus_array(device):
    net = network(device)
    message = rf"predict: X is on cuda:1, and its network on {device}; copy it .* net\.to\('cuda:1'\)"
    with pytest.raises(rc.DeviceError, match=message):
        net.predict(OnGpu(rows(), device_index=1))
    with pytest.raises(rc.DeviceError, match="y is on cuda:1"):
        rc.Trainer(net).step(rows(), OnGpu(labels(), device_index=1))
    with pytest.raises(rc.DeviceError, match=r'must be "cpu" or the network\'s, cpu'):
        network("cpu").parameters(device)
    with pytest.raises(rc.DeviceError, match="X is on cuda:0, and the work is done on cpu"):
        network("cpu")._core.predict(net.parameters(device)["1.weight"])


@pytest.mark.parametrize("offered", ["DLPack", "interface"])
def test_a_gpus_array_for_the_cpu(offered):
    interface = types.SimpleNamespace(__cuda_array_interface__={"version": 3})
    x = Producer(rows(), device_kind=2) if offered == "DLPack" else interface
    net = network()
    remedy = "must be in the CPU's memory.* copy it to the CPU first"
    for call in (
        lambda: net.predict(x),
        lambda: net.predict_proba(x),
        lambda: rc.Trainer(net).step(x, labels()),
        lambda: rc.Trainer(net).step(rows(), x),
        lambda: rc.Trainer(net).fit(x, labels()),
        lambda: rc.Trainer(net).fit([(x, labels())]),
        lambda: rc.Trainer(net).evaluate(rows(), labels(), sample_weight=x),
        lambda: net.gradients(x, labels()),
        lambda: net.set_parameters({"1.weight": x}),
    ):
        with pytest.raises(rc.DeviceError, match=remedy + r".*net\.to\('cuda") as error:
            call()
        assert isinstance(error.value, BufferError)
    assert offered == "interface" or (x.asked == [] and x.deleted == 0)


# The producer's side.


@pytest.fixture
def made(device):
    """What a network gives, and the same in NumPy."""
    net = network(device)
    return net.predict(OnGpu(rows())), net.predict(rows())


@gpu
@pytest.mark.parametrize("at", [None, 1, 2, -1, "ours"])
@pytest.mark.parametrize("max_version", [None, (0, 8), (1, 0), (1, 1), (2, 0)])
def test_a_capsule_as_the_standard_has_it(made, at, max_version):
    array, expected = made
    assert array.__dlpack_device__() == (2, 0)
    pointer = array.__cuda_array_interface__["data"][0]
    taken = Consumed(array.__dlpack__(stream=stream() if at == "ours" else at, max_version=max_version))
    assert taken.version == ((1, 0) if max_version and max_version[0] >= 1 else None)
    t = taken.tensor
    assert (t.data, t.device_kind, t.device_index, t.byte_offset) == (pointer, 2, 0, 0)
    assert (t.code, t.bits, t.lanes) == (2, 32, 1)
    assert taken.shape == expected.shape and taken.strides == (OUTPUTS, 1) and taken.flags in (None, 0)
    del array
    gc.collect()
    same = _core.device_array(Lent(taken), "test")  # it lives as long as its consumer wants it to
    np.testing.assert_array_equal(same.numpy(), expected)
    taken.delete()


class Lent:
    """A consumer's array, offered on."""

    def __init__(self, taken):
        self.__cuda_array_interface__ = {
            "shape": taken.shape,
            "typestr": "<f4",
            "data": (taken.tensor.data, False),
            "version": 3,
        }


@gpu
def test_what_nobody_takes_and_what_is_a_part(made):
    array, expected = made
    array.__dlpack__(max_version=(1, 0))
    array.__dlpack__()
    assert len(array) == ROWS and array.ndim == 2 and array.dtype == np.float32
    assert repr(array) == "<DeviceArray of (12, 3) float32 on cuda:0>"
    for part in (slice(2, 5), slice(None, None, -2), slice(5, 5), slice(20, 30)):
        np.testing.assert_array_equal(array[part].numpy(), expected[part])
    taken = Consumed(array[::-2].__dlpack__())
    assert taken.strides == (-2 * OUTPUTS, 1)
    assert array[::-2].__cuda_array_interface__["strides"] == (-8 * OUTPUTS, 4)
    taken.delete()


@gpu
@pytest.mark.parametrize("max_version", [None, (1, 0)])
def test_copies(made, max_version):
    array, expected = made
    taken = Consumed(array[::2].__dlpack__(copy=True, stream=1, max_version=max_version))
    assert taken.tensor.device_kind == 2 and taken.flags in (None, 2)
    assert taken.tensor.data != array.__cuda_array_interface__["data"][0]
    strided = np.dtype("f4").itemsize * np.array(taken.strides)
    lent = Lent(taken)
    lent.__cuda_array_interface__["strides"] = tuple(strided)
    np.testing.assert_array_equal(_core.device_array(lent, "test").numpy(), expected[::2])
    taken.delete()
    taken = Consumed(array.__dlpack__(dl_device=(1, 0), max_version=max_version))
    assert (taken.tensor.device_kind, taken.flags) in ((1, None), (1, 2))
    taken.delete()
    np.testing.assert_array_equal(np.from_dlpack(array, device="cpu"), expected)


@gpu
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"stream": 0}, ValueError, "either of CUDA's default streams"),
        ({"stream": -2}, ValueError, "stream must be -1, 1, 2"),
        ({"stream": "main"}, TypeError, "stream must be an int"),
        ({"stream": True}, TypeError, "stream must be an int"),
        ({"max_version": 1}, ValueError, "max_version must be"),
        ({"dl_device": 2}, ValueError, "dl_device must be"),
        ({"dl_device": (2, 1)}, BufferError, r"can be given there or on the CPU, \(1, 0\), got \(2, 1\)"),
        ({"dl_device": (10, 0)}, BufferError, "can be given there"),
        ({"dl_device": (1, 0), "copy": False}, BufferError, "without a copy"),
    ],
)
def test_what_cannot_be_given(made, arguments, error, message):
    with pytest.raises(error, match=message):
        made[0].__dlpack__(**arguments)


@gpu
def test_read_only_is_said_or_refused(device):
    array = _core.device_array(OnGpu(rows(), flags=1), "test")
    assert array.__cuda_array_interface__["data"][1]
    with pytest.raises(BufferError, match="read-only, which DLPack before version 1 cannot say"):
        array.__dlpack__()
    for arguments, flags in (({}, 1), ({"copy": True}, 2), ({"dl_device": (1, 0)}, 2)):
        taken = Consumed(array.__dlpack__(max_version=(1, 0), **arguments))
        assert taken.flags == flags
        taken.delete()
    taken = Consumed(array.__dlpack__(copy=True))
    taken.delete()


@gpu
def test_bfloat16_has_its_code_and_no_typestr(device):
    halves, _ = as_bfloat16(rows())
    array = _core.device_array(OnGpu(halves, code=BFLOAT), "test")
    for place in (None, (1, 0)):
        taken = Consumed(array.__dlpack__(dl_device=place))
        assert (taken.tensor.code, taken.tensor.bits) == (BFLOAT, 16)
        taken.delete()
    assert not hasattr(array, "__cuda_array_interface__")


# Frameworks on a real GPU. A kernel that takes long is on its way when the library is given what it writes.


def torch_on_gpu():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch


@gpu
def test_tensors_of_torch_on_a_stream_of_their_own(device):
    torch = torch_on_gpu()
    x, y, net = rows(), labels(), network(device)
    expected, (loss, _, d_x) = net.predict(x), net.gradients(x, y)
    with torch.cuda.stream(torch.cuda.Stream()):
        given, targets = torch.zeros(x.shape, device=device), torch.zeros(len(y), dtype=torch.int64, device=device)
        late_x, late_y = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)
        torch.cuda.synchronize()
        torch.cuda._sleep(200_000_000)
        given.copy_(late_x)
        targets.copy_(late_y)
        out = net.predict(given)
        assert out.is_cuda and type(out) is torch.Tensor
        assert _core.device_array(given, "test").__cuda_array_interface__["data"][0] == given.data_ptr()
        torch.cuda._sleep(200_000_000)
        given.zero_()
        given.copy_(late_x)
        found, _, gradient = net.gradients(given, targets)
        np.testing.assert_array_equal((out + 0).cpu().numpy(), expected)
        np.testing.assert_array_equal(gradient.cpu().numpy(), d_x)
        assert found == loss
    there, here = rc.Trainer(net.copy()), rc.Trainer(net.copy())
    for _ in range(4):
        assert there.step(torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)) == here.step(x, y)
    assert_same(weights(there), weights(here))
    assert torch.cuda.current_device() == 0


@gpu
def test_arrays_of_cupy_on_a_stream_of_their_own(device):
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    x, net = rows(), network(device)
    with cupy.cuda.Stream(non_blocking=True):
        given = cupy.asarray(x)
        out = net.predict(given)
        assert isinstance(out, cupy.ndarray)
        np.testing.assert_array_equal(cupy.asnumpy(out), net.predict(x))
        parameters = net.parameters(device)
        np.testing.assert_array_equal(cupy.asnumpy(cupy.asarray(parameters["1.weight"])), net.parameters()["1.weight"])


@gpu
def test_arrays_of_jax(device):
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX sees no GPU")
    x, net = rows(), network(device)
    out = net.predict(jax.numpy.asarray(x) + 0)
    assert isinstance(out, jax.Array) and out.devices() == {jax.devices()[0]}
    np.testing.assert_array_equal(np.asarray(out), net.predict(x))
