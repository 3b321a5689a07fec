"""`python -m benchmarks [--variant dense] [--mode infer] [--quick] …`; `python -m benchmarks all`; and
`python -m benchmarks table|aims FILE…`: see README.md."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from .networks import DEVICES, MODES, OPTIMIZERS, PRECISIONS, PRODUCTS, VARIANTS, Case
from .rivals import CUDA_NAMES, NAMES
from .shapes import SHAPES, shapes_of

HERE = Path(__file__).parent
# Without these glibc returns and faults in memory at every step, a fifth of PyTorch's time.
MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}

# What `all` measures beside the kinds that there is an aim for.
BESIDE = ({"optimizer": "adamw"}, {"mode": "infer", "batch": 1})


def tuned_malloc(program: str = "benchmarks") -> None:
    """Starts this program again with glibc's malloc at its best for the rivals; ours does not allocate in a step."""
    if any(name not in os.environ for name in MALLOC):
        os.environ.update({name: os.environ.get(name, value) for name, value in MALLOC.items()})
        os.execv(sys.executable, [sys.executable, "-m", program, *sys.argv[1:]])


def plain_malloc() -> dict[str, str]:
    """The environment without the above: memory is measured as a program has it that knows nothing of malloc."""
    return {name: value for name, value in os.environ.items() if name not in MALLOC}


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def gpu() -> dict:
    """The name and the driver of the first GPU."""
    shown = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=True,
    )
    name, driver = shown.stdout.splitlines()[0].split(", ")
    return {"gpu": name, "driver": driver}


