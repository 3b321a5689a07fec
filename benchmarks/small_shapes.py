"""Training on shapes small and odd enough for compute-sanitizer: `python -m benchmarks.small_shapes cuda [float32]`.

Networks with each kind of layer train some steps and predict, in every dtype and precision or in the one dtype named.
The loss is compared with the CPU's, so that a run that computes nothing is seen.
"""

from __future__ import annotations

import sys

import numpy as np

import resnetcore as rc
from resnetcore import _core

BATCHES = (5, 33, 70)  # of two rows, a batch norm makes ±1 of any difference: no loss to compare
# float32's "high" and "medium" products, and bfloat16, round more than sums of another order do.
KINDS = {
    ("float32", "highest"): 1e-5,
    ("float32", "high"): 5e-4,
    ("float32", "medium"): 1e-2,
    ("float64", "highest"): 1e-10,
    ("bfloat16", "highest"): 1e-2,
}
OPTIMIZERS = (rc.SGD(lr=0.01), rc.SGD(lr=0.01, momentum=0.9, nesterov=True), rc.AdamW(lr=1e-3))


def layers(classes: int) -> list[rc.Layer]:
    return [
        rc.Layer(37, norm="batch", activation="gelu"),
        rc.Layer(37, skips={2: "learned"}, dropout=0.1),
        rc.Layer(37, skips={2: "identity", 3: "learned"}, activation="tanh"),
        rc.Layer(37, gate=True),
        rc.Layer(67, norm="batch", skips={2: "learned"}, branch_dropout=0.1),
        rc.Layer(classes, activation=None),
    ]


def chain(classes: int) -> list[rc.Layer]:
    """Nothing but sums with skips, which a device may take in one piece, forward and backward."""
    return [
        rc.Layer(40),
        rc.Layer(40),
        rc.Layer(40, skips={2: "identity"}, activation="gelu"),
        rc.Layer(40, skips={2: "learned", 3: "identity"}),
        rc.Layer(classes, activation=None),
    ]


TRAININGS = (*((layers, optimizer) for optimizer in OPTIMIZERS), (chain, OPTIMIZERS[0]))


def final_loss(device: str, network, dtype: str, precision: str, optimizer, batch: int) -> float:
    """Of a fixed number of steps, the last with clipped gradients; two fits and a prediction follow."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((batch, 19)).astype("float32"), rng.integers(0, 5, batch)
    net = rc.Network(19, network(5), seed=0, dtype=dtype, device=device, matmul_precision=precision)
    for clip_norm in (None, 1.0):
        trainer = rc.Trainer(net, optimizer=optimizer, clip_norm=clip_norm)
        loss = [trainer.step(x, y) for _ in range(3)][-1]
    # Steps in flight, whose batches are sent beside the work, or gathered where they are.
    for given in (x, x if device == "cpu" else _core.to_device(x, net.device)):
        rc.Trainer(net, optimizer=optimizer, batch_size=(batch + 1) // 2).fit(given, y, epochs=2)
    if not np.isfinite(net.predict(x)).all():
        raise RuntimeError(f"predictions of {dtype}, {precision} on {device} are not finite")
    return loss


def main(device: str, only: str | None = None) -> None:
    chosen = {kind: bound for kind, bound in KINDS.items() if only in (None, kind[0])}
    for (dtype, precision), bound in chosen.items():
        for network, optimizer in TRAININGS:
            for batch in BATCHES:
                settings = network, dtype, precision, optimizer, batch
                here, there = final_loss("cpu", *settings), final_loss(device, *settings)
                if not abs(here - there) <= bound * abs(here):
                    raise RuntimeError(
                        f"{network.__name__}, {settings[1:]}: the loss is {there} on {device}, {here} on the CPU"
                    )
    print(f"small shapes: {len(chosen) * len(TRAININGS)} kinds of training agree on {device} and the CPU")


if __name__ == "__main__":
    main(*sys.argv[1:])
