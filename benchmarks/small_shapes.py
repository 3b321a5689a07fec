"""Training on shapes small and odd enough for compute-sanitizer: `python -m benchmarks.small_shapes cuda [float32 [brief]]`.

Networks with each kind of layer train some steps and predict, in every dtype and precision or in the one dtype named;
`brief`: with every kernel still, but fewer optimizers and batches.
Then what other libraries call does the same with arrays that are on the device, in the order of a stream: a block, of
every layout, and a stack, as PyTorch's is. Results are compared with the CPU's, so that a run that computes nothing is seen.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import resnetcore as rc
from resnetcore import _core

# Of two rows, a batch norm makes ±1 of any difference: no loss to compare. Of the most, gradients are taken in parts.
BATCHES = (5, 33, 70, 1100)
BRIEF = BATCHES[1::2]
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


def norms(classes: int) -> list[rc.Layer]:
    """A norm at every layer, of widths that differ: a device may take all of them in one piece, too."""
    return [
        rc.Layer(40, norm="batch"),
        rc.Layer(72, norm="batch"),
        rc.Layer(72, norm="batch", skips={2: "learned"}),
        rc.Layer(72, norm="batch", skips={2: "identity"}),
        rc.Layer(130, norm="batch"),
        rc.Layer(classes, activation=None),
    ]


TRAININGS = (*((layers, optimizer) for optimizer in OPTIMIZERS), (chain, OPTIMIZERS[0]), (norms, OPTIMIZERS[0]))
BRIEF_TRAININGS = TRAININGS[2:]


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


def _address(array: Any) -> int:
    return (array if isinstance(array, np.ndarray) else _core.layout_of(array)).ctypes.data


class Arrays:
    """Arrays for the core, on the CPU or on a device."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.stream = None if device == "cpu" else 1  # CUDA's default one

    def of(self, values: np.ndarray) -> Any:
        """A copy."""
        return values.copy() if self.device == "cpu" else _core.to_device(values, self.device)

    def turned(self, values: np.ndarray) -> Any:
        """A copy, whose columns are contiguous."""
        copy = self.of(np.ascontiguousarray(values.T))
        if self.device == "cpu":
            return copy.T
        return _core.array_at(copy.device, _address(copy), values.shape, (1, len(values)), copy.dtype, copy)

    def tape(self, size: int) -> Any:
        """Bytes on a boundary of 64."""
        bytes_ = self.of(np.zeros(size + 64, "uint8"))
        start = -_address(bytes_) % 64
        return bytes_[start : start + size]

    @staticmethod
    def back(array: Any) -> np.ndarray:
        """In the CPU's memory."""
        return array if isinstance(array, np.ndarray) else array.numpy()


def block(device: str, dtype: str, rows: int) -> list[np.ndarray]:
    """All results of a block whose arrays have gaps between rows, lie turned, and are trained in place."""
    arrays, rng = Arrays(device), np.random.default_rng(1)
    stream = {} if arrays.stream is None else {"stream": arrays.stream}
    x, w, v, b = (rng.standard_normal(shape).astype(dtype) for shape in ((2 * rows, 19), (19, 37), (37, 37), 37))
    left, term = arrays.of(x)[::2], arrays.turned(rng.standard_normal((rows, 37)).astype(dtype))
    for weights in ([arrays.turned(w), arrays.of(v)], [arrays.of(w), arrays.turned(v)]):
        bias = arrays.of(b)
        given = [left, term], weights, bias, [term]
        a = rc.ops.residual_forward(*given, "gelu", **stream)
        d_sources, d_weights, d_bias, d_identity = rc.ops.residual_backward(a, a, *given, "gelu", **stream)
        rc.ops.residual_update(a, a, *given, "gelu", lr=0.01, **stream)
    return [arrays.back(r) for r in (a, *d_sources, *d_weights, d_bias, *d_identity, *weights, bias)]


def stack(device: str, dtype: str, rows: int, network=layers, training: bool = True) -> list[np.ndarray]:
    """A stack's outputs, statistics and gradients, of a pass in training, or with running statistics."""
    arrays, rng = Arrays(device), np.random.default_rng(2)
    computed = "float64" if dtype == "float64" else "float32"
    vjp = _core.Vjp(19, [layer.to_dict() for layer in network(5)], dtype, training, True, device)
    named = [
        (name, np.abs(0.2 * rng.standard_normal(shape)) + name.endswith("running_var"), t)
        for name, shape, t in vjp.parameters
    ]
    values = [arrays.of(value.astype(computed)) for _, value, _ in named]

    def room(*shape: int) -> Any:
        return arrays.of(np.zeros(shape, computed))

    x, out, d_x = arrays.of(rng.standard_normal((rows, 19)).astype(computed)), room(rows, 5), room(rows, 19)
    tape = arrays.tape(vjp.tape_bytes(rows))
    carried = [room(*value.shape) for name, value, _ in named if training and ".running_" in name]
    gradients = [room(*value.shape) for _, value, is_trained in named if is_trained]
    vjp.forward(x, values, 7, tape, out, carried, arrays.stream)
    vjp.backward(x, values, 7, tape, out, d_x, gradients, arrays.stream)
    return [arrays.back(r) for r in (out, *carried, d_x, *gradients)]


def norm_stack(device: str, dtype: str, rows: int) -> list[np.ndarray]:
    return stack(device, dtype, rows, norms)


def frozen_stack(device: str, dtype: str, rows: int) -> list[np.ndarray]:
    return stack(device, dtype, rows, norms, False)


def compare(device: str, dtype: str, bound: float, batches: tuple[int, ...] = BATCHES) -> None:
    for results in (block, stack, norm_stack, frozen_stack)[dtype == "bfloat16" :]:  # NumPy has no bfloat16
        for rows in batches:
            pairs = list(zip(results("cpu", dtype, rows), results(device, dtype, rows), strict=True))
            # Of all, as some are nothing but rounding: the gradient of a bias that a norm takes away again.
            largest = max(np.linalg.norm(here) for here, _ in pairs)
            difference = max(np.linalg.norm(here - there) for here, there in pairs)
            if not difference <= 10 * bound * largest:
                raise RuntimeError(
                    f"{results.__name__}, {dtype}, {rows} rows: {device} differs by {difference} of {largest}"
                )


def main(device: str, only: str | None = None, extent: str = "") -> None:
    trainings, batches = (BRIEF_TRAININGS, BRIEF) if extent == "brief" else (TRAININGS, BATCHES)
    chosen = {kind: bound for kind, bound in KINDS.items() if only in (None, kind[0])}
    for (dtype, precision), bound in chosen.items():
        for network, optimizer in trainings:
            for batch in batches:
                settings = network, dtype, precision, optimizer, batch
                here, there = final_loss("cpu", *settings), final_loss(device, *settings)
                if not abs(here - there) <= bound * abs(here):
                    raise RuntimeError(
                        f"{network.__name__}, {settings[1:]}: the loss is {there} on {device}, {here} on the CPU"
                    )
    for dtype in dict.fromkeys(dtype for dtype, _ in chosen):
        compare(device, dtype, KINDS[dtype, "highest"], batches)
    print(f"small shapes: {len(chosen) * len(trainings)} kinds of training agree on {device} and the CPU")


if __name__ == "__main__":
    main(*sys.argv[1:])
