"""What gpu_day.sh found, as one JSON file, and what documents say of it, made from the newest such file.

`python -m benchmarks.gpu_day FOLDER RESULTS "PIECE …"` gathers; `python -m benchmarks.gpu_day status` writes the README's
rows on CUDA, and the aims and measurements on a GPU in docs/performance.md.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from . import gpu_aims
from .__main__ import HERE, gpu, machine
from .report import put, table

README = HERE.parent / "README.md"
PERFORMANCE = HERE.parent / "docs" / "performance.md"
MARKERS = "<!-- gpu: begin -->", "<!-- gpu: end -->"
# The pieces that a row of the README speaks of, by the beginning of their names.
ROWS = {
    "CUDA: build and gates": ("build", "smoke", "gates"),
    "CUDA: tests on a GPU": ("tests",),
    "CUDA: compute-sanitizer": ("memcheck", "racecheck", "initcheck", "synccheck"),
    "CUDA: speed": ("benchmark", "parts"),
    "CUDA: Hopper's path in bfloat16": ("default",),
    "CUDA: other paths in bfloat16": ("simple-", "hopper-"),
    "CUDA: norms in chains, slopes in bits": ("hopper_fused",),
    "CUDA: the path of compute capability 8.0 in bfloat16": ("ampere",),
}
STATES = {"passed": "passed", "failed": "failed", "stopped": "stopped by its time limit", "left": "not run"}
# What is so in any case, and what is known where no GPU has been at hand.
ALWAYS = {
    "CUDA: build and gates": "compiled with CUDA from PyPI for sm_80, sm_90a, sm_100 and as PTX; gates on registers, local "
    "memory and matrix units pass; its kernels run on an emulation on the host; ",
    "CUDA: Hopper's path in bfloat16": "on GPUs of compute capability 9.0 by itself, with chains of narrow layers in one "
    "launch, so what is said above is said of it; run on an emulation on the host that checks Hopper's rules; its kernels run: ",
    "CUDA: other paths in bfloat16": "`RESNETCORE_CUDA_PATH=simple`, or `hopper` without chains; ",
    "CUDA: norms in chains, slopes in bits": "`RESNETCORE_CUDA_PATH=hopper_fused`, on GPUs of compute capability 9.0; run "
    "on an emulation on the host that checks Hopper's rules, with blocks that meet; ",
    "CUDA: the path of compute capability 8.0 in bfloat16": "`RESNETCORE_CUDA_PATH=ampere`, on any GPU; run on an "
    "emulation on the host that checks its copies' rules, with the simple path's bits; ",
}
WITHOUT_A_GPU = {
    "CUDA: build and gates": "never tried with a GPU",
    "CUDA: tests on a GPU": "compiled, never run on a GPU",
    "CUDA: compute-sanitizer": "never run",
    "CUDA: speed": "never measured",
    "CUDA: Hopper's path in bfloat16": "never run on a GPU",
    "CUDA: other paths in bfloat16": "never run on a GPU",
    "CUDA: norms in chains, slopes in bits": "never run on a GPU",
    "CUDA: the path of compute capability 8.0 in bfloat16": "never run on a GPU",
}

# Rows elsewhere in the table of what the tests on a GPU run, too: what is so in any case, and what is known without one.
BESIDE = {
    "PyTorch on a GPU: `resnetcore.torch` with CUDA tensors": (
        "in PyTorch's memory and in the order of its current stream; the path is tested on the "
        "emulation, with PyTorch's CPU tensors that are said to be on it",
        "never run on a GPU, nor with a CUDA tensor",
    ),
    "`rc.ops` with arrays on a GPU": (
        "computed where they are, in the order of a stream; tested on the emulation against the formulas",
        "never run on a GPU",
    ),
    "other libraries' arrays on a GPU, and networks' results there (`DeviceArray`)": (
        "taken and given in place through DLPack and `__cuda_array_interface__`, in the order of their "
        "streams; tested on the emulation, with producers and consumers made by hand",
        "never run on a GPU, nor with CuPy, PyTorch or JAX there",
    ),
}


def read_pieces(folder: Path, names: list[str]) -> dict[str, dict]:
    """{name: {"state": "passed", "failed", "stopped" or "left", "seconds", "summary": the last line of its output}}."""
    found = {}
    for name in names:
        file = folder / f"{name}.state"
        if file.exists():
            state, seconds, summary = [*file.read_text().splitlines(), "", ""][:3]
            found[name] = {"state": state, "seconds": int(seconds), "summary": summary}
        else:
            found[name] = {"state": "left"}
    return found


def gather(folder: Path, names: list[str], where: dict) -> dict:
    return {
        "date": datetime.date.today().isoformat(),
        "commit": os.environ.get("RESNETCORE_COMMIT", "unknown"),
        "machine": where,
        "pieces": read_pieces(folder, names),
        "benchmarks": [json.loads(file.read_text()) for file in sorted((folder / "benchmarks").rglob("*.json"))],
    }


def sanitizer() -> dict:
    """The version of the compute-sanitizer that the pieces run; nothing where there is none."""
    try:
        shown = subprocess.run(["compute-sanitizer", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    version = re.search(r"\d{4}\.\d[\w.]*", shown)
    return {"compute_sanitizer": version[0] if version else shown.strip()}


def newest(folder: Path) -> dict | None:
    """The latest day's results; of several of one day the last by name."""
    files = sorted(folder.glob("*-gpu-day-*.json"))
    return json.loads(files[-1].read_text()) if files else None