def machine(threads: int, device: str) -> dict:
    from resnetcore import _core

    versions = [f"Python {platform.python_version()}"]
    for package in ("resnetcore", "numpy", "torch", "jax", "onnxruntime", "scikit-learn"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    facts = {"cpu": cpu_name(), "threads": threads, "isa": _core.isa_info()["current"], "versions": ", ".join(versions)}
    if device == "cpu":
        return facts
    default = "hopper_narrow" if _core.cuda_info()["gpus"][0][1] == 90 else "simple"
    return facts | gpu() | {"path": os.environ.get("RESNETCORE_CUDA_PATH") or default}


def commit() -> str:
    if "RESNETCORE_COMMIT" in os.environ:  # of a copy without .git
        return os.environ["RESNETCORE_COMMIT"]
    try:
        return subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=HERE
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def run(arguments: argparse.Namespace) -> None:
    from resnetcore import _core

    from .limits import gpu_limits, limits
    from .measure import measure
    from .memory import peak_memory
    from .report import line, picture, roofline, table

    shapes = shapes_of(arguments.device)
    chosen = [shapes[i - 1] for i in arguments.shapes] if arguments.shapes else shapes
    if arguments.batch:
        chosen = list(dict.fromkeys(replace(shape, batch=arguments.batch) for shape in chosen))
    kind = {
        name: getattr(arguments, name) for name in ("variant", "mode", "optimizer", "precision", "device", "products")
    }
    on_gpu = arguments.device == "cuda"
    rivals = tuple(arguments.rivals or (CUDA_NAMES if on_gpu else NAMES))
    result = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "command": arguments.made_by,
        **kind,
        "machine": machine(arguments.threads, arguments.device),
        "limits": gpu_limits(arguments.precision) if on_gpu else limits(arguments.threads, _core.cache_info()["last"]),
        "rows": [],
    }
    print(", ".join(f"{key}: {value}" for key, value in {**result["machine"], **result["limits"]}.items()), flush=True)
    for shape in chosen:
        case = Case(shape, **kind)
        row = measure(case, rivals, arguments.threads, 2.0 if arguments.quick else arguments.seconds)
        for name, entry in row["rivals"].items():
            if "ms" in entry and arguments.memory and not on_gpu:
                entry |= peak_memory(name, case, arguments.threads, plain_malloc())
        result["rows"].append(row)
        print(line(f"{shape.name}, {case.label}", row), flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = arguments.out / f"{result['date']}-{arguments.device}{suffix(kind, arguments)}"
    stem.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    picture(result, stem.with_suffix(".png"))
    if result["limits"] and (on_gpu or arguments.precision == "float32"):
        roofline(result, stem.with_name(f"{stem.name}-roofline.png"))
    print(f"\n{table(result)}\n\nWritten: {stem}.json and its pictures")


def suffix(kind: dict, arguments: argparse.Namespace) -> str:
    """What of a run is not the default, for file names."""
    default = Case(SHAPES[0]).to_dict()
    parts = [value for name, value in kind.items() if value != default[name] and name != "device"]
    parts += [f"batch{arguments.batch}"] * bool(arguments.batch) + [arguments.name] * bool(arguments.name)
    return "".join(f"-{part}" for part in parts)


def command(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """What was typed, but for where results go, so that a result tells how to get another one like it."""
    words = ["python -m benchmarks", *([arguments.command] if arguments.command else [])]
    for name, value in vars(arguments).items():
        if name in ("command", "files", "into", "out") or value == parser.get_default(name):
            continue
        if name == "memory":
            words.append("--no-memory")
        else:
            values = value if isinstance(value, list) else [] if value is True else [value]
            words.append(" ".join([f"--{name}", *(f"{v:g}" if isinstance(v, float) else str(v) for v in values)]))
    return " ".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        choices=["all", "table", "aims"],
        help="measure every kind of network that there is an aim for, AdamW and batches of one row; or put results into "
        "a document: a table each, or one of aims, what was reached and what is possible",
    )
    parser.add_argument("files", nargs="*", type=Path, help="the results, JSON files")
    parser.add_argument("--into", type=Path, default=HERE.parent / "README.md", help="the document (README.md)")
    parser.add_argument("--variant", choices=VARIANTS, default="identity", help="which skips and norms (identity)")
    parser.add_argument("--mode", choices=MODES, default="train", help="a training step, or all logits (train)")
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="sgd", help="of training (sgd)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of activations (float32)")
    parser.add_argument(
        "--products",
        choices=PRODUCTS,
        default="highest",
        help="the precision of resnetcore's float32 products (highest)",
    )
    parser.add_argument("--device", choices=DEVICES, default="cpu", help="where the networks are (cpu)")
    sides = sorted({*NAMES, *CUDA_NAMES})
    parser.add_argument(
        "--rivals", nargs="+", choices=sides, help="the sides, resnetcore among them (all of the device's)"
    )
    parser.add_argument("--quick", action="store_true", help="two seconds a shape")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="time alone")
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring a shape (30)")
    parser.add_argument("--shapes", type=int, nargs="+", choices=range(1, len(SHAPES) + 1), help="numbers of shapes")
    parser.add_argument("--batch", type=int, help="rows, instead of the shapes' own")
    parser.add_argument("--name", help="the last part of the files' names, for a run of its own")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the JSON and the picture")
    arguments = parser.parse_args()
    if arguments.batch is not None and arguments.batch < 1:
        parser.error(f"--batch: must be at least 1, got {arguments.batch}")
    if arguments.rivals and "resnetcore" not in arguments.rivals:
        parser.error("--rivals: resnetcore must be among them: every ratio is taken to it")
    runs = [json.loads(file.read_text()) for file in arguments.files]
    if arguments.command == "table":
        from .report import put_tables

        return put_tables(runs, arguments.into)
    if arguments.command == "aims":
        from .aims import aims_table
        from .report import AIMS_MARKERS, put

        return put(aims_table(runs), AIMS_MARKERS, arguments.into)
    tuned_malloc()
    arguments.made_by = command(parser, arguments)
    if arguments.command == "all":
        from .aims import KINDS

        for kind in (*KINDS, *BESIDE):
            memory = arguments.memory and kind == KINDS[0]
            run(argparse.Namespace(**{**vars(arguments), **kind, "memory": memory}))
        return None
    return run(arguments)


if __name__ == "__main__":
    main()
