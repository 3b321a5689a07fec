"""The same bits whatever the number of threads, from run to run and from process to process."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

import resnetcore as rc
from resnetcore import _core

NETWORKS = {
    "plain": {},
    "batch norm": {"norm": "batch"},
    "dropout": {"dropout": 0.2},
}


def digest(kind, optimizer=None):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 33)).astype("float32")
    y = rng.integers(0, 5, 300)
    net = rc.models.resnet(33, 5, 70, 12, seed=1, **NETWORKS[kind])
    trainer = rc.Trainer(net, optimizer=optimizer or rc.SGD(lr=0.01, momentum=0.9), seed=2)
    for _ in range(50):
        trainer.step(x, y)
    hashed = hashlib.sha256()
    for name, array in sorted({**net.parameters(), **net.buffers()}.items()):
        hashed.update(name.encode() + array.tobytes())
    assert all(np.isfinite(a).all() for a in net.parameters().values())
    return hashed.hexdigest()


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("optimizer", [rc.SGD(lr=0.01, momentum=0.9), rc.AdamW(lr=0.001)], ids=["momentum", "adamw"])
def test_any_number_of_threads_gives_the_same_weights(kind, optimizer):
    before = rc.get_num_threads()
    try:
        digests = []
        for threads in (1, 2, 3, 4):
            rc.set_num_threads(threads)
            digests.append(digest(kind, optimizer))
    finally:
        rc.set_num_threads(before)
    assert len(set(digests)) == 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_wide_layers_whose_sums_wait_for_rows(dtype):
    """How many panels' sums wait together, and what is laid out, follows threads, rows and caches: no bit does."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 270)).astype("float32"), rng.integers(0, 200, 400)
    before, predictions = rc.get_num_threads(), set()
    try:
        for strategy in ("by_layer", "by_tile"):
            _core.set_strategy(strategy)
            for threads in (1, 2, 5):
                rc.set_num_threads(threads)
                net = rc.models.resnet(270, 200, 530, 4, seed=1, dtype=dtype)
                trainer = rc.Trainer(net, optimizer=rc.SGD(lr=0.01))
                for rows in (130, 400, 100):
                    trainer.step(x[:rows], y[:rows])
                predictions.add(net.predict(x).tobytes())
    finally:
        _core.set_strategy("auto")
        rc.set_num_threads(before)
    assert len(predictions) == 1


def test_threads_that_wait_for_each_other():
    """Long phases of many tiles, so that threads are at work at the same time even on a busy machine."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4096, 64)).astype("float32"), rng.integers(0, 5, 4096)
    before, weights = rc.get_num_threads(), []
    try:
        for threads in (1, 2, 4, 2, 4):
            rc.set_num_threads(threads)
            net = rc.models.resnet(64, 5, 64, 10, norm="batch", seed=1)
            trainer = rc.Trainer(net, optimizer=rc.SGD(lr=0.01), seed=2)
            for _ in range(10):
                trainer.step(x, y)
            weights.append(np.concatenate([a.ravel() for a in {**net.parameters(), **net.buffers()}.values()]))
    finally:
        rc.set_num_threads(before)
    assert all(np.array_equal(weights[0], other) for other in weights[1:])


def test_another_process_gives_the_same_weights():
    command = [sys.executable, "-c", "from test_determinism import digest; print(digest('dropout'))"]
    here = __file__.rpartition("/")[0]
    printed = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout.strip()
    assert printed == digest("dropout")
