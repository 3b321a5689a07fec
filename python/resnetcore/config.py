"""What this build and this machine offer, and the number of threads."""

from __future__ import annotations

import os

from . import _core
from .checks import as_integer, check_matmul_precision


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


_matmul_precision = "highest"


def get_matmul_precision() -> str:
    """What `set_matmul_precision` was given last; "highest" at first."""
    return _matmul_precision


def set_matmul_precision(precision: str) -> None:
    """How float32 networks that are built from now on compute, in this process and where they are not told themselves.

    "highest": plain float32. "high": every number that products multiply, activations, weights and δ, is a sum of two
    bfloat16, which leaves it 16 bits of precision; errors are in the class of 1e-5. "medium": as a network of dtype
    "bfloat16", whose parameters are float32 too. Sums are float32 in all three. The names are PyTorch's and JAX's; as
    with theirs, a CPU that gains no time by it keeps "highest": `show_config` and `Network.explain` say what runs.
    Networks of other dtypes and `resnetcore.ops` take no notice.

    Raises:
        ValueError: any other precision.
    """
    global _matmul_precision
    _matmul_precision = check_matmul_precision("set_matmul_precision: precision", precision)


def _runs_as() -> str:
    used = {asked: _core.available_precision(asked) for asked in ("high", "medium")}
    return ", ".join(f"{asked} runs {'here' if use == asked else f'as {use} here'}" for asked, use in used.items())


def _cuda() -> str:
    cuda = _core.cuda_info()
    if not cuda["architectures"]:
        return f"not available: {cuda['obstacle']}"

    def version(number: int) -> str:
        return f"{number // 1000}.{number % 1000 // 10}"

    built = f"built with CUDA {version(cuda['runtime_version'])} for {cuda['architectures']}"
    if cuda["obstacle"]:
        return f"{built}; not available: {cuda['obstacle']}"
    gpus = ", ".join(f"cuda:{i} {name} (sm_{capability})" for i, (name, capability) in enumerate(cuda["gpus"]))
    slow = "".join(f"; steps on {name} are launched kernel by kernel: {why}" for name, why in cuda["unrecorded"])
    return f"{built}; driver for CUDA {version(cuda['driver_version'])}; {gpus}{slow}"


def config() -> dict[str, str]:
    """The facts that `show_config` prints."""
    build, isa, caches = _core.build_info(), _core.isa_info(), _core.cache_info()

    def state(one: dict[str, object]) -> str:
        compiled = "compiled" if one["compiled"] else "not compiled"
        runs = "runs here" if one["supported"] else one["obstacle"] or "does not run here"
        return f"{one['name']} ({compiled}, {runs})"

    forced = os.environ.get("RESNETCORE_ISA")
    return {
        "version": build["version"],
        "compiler": f"{build['compiler']}, {build['build_type']}",
        "instruction set": isa["current"] + (" (forced by RESNETCORE_ISA)" if forced else " (chosen by the CPU)"),
        "instruction sets": ", ".join(state(one) for one in isa["known"]),
        "threads": f"{get_num_threads()} ({_core.num_threads_origin()})",
        "threads inside PyTorch": _core.host_openmp() or "our own (no OpenMP of PyTorch's was found so far)",
        "caches": f"{caches['level2'] >> 10} KiB a core, {caches['last'] >> 10} KiB shared",
        "precision": "float32, float64 and bfloat16",
        "matmul precision": f"{_matmul_precision}; {_runs_as()}",
        "CUDA": _cuda(),
    }


def show_config() -> None:
    """Prints the build, the instruction sets compiled and in use, the threads, and what is missing and why."""
    facts = config()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")