def rows(day: dict | None) -> list[str]:
    """The lines of the README's table of states."""
    if day is None:
        return [f"| {name} | {ALWAYS.get(name, '')}{state} |" for name, state in WITHOUT_A_GPU.items()]
    found = []
    for name, of in ROWS.items():
        known = WITHOUT_A_GPU[name]  # where the day is older than the row
        if any(piece.startswith(of) for piece in day["pieces"]):
            known = f"{describe(day['pieces'], of)}; {place_and_time(day)}"
        found.append(f"| {name} | {ALWAYS.get(name, '')}{known} |")
    return found


def rows_beside(day: dict | None) -> list[str]:
    """Those of `BESIDE`. Tests of a library that the machine lacked were skipped."""
    found = []
    for name, (always, never) in BESIDE.items():
        known = never
        if day is not None:
            state = describe(day["pieces"], ROWS["CUDA: tests on a GPU"])
            known = f"tests on a GPU, with the libraries that were there: {state}; {place_and_time(day)}"
        found.append(f"| {name} | {always}; {known} |")
    return found


def place_and_time(day: dict) -> str:
    where = day["machine"]
    note = f"; {day['note']}" if "note" in day else ""
    return f"{where['gpu']}, driver {where['driver']}, {day['date']}, commit {day['commit']}{note}"


def describe(pieces: dict[str, dict], of: tuple[str, ...]) -> str:
    chosen = {name: piece for name, piece in pieces.items() if name.startswith(of)}
    by_state = {state: [n for n, p in chosen.items() if p["state"] == state] for state in STATES}
    if by_state["passed"] == list(chosen):
        summaries = [piece["summary"].strip("= ") for piece in chosen.values()]
        return f"passed ({summaries[0]})" if len(chosen) == 1 else f"passed, all {len(chosen)} pieces"
    said = {
        name: f"{name} ({p['summary'].strip('= ')})" for name, p in chosen.items() if " passed" in p.get("summary", "")
    }
    return "; ".join(
        f"{STATES[state]}: {', '.join(said.get(name, name) for name in names)}"
        for state, names in by_state.items()
        if names
    )


def put_rows(document: Path, day: dict | None) -> None:
    """In place of the document's rows that begin with "| CUDA", and of those beside."""
    text = re.sub(r"(^\| CUDA.*\n)+", lambda _: "\n".join(rows(day)) + "\n", document.read_text(), count=1, flags=re.M)
    for row in rows_beside(day):
        name = re.escape(row.split(" | ")[0])
        text = re.sub(rf"^{name} \|.*$", lambda _, row=row: row, text, count=1, flags=re.M)
    document.write_text(text)


def measurements(day: dict | None) -> str:
    """The aims on Hopper's path, and a table for every run."""
    if day is None:
        return "Nothing was measured yet."
    runs = day["benchmarks"]
    if not runs:
        return "No benchmark of the last day with a GPU came to its end."
    aims = gpu_aims.table(runs, "hopper_narrow")
    text = f"bfloat16, {place_and_time(day)}; `reached of aim`, bold where it was:\n\n{aims}"
    return "\n\n".join([text, *(table(run) for run in runs)])


def main(arguments: list[str]) -> int:
    if arguments == ["status"]:
        day = newest(HERE / "results")
        put_rows(README, day)
        put(measurements(day), MARKERS, PERFORMANCE)
        return 0
    folder, results, names = Path(arguments[0]), Path(arguments[1]), arguments[2].split()
    try:
        name = gpu()["gpu"]
    except (OSError, subprocess.CalledProcessError):
        print("Nothing is written: nvidia-smi shows no GPU")
        return 1
    from resnetcore import _core

    cuda = _core.cuda_info()
    where = machine(len(os.sched_getaffinity(0)), "cuda") | {"architectures": cuda["architectures"]}
    where |= {"runtime": cuda["runtime_version"], "cuda_driver": cuda["driver_version"]} | sanitizer()
    day = gather(folder, names, where)
    results.mkdir(parents=True, exist_ok=True)
    path = results / f"{day['date']}-gpu-day-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.json"
    path.write_text(json.dumps(day, indent=1) + "\n")
    states = [piece["state"] for piece in day["pieces"].values()]
    print(f"Written: {path}; " + ", ".join(f"{states.count(s)} {s}" for s in STATES))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
