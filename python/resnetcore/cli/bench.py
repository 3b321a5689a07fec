"""`resnetcore bench`: times this library alone. Before anything is timed, its gradients are compared with float64's.

The shapes are those of the project's benchmarks: `a = relu(a_prev W + b)`, an identity skip on every second layer, ten
classes, softmax cross-entropy, plain SGD.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from typing import Any

import numpy as np

from .._atomic import replace_file, require_folder
from ..config import get_num_threads
from ..layers import Layer
from ..network import Network
from ..optimizers import SGD
from ..tables import table
from ..trainer import Trainer

SHAPES = ((1024, 64, 32), (4096, 128, 20), (1024, 256, 16), (256, 512, 12), (512, 1024, 8), (32, 128, 20))
CLASSES = 10
TOLERANCE = 1e-4  # relative norm; a wrong kernel is off by far more, float32 at these depths by far less


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--quick and --json."""
    parser.add_argument("--quick", action="store_true", help="a fifth of the time for each shape")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there too")


def run(arguments: argparse.Namespace) -> None:
    """Checks, times and prints.

    Raises:
        FloatingPointError: gradients that differ from float64's.
    """
    if arguments.json:
        require_folder(arguments.json)
    print(f"Gradients agree with float64 to {check():.1e}; {get_num_threads()} threads, float32\n")
    results = [measure(*shape, seconds=0.2 if arguments.quick else 1.0) for shape in SHAPES]
    rows = [
        [
            f"{r['batch']} x {r['width']} x {r['layers']}",
            f"{r['step_ms']:.2f}",
            f"{r['predict_ms']:.2f}",
            f"{r['rows_per_second']:,.0f}",
            f"{r['gflops']:.0f}",
        ]
        for r in results
    ]
    print(table(["batch x width x layers", "step ms", "predict ms", "rows/s trained", "GFLOP/s of a step"], rows))
    if arguments.json:
        replace_file(arguments.json, [json.dumps(results, indent=1).encode() + b"\n"])


def check() -> float:
    """The largest relative difference between a gradient in float32 and the same in float64."""
    net = build(48, 9, "float64")
    x, y = batch(96, 48, np.float64)
    _, exact, _ = net.gradients(x, y)
    _, found, _ = net.astype("float32").gradients(x.astype(np.float32), y)
    worst = max(float(np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name])) for name in exact)
    if not worst < TOLERANCE:
        raise FloatingPointError(
            f"bench: gradients differ from float64's by {worst:.1e}, more than {TOLERANCE:.0e}: do not "
            "trust this build; RESNETCORE_ISA chooses other kernels"
        )
    return worst


def measure(rows: int, width: int, layers: int, seconds: float) -> dict[str, Any]:
    """Medians of a training step and of a prediction of the same rows, each measured for about `seconds`."""
    net = build(width, layers, "float32")
    x, y = batch(rows, width, np.float32)
    trainer = Trainer(net, optimizer=SGD(lr=1e-3), batch_size=rows)
    predict, step = median(lambda: net.predict(x), seconds), median(lambda: trainer.step(x, y), seconds)
    products = 3 * (layers - 1) + 2  # forward, weights, data; no gradient is needed of the input
    operations = 2 * rows * width * (width * products + 3 * CLASSES)
    return {
        "batch": rows,
        "width": width,
        "layers": layers,
        "step_ms": 1e3 * step,
        "predict_ms": 1e3 * predict,
        "rows_per_second": rows / step,
        "gflops": operations / step / 1e9,
    }


def median(call: Any, seconds: float) -> float:
    """Seconds a call takes: the median of at least five, after a warm-up."""
    times: list[float] = []
    call()
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def build(width: int, layers: int, dtype: str) -> Network:
    """`layers` hidden layers, a skip on every second one, branches scaled so that the sums keep their size."""
    scale = 1 / math.sqrt(layers)
    hidden = [
        Layer(width, skips={2: "identity"}, init_scale=scale) if number % 2 == 0 else Layer(width)
        for number in range(1, layers + 1)
    ]
    return Network(width, [*hidden, Layer(CLASSES, activation=None)], 0, dtype)


def batch(rows: int, width: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Normal inputs and random labels."""
    generator = np.random.default_rng(0)
    return generator.standard_normal((rows, width)).astype(dtype), generator.integers(0, CLASSES, rows)
