"""Networks on the second of two GPUs, real or of the emulation: what is where, and whose arrays are refused."""

import numpy as np
import pytest

import resnetcore as rc
from gpu_memory import OnGpu, WithInterface
from resnetcore import _core

pytestmark = pytest.mark.gpu

rng = np.random.default_rng(0)
X, y = rng.standard_normal((40, 6)).astype("float32"), rng.integers(0, 3, 40)


@pytest.fixture
def second(device, monkeypatch):
    monkeypatch.setenv("RESNETCORE_EMULATED_DEVICES", "2")
    try:
        return _core.check_device("cuda:1")
    except rc.DeviceError as error:
        pytest.skip(str(error))


def trainer(device):
    layers = [rc.Layer(9, norm="batch"), rc.Layer(9, skips={2: "learned"}), rc.Layer(3, activation=None)]
    return rc.Trainer(rc.Network(6, layers, seed=3, device=device), optimizer="adam", batch_size=16)


def assert_same(one, other):
    for name, array in one.net._arrays().items():
        np.testing.assert_array_equal(other.net._arrays()[name], array, err_msg=name)


def test_both_train_to_the_same_bits(device, second, tmp_path):
    one, other = trainer(device), trainer(second)
    for each in (one, other):
        each.fit(X, y, epochs=2, progress=False)
    assert other.net.device == second
    assert_same(one, other)
    other.save(tmp_path / "file")
    for place in (device, second):
        resumed = rc.Trainer.resume(tmp_path / "file", device=place)
        resumed.fit(X, y, epochs=3, progress=False)
        assert resumed.net.device == place
        if place == device:
            one.fit(X, y, epochs=3, progress=False)
        assert_same(one, resumed)


def test_there_and_back(device, second):
    net = trainer("cpu").net
    there = net.to(device).to(second)
    back = there.to(device).to("cpu")
    for name, array in net._arrays().items():
        np.testing.assert_array_equal(back._arrays()[name], array)
    np.testing.assert_array_equal(there.predict(X), net.to(device).predict(X))


def test_an_array_of_the_other_one_is_refused(device, second):
    net = trainer(second).net
    for offer in (OnGpu, WithInterface):
        with pytest.raises(rc.DeviceError, match=rf"X is on {device}, and its network on {second}"):
            net.predict(offer(X))


def test_an_array_without_elements_is_on_any(second):
    out = trainer(second).net.predict(WithInterface(X[:0]))
    assert out.shape == (0, 3) and out.device == second


def test_an_empty_array_is_where_the_others_are(second):
    """By `__cuda_array_interface__` it does not say; DLPack's always do."""
    empty = WithInterface(np.zeros((0, 6), "float32"))
    weight = _core.to_device(np.ones((6, 6), "float32"), second)
    for device in (None, second):
        result = rc.ops.residual_forward([empty], [weight], identity=[empty], device=device)
        assert result.device == second and result.shape == (0, 6)
