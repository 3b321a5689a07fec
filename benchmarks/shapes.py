"""The work that is measured: `a_l = relu(a_{l-1} W + b + a_{l-2} every second layer)`, 10 classes, cross-entropy, SGD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = 10
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Shape:
    batch: int
    width: int
    depth: int

    @property
    def name(self) -> str:
        return f"B={self.batch}, D={self.width}, L={self.depth}"

    @property
    def operations(self) -> float:
        """Floating-point operations of a training step: three products a layer."""
        layers = self.depth - 1
        return 6.0 * self.batch * self.width * (layers * self.width + CLASSES)


SHAPES = [
    Shape(1024, 64, 32),
    Shape(4096, 128, 20),
    Shape(1024, 256, 16),
    Shape(256, 512, 12),
    Shape(512, 1024, 8),
    Shape(32, 128, 20),
]


def has_skip(layer: int, depth: int) -> bool:
    """Whether a layer, counted from 1, adds the activation two layers back."""
    return layer % 2 == 0 and layer < depth


def problem(shape: Shape) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """(weights and biases, x, labels), random. Weights are small enough that no skip makes the sum explode."""
    rng = np.random.default_rng(0)
    parameters = []
    for layer in range(1, shape.depth + 1):
        outputs = CLASSES if layer == shape.depth else shape.width
        weight = rng.standard_normal((shape.width, outputs)) / np.sqrt(shape.width * (1 if layer == 1 else 4))
        parameters.append((weight.astype("float32"), 0.1 * rng.standard_normal(outputs).astype("float32")))
    x = rng.standard_normal((shape.batch, shape.width)).astype("float32")
    return parameters, x, rng.integers(0, CLASSES, shape.batch)
