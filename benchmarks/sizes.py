"""`python -m benchmarks.sizes [--seconds 60] [--precision bfloat16]`: time against width, batch, depth and threads.

A training step of ours alone, in GFLOP/s, each size in turn. A width's neighbours are the round widths beside it,
and what it is compared with lies between theirs, by its distance to each; a batch is compared with 1024 rows, a depth with
16 layers, threads with one thread on the same size.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from bisect import bisect
from pathlib import Path

import numpy as np

import resnetcore as rc

from .__main__ import HERE, commit, machine
from .measure import seconds_a_step
from .networks import PRECISIONS, PRODUCTS, Case
from .rivals import resnetcore as ours
from .shapes import SHAPES, Shape

BATCH, WIDTH, DEPTH = 1024, 256, 16
ROUND = (32, 64, 128, 256, 512, 1024)
ODD = (33, 65, 96, 100, 129, 192, 200, 320, 768)
BATCHES = (1, 7, 32, 100, 1000, 10000)
DEPTHS = (2, 4, 8, 16, 32, 64)
TURN = 0.1  # seconds

# A size, and on how many threads.
Point = tuple[Shape, int]


def points(threads: int) -> list[Point]:
    """All that is measured, each once."""
    shapes = [Shape(BATCH, width, DEPTH) for width in sorted({*ROUND, *ODD})]
    shapes += [Shape(batch, WIDTH, DEPTH) for batch in BATCHES] + [Shape(BATCH, WIDTH, depth) for depth in DEPTHS]
    scaled = [(shape, count) for shape in SHAPES for count in range(1, threads + 1)]
    return list(dict.fromkeys([*((shape, threads) for shape in shapes), *scaled]))


def rates(threads: int, seconds: float, precision: str = "float32", products: str = "highest") -> dict[Point, float]:
    """GFLOP/s, medians over turns."""
    cases = {shape: Case(shape, precision=precision, products=products) for shape, _ in points(threads)}
    steps = {shape: ours.build(case, case.problem(), threads)[0] for shape, case in cases.items()}
    times: dict[Point, list[float]] = {point: [] for point in points(threads)}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or any(len(taken) < 3 for taken in times.values()):
        for (shape, count), taken in times.items():
            rc.set_num_threads(count)
            steps[shape]()
            taken.append(seconds_a_step(steps[shape], TURN))
    return {point: cases[point[0]].operations / float(np.median(taken)) / 1e9 for point, taken in times.items()}


def between_neighbours(width: int, of_round: dict[int, float]) -> float:
    """The rate that a width of this size would have on the line between the round widths beside it."""
    above = bisect(ROUND, width)
    low, high = ROUND[above - 1], ROUND[above]
    return of_round[low] + (of_round[high] - of_round[low]) * (width - low) / (high - low)


def tables(rate: dict[Point, float], threads: int) -> str:
    def at(batch: int, width: int, depth: int = DEPTH) -> float:
        return rate[Shape(batch, width, depth), threads]

    of_round = {width: at(BATCH, width) for width in ROUND}
    lines = [f"| width (batch {BATCH}) | GFLOP/s | of its neighbours' |", "|---|---|---|"]
    for width in sorted({*ROUND, *ODD}):
        share = "" if width in ROUND else f"{at(BATCH, width) / between_neighbours(width, of_round):.0%}"
        lines.append(f"| {width} | {at(BATCH, width):.0f} | {share} |")
    of_middle = at(BATCH, WIDTH)
    lines += ["", f"| batch (width {WIDTH}) | GFLOP/s | of {BATCH} rows' |", "|---|---|---|"]
    lines += [f"| {batch} | {at(batch, WIDTH):.0f} | {at(batch, WIDTH) / of_middle:.0%} |" for batch in BATCHES]
    lines += ["", f"| layers (batch {BATCH}, width {WIDTH}) | GFLOP/s | of {DEPTH} layers' |", "|---|---|---|"]
    for depth in DEPTHS:
        reached = at(BATCH, WIDTH, depth)
        lines.append(f"| {depth} | {reached:.0f} | {reached / of_middle:.0%} |")
    counts = range(1, threads + 1)
    lines += ["", f"| batch, width, layers | {' | '.join(f'on {n}' for n in counts)} | times one thread |"]
    lines.append("|---|" + "---|" * (threads + 1))
    for shape in SHAPES:
        reached_on = [rate[shape, count] for count in counts]
        cells = " | ".join(f"{reached:.0f}" for reached in reached_on)
        lines.append(
            f"| {shape.batch}, {shape.width}, {shape.depth} | {cells} | {reached_on[-1] / reached_on[0]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of measuring all sizes (60)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of activations (float32)")
    parser.add_argument("--products", choices=PRODUCTS, default="highest", help="of float32 (highest)")
    parser.add_argument("--name", help="the last part of the file's name, for a run of its own")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the JSON")
    arguments = parser.parse_args()
    rate = rates(arguments.threads, arguments.seconds, arguments.precision, arguments.products)
    print(tables(rate, arguments.threads))
    kind = {"precision": arguments.precision, "products": arguments.products}
    chosen = {option: value for option, value in kind.items() if value not in ("float32", "highest")}
    options = "".join(f" --{option} {value}" for option, value in chosen.items())
    result = {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "command": f"python -m benchmarks.sizes --seconds {arguments.seconds:g}{options}",
        "machine": machine(arguments.threads, "cpu"),
        "rows": [
            {"batch": s.batch, "width": s.width, "depth": s.depth, "threads": count, "gflops": gflops}
            for (s, count), gflops in rate.items()
        ],
    }
    parts = ["sizes", *chosen.values(), *([arguments.name] if arguments.name else [])]
    path = arguments.out / f"{result['date']}-{'-'.join(parts)}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\nWritten: {path}")


if __name__ == "__main__":
    main()
