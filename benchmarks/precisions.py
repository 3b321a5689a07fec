"""`python -m benchmarks.precisions`: whole trainings on the digits that differ in the precision of their products alone.

Draws, over the epochs, the training loss, and how far the weights are from those of the same training in float64. A seed
gives every run the same start and the same batches, so float32 of "highest" shows what rounding of any kind comes to.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np

import resnetcore as rc
from resnetcore import _core, digits

RUNS = {"float64": ("float64", "highest"), "highest": ("float32", "highest"), "high": ("float32", "high")}
RUNS["medium"] = ("float32", "medium")


def train(start: rc.Network, data: digits.Split, epochs: int) -> dict[str, list]:
    """Losses and weights after every epoch, and the test accuracy at the end."""
    seen: dict[str, list] = {"loss": [], "weights": []}

    class Record(rc.Callback):
        def on_epoch_end(self, trainer: rc.Trainer, logs: dict) -> None:
            seen["loss"].append(logs["loss"])
            weights = trainer.net.parameters().values()
            seen["weights"].append(np.concatenate([np.asarray(w, np.float64).ravel() for w in weights]))

    trainer = rc.Trainer(start, optimizer=rc.SGD(lr=0.05, momentum=0.9), batch_size=64)
    trainer.fit(data.x, data.y, epochs=epochs, callbacks=[Record()], progress=False)
    predicted = start.predict(data.test_x).argmax(1)
    seen["accuracy"] = [float((predicted == data.test_y).mean())]
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precisions", description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--picture", type=Path, default=Path("docs/precisions.png"))
    arguments = parser.parse_args()
    if _core.available_precision("high") != "high":
        sys.exit('"high" runs as "highest" here; with AVX512-BF16, RESNETCORE_ISA=avx512_bf16 turns it on, slowly')
    data = digits.split()
    net = rc.models.resnet(64, 10, width=128, depth=20, norm="batch", seed=1)
    runs = {}
    for name, (dtype, precision) in RUNS.items():
        runs[name] = train(net.astype(dtype, precision), data, arguments.epochs)
        loss, exact = (np.array(runs[n]["loss"]) for n in (name, "float64"))
        apart = distances(runs[name], runs["float64"])
        print(
            f"{name:8} loss {loss[0]:.4f} … {loss[-1]:.2e}, from float64's by at most {np.abs(loss - exact).max():.1e}; "
            f"weights {apart[0]:.1e} … {apart[-1]:.1e} apart; test accuracy {runs[name]['accuracy'][0]:.3f}",
            flush=True,
        )
    draw(runs, arguments.picture)
    print(f"{arguments.picture}: {os.path.getsize(arguments.picture):,} bytes")


def distances(run: dict[str, list], exact: dict[str, list]) -> np.ndarray:
    """‖w − w₆₄‖ / ‖w₆₄‖ after every epoch."""
    pairs = zip(run["weights"], exact["weights"], strict=True)
    return np.array([np.linalg.norm(w - e) / np.linalg.norm(e) for w, e in pairs])


def draw(runs: dict[str, dict[str, list]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, weights = figure.subplots(1, 2)
    for (name, run), style in zip(runs.items(), ("-", "--", "-.", ":"), strict=True):
        epochs = np.arange(1, len(run["loss"]) + 1)
        losses.plot(epochs, run["loss"], style, label=name)
        if name != "float64":
            weights.plot(epochs, distances(run, runs["float64"]), style, color=f"C{list(runs).index(name)}", label=name)
    losses.set(
        yscale="log", xlabel="epoch", ylabel="training loss", title="The same training, by precision of products"
    )
    weights.set(
        yscale="log", xlabel="epoch", ylabel="‖w − w₆₄‖ / ‖w₆₄‖", title="Distance of the weights from float64's"
    )
    for axes in (losses, weights):
        axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
