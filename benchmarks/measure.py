"""Interleaved timing: A B A B, after both sides' results have been compared; medians of paired ratios.

Sides take turns. Threads of another library that still spin after its step would be charged to ours, and ours to it: a
turn begins with a pause, in which they go to sleep (OpenBLAS's take longest, and a shorter pause made whoever came after
scikit-learn 1.4 times slower), and with untimed steps of its own side; then steps are timed one behind the other, as
training runs them.
"""

from __future__ import annotations

import importlib
import time

import numpy as np

from .networks import Case, is_trained
from .rivals import INSIDE, UNCOMPARED, Unable

# On a GPU nobody's threads spin. A step there may be over before its work is: some follow each other, then all is waited for.
PAUSE = {"cpu": 0.2, "cuda": 0.0}
WARM_UP, TURN = 0.03, 0.1  # seconds
TOGETHER = {"cpu": 1, "cuda": 10}
STEPS = 3  # that are compared
# Float32 rounds sums of another order to 1e-7 to 1e-6 of the loss or of the logits' norm.
RESULTS = {"float32": 1e-5, "bfloat16": 2e-2}
# Products of halves that are bfloat16 round to 1e-5, those of bfloat16 as that does; by `products`, for float32.
LESS_EXACT = {"high": 2e-4, "medium": 2e-2}
# Updates are compared, not parameters: three small steps move those by 1e-5 to 1e-3 of their norm, and bounds on them
# would let a side pass that updates nothing. Rounding moves updates by up to 2e-3 of their norm, and AdamW's by 2.5e-2
# (each side is as far from float64): its first steps go by a gradient's sign, which rounding flips near 0.
UPDATES = {"sgd": 5e-3, "momentum": 5e-3, "adamw": 6e-2}
# bfloat16 rounds every activation and δ to 2e-3, and a ReLU that it turns takes its gradient along; AdamW's sign flips.
NARROW_UPDATES = {"sgd": 0.25, "momentum": 0.25, "adamw": 0.5}


def measure(case: Case, rivals: tuple[str, ...], threads: int, seconds: float) -> dict:
    """{"shape", "gflops", "rivals": {name: {"ms": median, "ratio": …} or {"missing": reason}}} for one case."""
    sides, result = build(case, rivals, threads)
    compare(case, sides)
    times = {name: [] for name in sides}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times["resnetcore"]) < 5:
        for name, (step, _) in sides.items():
            time.sleep(PAUSE[case.device])
            seconds_a_step(step, WARM_UP, case.device)
            times[name].append(seconds_a_step(step, TURN, case.device))
    ours = np.array(times["resnetcore"])
    for name, taken in times.items():
        ratio = np.array(taken) / ours
        result[name] |= {
            "ms": float(np.median(taken) * 1e3),
            "ms_min": float(np.min(taken) * 1e3),
            "ratio": float(np.median(ratio)),
            "ratio_quartiles": [float(q) for q in np.percentile(ratio, [25, 75])],
            "runs": len(taken),
        }
    for name in INSIDE.keys() & times.keys():
        hosts = {host: np.array(times[host]) for host in INSIDE[name] if host in times}
        result[name]["faster"] = {host: float(np.median(t / np.array(times[name]))) for host, t in hosts.items()}
    return {
        "shape": case.to_dict()["shape"],
        "operations": case.operations,
        "traffic": case.traffic,
        "gflops": case.operations / result["resnetcore"]["ms"] / 1e6,
        "rivals": result,
    }


def build(case: Case, rivals: tuple[str, ...], threads: int) -> tuple[dict, dict]:
    """The sides that are there, and what the result says of each before it is measured."""
    problem, sides, result = case.problem(), {}, {}
    for name in rivals:
        result[name] = {"note": UNCOMPARED[name]} if name in UNCOMPARED else {}
        try:
            module = importlib.import_module(f".rivals.{name}", __package__)
            sides[name] = module.build(case, problem, threads)
        except (ImportError, Unable) as error:
            result[name] = {"missing": str(error)}
    return sides, result


def seconds_a_step(step, at_least: float, device: str = "cpu") -> float:
    """The mean time of as many steps, two or more, as fill `at_least` seconds."""
    wait_for(device)
    count, start = 0, time.perf_counter()
    while count < 2 or time.perf_counter() - start < at_least:
        for _ in range(TOGETHER[device]):
            step()
        wait_for(device)
        count += TOGETHER[device]
    return (time.perf_counter() - start) / count


def wait_for(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()  # every stream, whose ever it is


def as_numpy(result) -> np.ndarray:
    """A loss, or logits wherever they are."""
    if hasattr(result, "cpu"):
        result = result.cpu()
    return np.array(result.numpy() if hasattr(result, "numpy") else result, "float64")


def compare(case: Case, sides: dict) -> None:
    """Some steps of every side: logits, or losses and updates, agree with the first side's, or there is nothing to time."""
    start, reference = case.problem().arrays, None
    is_exact = case.precision == "float32" and case.products == "highest"
    bounds = UPDATES if is_exact else NARROW_UPDATES
    of_results = LESS_EXACT.get(case.products, RESULTS[case.precision])
    for name, (step, arrays) in sides.items():
        results = [as_numpy(step()) for _ in range(STEPS)]
        if name in UNCOMPARED:
            continue
        updates = [] if case.mode == "infer" else _updates(start, arrays())
        if reference is None:
            reference = results, updates
        checks = [
            ("results", of_results, results, reference[0]),
            ("updates", bounds[case.optimizer], updates, reference[1]),
        ]
        for what, bound, seen, expected in checks:
            worst = max((_distance(a, b) for a, b in zip(seen, expected, strict=True)), default=0.0)
            if not worst <= bound:  # NaN is refused too
                raise RuntimeError(
                    f"{case.shape.name}, {case.label}: {name}'s {what} differ by {worst:.1e}, more than {bound:.0e}"
                )


def _updates(start: dict, now: dict) -> list[np.ndarray]:
    """What was added to all trained parameters, and to all running statistics, which move much further."""
    groups = [[n for n in start if is_trained(n)], [n for n in start if not is_trained(n)]]
    return [np.concatenate([(now[n].astype("float64") - start[n]).ravel() for n in group]) for group in groups if group]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
