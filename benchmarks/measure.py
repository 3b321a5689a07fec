"""Interleaved timing: A B A B, after both sides' results have been compared; medians of paired ratios.

Sides take turns. Threads of another library that still spin after its step would be charged to ours, and ours to it: a
turn begins with a pause, in which they go to sleep, and with untimed steps of its own side; then steps are timed one
behind the other, as training runs them.
"""

from __future__ import annotations

import importlib
import time

import numpy as np

from .shapes import Shape, problem

PAUSE = 0.02
WARM_UP, TURN = 0.03, 0.1  # seconds
AGREEMENT = 1e-4


def measure(shape: Shape, rivals: tuple[str, ...], threads: int, seconds: float) -> dict:
    """{"shape", "rivals": {name: {"ms": median, "ratio": …} or {"missing": reason}}} for one shape."""
    parameters, x, labels = problem(shape)
    sides, result = {}, {}
    for name in rivals:
        try:
            module = importlib.import_module(f".rivals.{name}", __package__)
            sides[name] = module.build(shape, parameters, x, labels, threads)
        except ImportError as error:
            result[name] = {"missing": str(error)}
    compare(sides)
    times = {name: [] for name in sides}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times["resnetcore"]) < 5:
        for name, (step, _) in sides.items():
            time.sleep(PAUSE)
            seconds_a_step(step, WARM_UP)
            times[name].append(seconds_a_step(step, TURN))
    ours = np.array(times["resnetcore"])
    for name, taken in times.items():
        ratio = np.array(taken) / ours
        result[name] = {
            "ms": float(np.median(taken) * 1e3),
            "ms_min": float(np.min(taken) * 1e3),
            "ratio": float(np.median(ratio)),
            "ratio_quartiles": [float(q) for q in np.percentile(ratio, [25, 75])],
            "runs": len(taken),
        }
    return {
        "shape": {"batch": shape.batch, "width": shape.width, "depth": shape.depth},
        "gflops": shape.operations / result["resnetcore"]["ms"] / 1e6,
        "rivals": result,
    }


def seconds_a_step(step, at_least: float) -> float:
    """The mean time of as many steps, two or more, as fill `at_least` seconds."""
    count, start = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - start < at_least:
        step()
        count += 1
    return (time.perf_counter() - start) / count


def compare(sides: dict) -> None:
    """Three steps of every side: losses and the first weight agree, or there is nothing to time."""
    reference = None
    for name, (step, weights) in sides.items():
        seen = [step() for _ in range(3)], np.array(weights())
        if reference is None:
            reference = seen
        loss = np.abs(np.subtract(seen[0], reference[0])).max() / abs(reference[0][0])
        weight = np.linalg.norm(seen[1] - reference[1]) / np.linalg.norm(reference[1])
        if not (loss < AGREEMENT and weight < AGREEMENT):
            raise RuntimeError(f"{name} does not agree: losses differ by {loss:.1e}, weights by {weight:.1e}")
