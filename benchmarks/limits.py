"""What the machine can do at most, measured by a small program that is compiled for it (limits.cpp)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "limits.cpp"
FLAGS = ["-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-Wno-psabi", "-pthread"]


def limits(threads: int, last_cache: int) -> dict[str, float]:
    """{"gflops": float32 multiply-adds, "memory_gb_s", "cache_gb_s": reads} of `threads` threads; {} without a compiler.

    `last_cache`: bytes; half of it is read again and again.
    """
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/limits"
        subprocess.run([compiler, *FLAGS, SOURCE, "-o", program], check=True)
        shown = subprocess.run([program, str(threads), str(last_cache)], check=True, capture_output=True, text=True)
    return json.loads(shown.stdout)
