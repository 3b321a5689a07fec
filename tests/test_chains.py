"""Chains of narrow layers in one launch (RESNETCORE_CUDA_PATH=hopper_narrow): networks train and predict to the same bits as
layer by layer. What layers compute is tested against float64 by the tests of bfloat16, which `.ci/run` repeats on that path."""

import json
import os
import subprocess
import sys

import pytest

from resnetcore import _core

pytestmark = pytest.mark.gpu

PROGRAM = """
import ctypes, hashlib, json, os
import numpy as np
import resnetcore as rc
from resnetcore import Layer

SKIPS = [Layer(48), Layer(48, skips={2: "learned"}), Layer(48, skips={2: "identity", 3: "learned"}, activation="gelu"),
         Layer(48, skips={2: "identity"}), Layer(3, activation=None)]
# What no chain takes, between what it does.
MIXED = [Layer(40), Layer(40, norm="batch"), Layer(40, dropout=0.2), Layer(40, skips={2: "identity"}), Layer(40),
         Layer(40, gate=True), Layer(300), Layer(40), Layer(40), Layer(3, activation=None)]
PRE = [Layer(32), Layer(32, pre=True), Layer(32, pre=True, norm="batch", skips={2: "identity"}), Layer(3, activation=None)]

digests = []
rng = np.random.default_rng(0)
x, y = rng.standard_normal((150, 20)).astype("float32"), rng.integers(0, 3, 150)
for layers in (SKIPS, MIXED, PRE):
    net = rc.Network(20, layers, seed=1, dtype="bfloat16", device="cuda")
    trainer = rc.Trainer(net, optimizer=rc.SGD(lr=0.05, momentum=0.9))
    digest = hashlib.sha256(np.array([trainer.step(x, y) for _ in range(3)]).tobytes())
    for array in (*net.parameters().values(), net.predict(x), net.predict(x[:1])):
        digest.update(np.ascontiguousarray(array).tobytes())
    digests.append(digest.hexdigest())

library = os.environ.get("RESNETCORE_CUDA_LIBRARY")
print(json.dumps([digests, ctypes.CDLL(library).resnetcore_emulated_shared_blocks() if library else None]))
"""


def run(path):
    environment = {**os.environ, "RESNETCORE_CUDA_PATH": path}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_chains_have_the_bits_of_single_layers(device):
    hopper = 90
    if _core.cuda_info()["gpus"][0][1] != hopper:
        pytest.skip("Hopper's path needs a GPU of compute capability 9.0")
    single, blocks = run("hopper")
    chained, fewer = run("hopper_narrow")
    assert chained == single
    assert blocks is None or 0 < fewer < blocks  # they were chains
