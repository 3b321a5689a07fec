"""`python -m benchmarks.instructions [--check | --update]`: instructions that one step takes, counted by callgrind.

Counts repeat, to 1 in 1000, where times on a shared machine do not: a loop that lost its registers or its unrolling shows.
Valgrind has no AVX-512; what is counted are the same loops compiled for AVX2. One thread; a run of more steps less a run of
few leaves out all that is not a step. `--check` fails where a count exceeds by 3 % what `instructions.json` has of
the same compiler; another compiler's counts say nothing of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .networks import Case
from .rivals import resnetcore
from .shapes import Shape

EXPECTED = Path(__file__).with_suffix(".json")
TOLERANCE = 0.03
CASES = {
    "train": Case(Shape(96, 64, 6)),
    "train, odd sizes": Case(Shape(61, 45, 6)),
    "train, wide": Case(Shape(64, 256, 4)),
    "train, norm": Case(Shape(96, 64, 6), "norm"),
    "train, bfloat16": Case(Shape(96, 64, 6), precision="bfloat16"),
    "infer": Case(Shape(96, 64, 6), mode="infer"),
}
ENVIRONMENT = {"RESNETCORE_ISA": "avx2", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


FEW = 2


def run(name: str | None) -> None:
    """What is counted: few steps of every case, and more of one."""
    for other, case in CASES.items():
        step, _ = resnetcore.build(case, case.problem(), 1)
        for _ in range(FEW + (more(name) if other == name else 0)):
            step()


def more(name: str) -> int:
    """Steps that add up to half of what the start of a process takes."""
    return max(8, int(6e8 / CASES[name].operations))


def collected(name: str | None) -> int:
    """Instructions of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        tool = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        program = [sys.executable, "-c", f"from benchmarks.instructions import run; run({name!r})"]
        result = subprocess.run(
            [*tool, *program], env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False
        )
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode != 0 or not found:
        sys.exit(f"valgrind: {result.stderr[-2000:]}")
    return int(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail where a count has grown")
    parser.add_argument("--update", action="store_true", help="write the counts to it")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("there is no valgrind (Debian: valgrind)")
    from resnetcore import _core

    compiler, expected = _core.build_info()["compiler"], json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    comparable = expected.get("compiler") == compiler
    counts, grown = {}, []
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))  # a count is no matter of what runs beside it
    start, *totals = (pool.submit(collected, name) for name in (None, *CASES))
    for (name, case), total in zip(CASES.items(), totals, strict=True):
        counts[name] = round((total.result() - start.result()) / more(name))
        known = expected.get("counts", {}).get(name) if comparable else None
        change = f", {100 * (counts[name] / known - 1):+.1f} %" if known else ""
        print(f"{name:18} {counts[name]:>10,}, {counts[name] / case.operations:.3f} an operation{change}", flush=True)
        if known and counts[name] > known * (1 + TOLERANCE):
            grown.append(name)
    if arguments.update:
        EXPECTED.write_text(json.dumps({"compiler": compiler, "counts": counts}, indent=1) + "\n")
    elif not comparable:
        print(
            f"nothing to compare with: counts are of compiler {expected.get('compiler')}, this build is of {compiler}"
        )
    elif arguments.check and grown:
        sys.exit(
            f"more instructions than before: {', '.join(grown)}; --update if that is the price of something better"
        )


if __name__ == "__main__":
    main()
