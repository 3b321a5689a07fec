"""The sizes that are measured."""

from __future__ import annotations

from dataclasses import dataclass

CLASSES = 10


@dataclass(frozen=True)
class Shape:
    batch: int
    width: int
    depth: int

    @property
    def name(self) -> str:
        return f"B={self.batch}, D={self.width}, L={self.depth}"


SHAPES = [
    Shape(1024, 64, 32),
    Shape(4096, 128, 20),
    Shape(1024, 256, 16),
    Shape(256, 512, 12),
    Shape(512, 1024, 8),
    Shape(32, 128, 20),
]
# On a GPU, whose aims are of their own: batches that fill it, and one that does not.
GPU_SHAPES = [
    Shape(65536, 64, 8),
    Shape(65536, 128, 8),
    Shape(1024, 256, 16),
    Shape(8192, 512, 16),
    Shape(8192, 1024, 16),
    Shape(8192, 4096, 8),
]


def shapes_of(device: str) -> list[Shape]:
    return SHAPES if device == "cpu" else GPU_SHAPES
