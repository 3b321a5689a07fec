"""Every instruction set that this machine runs passes the same tests: the one in use by those tests themselves, each other one
in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from comparison import BOUND, OPTIMIZERS
from resnetcore import _core

HERE = Path(__file__).parent
FORCED = "RESNETCORE_TESTED_ISA"
IN_USE = _core.isa_info()["current"]
OTHERS = [i["name"] for i in _core.isa_info()["known"] if i["compiled"] and i["supported"] and i["name"] != IN_USE]


# As Linux names them.
FLAGS = {
    "avx2": {"avx2", "fma"},
    "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx512_bf16": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bf16"},
}


def test_what_runs_here_is_what_linux_says():
    info = Path("/proc/cpuinfo")
    flags = re.search(r"^flags\s*:(.*)$", info.read_text(), re.M) if info.exists() else None
    if flags is None:
        pytest.skip("Linux on x86-64 tells what the CPU has, and what it saves")
    supported = {isa["name"]: isa["supported"] for isa in _core.isa_info()["known"]}
    assert supported["baseline"]
    for name, needed in FLAGS.items():
        assert supported[name] == (needed <= set(flags[1].split())), name


@pytest.mark.skipif(FORCED not in os.environ, reason="run by test_the_selection, once for each instruction set")
def test_the_forced_one_is_in_use():
    assert IN_USE == os.environ[FORCED]


@pytest.mark.parametrize("isa", OTHERS)
@pytest.mark.skipif(FORCED in os.environ, reason="already within the run of one instruction set")
def test_the_selection(isa):
    reference = "test_network_reference.py::test_"
    tests = [
        "test_isa.py",
        *(f"{reference}outputs_and_gradients[{seed}-{dtype}]" for seed in range(12) for dtype in BOUND),
        *(
            f"{reference}five_steps[{seed}-{rule}-{dtype}]"
            for seed in range(3)
            for rule in OPTIMIZERS
            for dtype in BOUND
        ),
        "test_updates.py",
        "test_ops.py",
        "test_exact_integers.py",
        "test_batch_independence.py",
        "test_central_differences.py",
        "test_strategies.py",
        "test_bfloat16.py",
        "test_ops_bfloat16.py",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(str(HERE / name) for name in tests)],
        env={**os.environ, "RESNETCORE_ISA": isa, FORCED: isa},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
