"""Peak memory of a side: how far its process grows above what it had with imports, thread pools and data in place.

Each side has a process of its own, with glibc's malloc as it comes. A tiny network of the same kind goes first, so that
libraries and compilers have loaded what they load once. `python -m benchmarks.memory NAME CASE THREADS` prints JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from .networks import Case
from .shapes import Shape

STEPS = 3
TINY = Shape(batch=8, width=16, depth=6)
MIB = 2**20


def peak_memory(name: str, case: Case, threads: int, environment: dict[str, str] | None = None) -> dict:
    """{"memory_mib": of later steps, "memory_first_mib": of building and first steps, "memory_by": how}."""
    done = subprocess.run(
        [sys.executable, "-m", __spec__.name, name, json.dumps(case.to_dict()), str(threads)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"memory of {name}: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def grown(name: str, case: Case, threads: int) -> dict:
    """What `peak_memory` returns, measured in this process."""
    build = importlib.import_module(f".rivals.{name}", __package__).build

    def repeat(step):
        for _ in range(STEPS):
            step()

    problem, tiny = case.problem(), replace(case, shape=TINY)
    repeat(build(tiny, tiny.problem(), threads)[0])
    can_set_back = set_back()
    before = highest()
    step, _ = build(case, problem, threads)
    repeat(step)
    first = highest() - before
    # A compiler's own memory, needed once, is in `first` alone.
    set_back()
    repeat(step)
    how = "VmHWM, set back" if can_set_back else "high-water mark, never set back"
    return {"memory_mib": (highest() - before) / MIB, "memory_first_mib": first / MIB, "memory_by": how}


def set_back() -> bool:
    """Sets the high-water mark to what is resident now, where that is allowed; what is free is given back before."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def highest() -> int:
    """Bytes. `ru_maxrss` only where there is no /proc: on Linux it starts from the parent's."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    print(json.dumps(grown(sys.argv[1], Case.from_dict(json.loads(sys.argv[2])), int(sys.argv[3]))))
