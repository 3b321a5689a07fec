"""Which kernels a step of ours is made of on a GPU: `python -m benchmarks.kernels [--shapes 1 3] [--mode infer] …`.

PyTorch's profiler sees every kernel of the process, those of recorded steps too. A step's time is taken without it.
"""

from __future__ import annotations

import argparse
import re

from .measure import seconds_a_step
from .networks import MODES, PRECISIONS, VARIANTS, Case
from .rivals import resnetcore
from .shapes import GPU_SHAPES

WARM_UP, TURN = 0.1, 0.1  # seconds


def measure(case: Case, steps: int) -> str:
    """What is printed of one case."""
    import torch

    step, _ = resnetcore.build(case, case.problem(), 1)
    seconds_a_step(step, WARM_UP, case.device)
    wall = seconds_a_step(step, TURN, case.device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    spent = [(event.key, event.count, event.self_device_time_total) for event in profile.key_averages()]
    return f"{case.shape.name}, {case.label}: {wall * 1e6:.0f} us a step\n{table(spent, steps)}"


def table(spent: list[tuple[str, int, float]], steps: int) -> str:
    """Of (name, how often, microseconds) of `steps` steps: calls and microseconds a step, of most time first."""
    together: dict[str, tuple[float, float]] = {}
    for name, count, time in spent:
        if time > 0:
            calls, sum_ = together.get(short(name), (0.0, 0.0))
            together[short(name)] = calls + count / steps, sum_ + time / steps
    rows = sorted(together.items(), key=lambda row: -row[1][1])
    lines = [f"{time:10.1f} us {calls:6.1f} x {name}" for name, (calls, time) in rows]
    return "\n".join([*lines, f"{sum(time for _, (_, time) in rows):10.1f} us in all of them"])


def short(name: str) -> str:
    """A kernel's name with its template arguments, without namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)", "", name)
    name = re.sub(r"\([A-Za-z_:]+\)(?=\d)", "", name)  # the types of numbers that are template arguments
    return re.sub(r"(\w+|)::", "", re.sub(r"^void ", "", name)).split("(")[0][:100]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument(
        "--shapes", type=int, nargs="+", choices=range(1, len(GPU_SHAPES) + 1), help="numbers of shapes"
    )
    parser.add_argument("--variant", choices=VARIANTS, default="identity", help="which skips and norms (identity)")
    parser.add_argument(
        "--mode", choices=MODES, nargs="+", default=list(MODES), help="steps in training, or logits (both)"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="bfloat16", help="of activations (bfloat16)")
    parser.add_argument("--steps", type=int, default=10, help="that are profiled (10)")
    arguments = parser.parse_args()
    for number in arguments.shapes or range(1, len(GPU_SHAPES) + 1):
        for mode in arguments.mode:
            kind = {"variant": arguments.variant, "mode": mode, "precision": arguments.precision}
            print(measure(Case(GPU_SHAPES[number - 1], **kind, device="cuda"), arguments.steps), flush=True)


if __name__ == "__main__":
    main()
