"""`python -m benchmarks.sizes [--seconds 20]`: what odd widths and other batches lose against their neighbours.

A float32 training step of ours alone, in GFLOP/s, each size in turn. A width's neighbours are the round widths beside it,
and what it is compared with lies between theirs, by its distance to each; a batch is compared with 1024 rows.
"""

from __future__ import annotations

import argparse
import os
import time
from bisect import bisect

import numpy as np

from .measure import seconds_a_step
from .networks import Case
from .rivals import resnetcore as ours
from .shapes import Shape

BATCH, WIDTH, DEPTH = 1024, 256, 16
ROUND = (32, 64, 128, 256, 512, 1024)
ODD = (33, 65, 96, 100, 129, 192, 200, 320, 768)
BATCHES = (1, 7, 32, 100, 1000, 10000)
TURN = 0.1  # seconds


def rates(threads: int, seconds: float) -> dict[Shape, float]:
    """GFLOP/s, medians over turns."""
    shapes = [Shape(BATCH, width, DEPTH) for width in sorted({*ROUND, *ODD})]
    shapes += [Shape(batch, WIDTH, DEPTH) for batch in BATCHES]
    cases = {shape: Case(shape) for shape in shapes}
    steps = {shape: ours.build(case, case.problem(), threads)[0] for shape, case in cases.items()}
    times: dict[Shape, list[float]] = {shape: [] for shape in shapes}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times[shapes[-1]]) < 3:
        for shape, step in steps.items():
            times[shape].append(seconds_a_step(step, TURN))
    return {shape: cases[shape].operations / float(np.median(taken)) / 1e9 for shape, taken in times.items()}


def between_neighbours(width: int, of_round: dict[int, float]) -> float:
    """The rate that a width of this size would have on the line between the round widths beside it."""
    above = bisect(ROUND, width)
    low, high = ROUND[above - 1], ROUND[above]
    return of_round[low] + (of_round[high] - of_round[low]) * (width - low) / (high - low)


def tables(rate: dict[Shape, float]) -> str:
    of_round = {width: rate[Shape(BATCH, width, DEPTH)] for width in ROUND}
    lines = [f"| width (batch {BATCH}) | GFLOP/s | of its neighbours' |", "|---|---|---|"]
    for width in sorted({*ROUND, *ODD}):
        reached = rate[Shape(BATCH, width, DEPTH)]
        share = "" if width in ROUND else f"{reached / between_neighbours(width, of_round):.0%}"
        lines.append(f"| {width} | {reached:.0f} | {share} |")
    lines += ["", f"| batch (width {WIDTH}) | GFLOP/s | of {BATCH} rows' |", "|---|---|---|"]
    for batch in BATCHES:
        reached = rate[Shape(batch, WIDTH, DEPTH)]
        lines.append(f"| {batch} | {reached:.0f} | {reached / of_round[WIDTH]:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of measuring all sizes (30)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    print(tables(rates(arguments.threads, arguments.seconds)))


if __name__ == "__main__":
    main()
