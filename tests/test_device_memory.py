"""Memory that other programs still read or write when the library gives it back, gives a copy of it, or reads it: their work
comes first."""

import gc

import numpy as np
import pytest

import resnetcore as rc
from capsules import Consumed, Producer
from gpu_memory import Memory, OnGpu, OtherStream, emulated
from resnetcore import _core

pytestmark = pytest.mark.gpu

x = np.random.default_rng(0).standard_normal((12, 6)).astype("float32")
LEGACY = 1  # CUDA's default stream


def network(device):
    return rc.Network(6, [rc.Layer(9), rc.Layer(3, activation=None)], seed=3, device=device)


@pytest.mark.parametrize("offer", ["DLPack", "a copy by DLPack", "a part by DLPack", "interface"])
def test_a_results_memory_is_not_reused_before_the_default_stream_has_read_it(device, offer):
    net, consumer = network(device), OtherStream(LEGACY)
    expected, array = net.predict(x), net.predict(OnGpu(x))
    seen, taken = np.zeros_like(expected), None
    if offer == "interface":
        at = array.__cuda_array_interface__["data"][0]
    else:
        given = array[:] if "part" in offer else array
        taken = Consumed(given.__dlpack__(stream=LEGACY, copy="copy" in offer or None))
        at = taken.tensor.data
    consumer.read(seen, at)
    array = given = None
    if taken is not None:
        taken.delete()
    gc.collect()
    np.testing.assert_array_equal(seen, expected)


def test_what_nobody_was_given_waits_for_nobody(device):
    net, other, memory = network(device), OtherStream(LEGACY), Memory(x)
    seen = np.zeros_like(x)
    other.read(seen, memory.pointer)
    array = net.predict(OnGpu(x))
    del array
    gc.collect()
    assert not seen.any()
    other.wait()
    np.testing.assert_array_equal(seen, x)


def predicted(device):
    """A network, a matrix that is the library's alone, its address, and what the network makes of it."""
    net, array = network(device), _core.to_device(x, device)
    net.predict(array).numpy()
    address = _core.layout_of(array).__array_interface__["data"][0]
    return net, array, address, net.predict(x)


def test_nobody_waits_for_a_prediction_of_what_is_the_librarys_alone(device):
    net, array, _, expected = predicted(device)
    before = emulated("waits")
    out = net.predict(array)
    again = net.predict(array[::2])
    assert emulated("waits") == before
    del array
    gc.collect()
    np.testing.assert_array_equal(out.numpy(), expected)
    np.testing.assert_array_equal(again.numpy(), expected[::2])
    net.predict(OnGpu(x))
    assert emulated("waits") > before + 2


def test_steps_that_follow_do_not_change_a_prediction(device):
    net, array, _, expected = predicted(device)
    trainer, y = rc.Trainer(net), _core.to_device(np.arange(len(x)) % 3, device)
    for _ in range(3):
        out = net.predict(array)
        trainer.step(array, y)
        np.testing.assert_array_equal(out.numpy(), expected)
        expected = net.predict(x)


@pytest.mark.parametrize(
    "offer", ["a stream", "the default stream", "nobody waits", "a copy, nobody waits", "interface"]
)
def test_who_takes_a_prediction_finds_it(device, offer):
    net, array, _, expected = predicted(device)
    consumer = OtherStream(LEGACY if "default" in offer else None)
    out, seen = net.predict(array), np.zeros_like(expected)
    if offer == "interface":
        at, taken = out.__cuda_array_interface__["data"][0], None
    else:
        named = -1 if "nobody" in offer else consumer.handle
        taken = Consumed(out.__dlpack__(stream=named, copy="copy" in offer or None))
        at = taken.tensor.data
    consumer.read(seen, at)
    consumer.wait()
    np.testing.assert_array_equal(seen, expected)
    if taken is not None:
        taken.delete()


@pytest.mark.parametrize("given", ["before", "after", "after, nobody waits", "after, by interface"])
def test_who_is_given_a_matrix_may_write_to_it_after_the_prediction(device, given):
    net, array, address, expected = predicted(device)
    other = OtherStream()

    def give():
        if "interface" in given:
            array.__cuda_array_interface__  # noqa: B018
        else:
            Consumed(array.__dlpack__(stream=-1 if "nobody" in given else other.handle)).delete()

    if given == "before":
        give()
    out = net.predict(array)
    if given != "before":
        give()
    other.write(address, np.zeros_like(x))
    other.wait()
    np.testing.assert_array_equal(out.numpy(), expected)
    np.testing.assert_array_equal(array.numpy(), np.zeros_like(x))


def test_a_copy_that_nobody_is_to_wait_for_is_there(device):
    net, consumer = network(device), OtherStream()
    expected, array = net.predict(x), net.predict(OnGpu(x))
    taken = Consumed(array.__dlpack__(stream=-1, copy=True))
    seen = np.zeros_like(expected)
    consumer.read(seen, taken.tensor.data)
    consumer.wait()
    np.testing.assert_array_equal(seen, expected)
    taken.delete()


@pytest.mark.parametrize("place", ["cpu", "gpu"])
def test_memory_that_cpu_and_gpu_share_is_read_after_the_gpus_work(device, place):
    net, shared = network("cpu" if place == "cpu" else device), np.zeros_like(x)
    expected, producer = net.predict(x), Producer(shared, device_kind=13)
    OtherStream(LEGACY).write(shared.ctypes.data, x)
    np.testing.assert_array_equal(net.predict(producer), expected)
    assert producer.asked == [{"max_version": (1, 0)}]  # no stream: the default one
