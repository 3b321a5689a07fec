"""Chains of narrow layers in one launch (RESNETCORE_CUDA_PATH=hopper_narrow): networks train and predict to the same bits as
layer by layer; and so they do on hopper_fused, but for norms, whose sums are put together in another order. What layers
compute is tested against float64 by the tests of bfloat16, which `.ci/run` repeats on these paths."""

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
RELU = [Layer(72), Layer(72), Layer(72, skips={2: "identity"}), Layer(72, skips={2: "identity"}), Layer(3, activation=None)]
NORMS = [Layer(40, norm="batch"), Layer(100, norm="batch"), Layer(100, norm="batch", skips={2: "learned"}),
         Layer(100, norm="batch", skips={2: "identity"}, activation="tanh"), Layer(3, activation=None)]

# The first layer's products of 700 rows are taken by broad tiles forward and back, those of 300 on an emulated GPU back only.
WIDE = [Layer(512), Layer(1000), Layer(3, activation=None)]

library = os.environ.get("RESNETCORE_CUDA_LIBRARY")
blocks = ctypes.CDLL(library).resnetcore_emulated_shared_blocks if library else lambda: None
digests, losses, counts = {}, {}, {}
rng = np.random.default_rng(0)
x, y = rng.standard_normal((150, 20)).astype("float32"), rng.integers(0, 3, 150)
for name, layers in dict(SKIPS=SKIPS, MIXED=MIXED, PRE=PRE, RELU=RELU, NORMS=NORMS).items():
    before = blocks()
    net = rc.Network(20, layers, seed=1, dtype="bfloat16", device="cuda")
    trainer = rc.Trainer(net, optimizer=rc.SGD(lr=0.05, momentum=0.9))
    losses[name] = [trainer.step(x, y) for _ in range(3)]
    digest = hashlib.sha256(np.array(losses[name]).tobytes())
    for array in (*net.parameters().values(), net.predict(x), net.predict(x[:1])):
        digest.update(np.ascontiguousarray(array).tobytes())
    digests[name] = digest.hexdigest()
    counts[name] = library and blocks() - before

net = rc.Network(640, WIDE, seed=1, dtype="bfloat16", device="cuda")
trainer = rc.Trainer(net, optimizer=rc.SGD(lr=0.05))
x, y = rng.standard_normal((700, 640)).astype("float32"), rng.integers(0, 3, 700)
wide = [trainer.step(x[:rows], y[:rows]) for rows in (700, 300, 300)]

print(json.dumps([digests, losses, counts, wide]))
"""


def run(path):
    environment = {**os.environ, "RESNETCORE_CUDA_PATH": path}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def single(device):
    hopper = 90
    if _core.cuda_info()["gpus"][0][1] != hopper:
        pytest.skip("Hopper's path needs a GPU of compute capability 9.0")
    return run("hopper")


def were_chains(counts, of_single, names):
    return all(counts[name] is None or 0 < counts[name] < of_single[name] for name in names)


def test_chains_have_the_bits_of_single_layers(single):
    digests, _, counts, wide = run("hopper_narrow")
    assert digests == single[0] and wide == single[3]
    assert were_chains(counts, single[2], digests)


def test_fused_chains_have_the_bits_of_single_layers_but_for_norms(single):
    digests, losses, counts, wide = run("hopper_fused")
    assert [digests[name] for name in ("SKIPS", "RELU")] == [single[0][name] for name in ("SKIPS", "RELU")]
    assert wide == single[3]
    for name, of_net in losses.items():
        assert of_net == pytest.approx(single[1][name], rel=2e-2)
    assert were_chains(counts, single[2], digests)
    # What is left are weights' gradients, and a chain forward and one back, of three blocks each.
    assert counts["NORMS"] is None or counts["NORMS"] < single[2]["NORMS"] / 2
