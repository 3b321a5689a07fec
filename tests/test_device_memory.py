"""Memory that other programs still read or write when the library gives it back, gives a copy of it, or reads it: their work
comes first."""

import gc

import numpy as np
import pytest

import resnetcore as rc
from capsules import Consumed, Producer
from gpu_memory import Memory, OnGpu, OtherStream

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
