"""What the machine can do at most, measured by a small program that is compiled for it (limits.cpp), or by PyTorch on a GPU."""

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


def gpu_limits(precision: str, side: int = 8192, copied: int = 2**31) -> dict[str, float]:
    """{"gflops": of a large product of random numbers by cuBLAS, "memory_gb_s": reads and writes of a large copy}.

    `side`: of the product's square matrices; `copied`: bytes. float32 without tensor cores, as PyTorch multiplies by default.
    """
    import torch

    a, b = (torch.randn(side, side, device="cuda").to(getattr(torch, precision)) for _ in range(2))
    source = torch.empty(copied, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    product = _fastest(lambda: torch.mm(a, b), repeats=10)
    return {
        "gflops": 2 * side**3 / product / 1e9,
        "memory_gb_s": 2 * copied / _fastest(lambda: target.copy_(source), 10) / 1e9,
    }


def _fastest(work, repeats: int) -> float:
    """Seconds, between events of the GPU."""
    import torch

    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return min(times)
