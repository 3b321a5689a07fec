"""`python -m benchmarks.borders`: what one call of the block costs inside each framework, in microseconds.

One layer, a = relu(x·W + b + x), so small that the way to the kernel is what counts; each side forward, and forward
and backward. Sides take turns; a figure is the median over turns. The results are compared before any time is taken.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import time
from pathlib import Path

import numpy as np

from .__main__ import HERE, commit, machine, tuned_malloc

SIZES = ((1, 16), (32, 64), (256, 128))  # rows, width
PAUSE, TURN = 0.02, 0.02  # seconds; of the first, threads that spin fall asleep


def arrays(rows: int, width: int) -> list[np.ndarray]:
    """The rows, the weight, the bias, and the gradient of the outputs."""
    rng = np.random.default_rng(0)
    shapes = (rows, width), (width, width), (width,), (rows, width)
    return [rng.standard_normal(shape).astype("float32") / np.sqrt(width) for shape in shapes]


def numpy_sides(x, w, b, d):
    from resnetcore import ops

    def both():
        a = ops.residual_forward([x], [w], b, [x])
        return a, ops.residual_backward(d, a, [x], [w], b, [x])[1][0]

    yield "resnetcore.ops", lambda: ops.residual_forward([x], [w], b, [x]), both


def torch_sides(x, w, b, d):
    import torch

    from resnetcore.torch import residual

    x, w, b, d = map(torch.from_numpy, (x, w, b, d))

    def side(name, layer):
        def forward():
            with torch.no_grad():
                return layer(x, w, b)

        def both():
            for t in trained:
                t.grad = None
            a = layer(*trained)
            a.backward(d)
            return a.detach(), trained[1].grad

        trained = [t.clone().requires_grad_() for t in (x, w, b)]
        return name, forward, both

    yield side("PyTorch's own", lambda x, w, b: torch.relu(torch.addmm(b, x, w) + x))
    yield side("resnetcore.torch", lambda x, w, b: residual([x], [w], b, [x]))


def jax_sides(x, w, b, d):
    import jax
    import jax.numpy as jnp

    from resnetcore.jax import residual

    x, w, b, d = map(jnp.asarray, (x, w, b, d))

    def side(name, layer):
        forward = jax.jit(layer)

        @jax.jit
        def both(x, w, b, d):
            a, back = jax.vjp(layer, x, w, b)
            return a, back(d)

        def run():
            a, gradients = jax.block_until_ready(both(x, w, b, d))
            return a, gradients[1]

        return name, lambda: forward(x, w, b).block_until_ready(), run

    yield side("JAX's own, jit", lambda x, w, b: jax.nn.relu(x @ w + b + x))
    yield side("resnetcore.jax, jit", lambda x, w, b: residual([x], [w], b, [x]))


def measure(rows: int, width: int, seconds: float) -> dict[str, list[float]]:
    """{side: microseconds forward, and forward and backward}."""
    given = arrays(rows, width)
    sides = {
        name: (forward, both) for make in (numpy_sides, torch_sides, jax_sides) for name, forward, both in make(*given)
    }
    expected = [np.asarray(part) for part in sides["resnetcore.ops"][1]()]
    for name, (forward, both) in sides.items():
        for seen, wanted in zip([forward(), *both()], [expected[0], *expected], strict=True):
            if not np.linalg.norm(np.asarray(seen) - wanted) <= 1e-5 * np.linalg.norm(wanted):  # NaN is refused too
                raise RuntimeError(f"{rows} rows of {width}: {name} computes something else")
    times = {name: ([], []) for name in sides}
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(times["resnetcore.ops"][0]) < 5:
        for name, runs in sides.items():
            for run, taken in zip(runs, times[name], strict=True):
                time.sleep(PAUSE)
                call_time(run, TURN / 4)
                taken.append(call_time(run, TURN))
    return {name: [float(np.median(taken)) for taken in both] for name, both in times.items()}


def call_time(run, at_least: float) -> float:
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < at_least:
        run()
        count += 1
    return (time.perf_counter() - start) / count * 1e6


def table(result: dict) -> str:
    sizes = [f"{rows} × {width}" for rows, width in result["sizes"]]
    lines = ["| µs, forward / and backward | " + " | ".join(sizes) + " |", "|---|" + "---|" * len(sizes)]
    for name in result["rows"][0]:
        cells = ["{:.1f} / {:.1f}".format(*row[name]) for row in result["rows"]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.borders", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring a size (10)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the JSON")
    arguments = parser.parse_args()
    tuned_malloc("benchmarks.borders")
    import torch

    import resnetcore as rc

    rc.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    date = datetime.date.today().isoformat()
    result = {"date": date, "commit": commit(), "machine": machine(arguments.threads, "cpu"), "sizes": SIZES}
    result["rows"] = [measure(*size, arguments.seconds) for size in SIZES]
    (arguments.out / f"{date}-borders.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
