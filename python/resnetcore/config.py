"""What this build and this machine offer, and the number of threads."""

from __future__ import annotations

import os

from . import _core
from ._errors import BuildFeatureError
from .checks import as_integer


def get_num_threads() -> int:
    """Threads that the kernels run on."""
    return _core.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Sets the threads that the kernels run on, from now on and for the whole process.

    The start value is RESNETCORE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs that affinity and the cgroup's quota
    leave this process. Results do not depend on it.

    Raises:
        ValueError: outside 1 to 1024.
        TypeError: not an int.
    """
    count = as_integer("set_num_threads: threads", threads)
    if not 1 <= count <= 1024:
        raise ValueError(f"set_num_threads: threads must be from 1 to 1024, got {count}")
    _core.set_num_threads(count)


def set_matmul_precision(precision: str) -> None:
    """How float32 products are computed: "highest" is plain float32, and what this version has on every CPU.

    Raises:
        BuildFeatureError: "high" and "medium", float32 products made of bfloat16 ones, which this version does not have;
            a network of dtype "bfloat16" is another thing, and there.
        ValueError: anything else.
    """
    if precision == "highest":
        return
    if precision in ("high", "medium"):
        raise BuildFeatureError(
            f'set_matmul_precision: this version does not have "{precision}", float32 products made of bfloat16 ones; '
            'use "highest", or a network of dtype "bfloat16"'
        )
    raise ValueError(f'set_matmul_precision: must be "highest", "high" or "medium", got {precision!r}')


def config() -> dict[str, str]:
    """The facts that `show_config` prints."""
    build, isa, caches = _core.build_info(), _core.isa_info(), _core.cache_info()

    def state(one: dict[str, object]) -> str:
        compiled = "compiled" if one["compiled"] else "not compiled"
        runs = "runs here" if one["supported"] else one["obstacle"] or "does not run here"
        asked = ", only where RESNETCORE_ISA asks for it" if one["on_request"] else ""
        return f"{one['name']} ({compiled}, {runs}{asked})"

    forced = os.environ.get("RESNETCORE_ISA")
    return {
        "version": build["version"],
        "compiler": f"{build['compiler']}, {build['build_type']}",
        "instruction set": isa["current"] + (" (forced by RESNETCORE_ISA)" if forced else " (chosen by the CPU)"),
        "instruction sets": ", ".join(state(one) for one in isa["known"]),
        "threads": f"{get_num_threads()} ({_core.num_threads_origin()})",
        "caches": f"{caches['level2'] >> 10} KiB a core, {caches['last'] >> 10} KiB shared",
        "precision": "float32, float64 and bfloat16; matmul precision highest",
        "CUDA": "not built: this version runs on the CPU",
    }


def show_config() -> None:
    """Prints the build, the instruction sets compiled and in use, the threads, and what is missing and why."""
    facts = config()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
