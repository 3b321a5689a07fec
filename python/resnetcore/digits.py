"""Real data that comes with scikit-learn: 1,797 pictures of handwritten digits, 8 x 8 pixels in 17 shades. Nothing is fetched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ._core import random_permutation


class Split(NamedTuple):
    """Rows to train on and rows to test on: (n, 64) float32 with pixels in [0, 1], labels (n,) int64."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def load() -> tuple[np.ndarray, np.ndarray]:
    """All pictures, (1797, 64) float32 in [0, 1], and their digits, (1797,) int64.

    Raises:
        ImportError: scikit-learn is not installed; the message has the command.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits come with scikit-learn: pip install 'resnetcore[sklearn]'") from error
    pixels, labels = load_digits(return_X_y=True)
    return np.ascontiguousarray(pixels / 16, np.float32), labels.astype(np.int64)


def split(test: float = 0.2, seed: int = 0) -> Split:
    """The pictures in an order given by `seed`, the last `test` of them set apart."""
    x, y = load()
    order = random_permutation(len(x), seed, 0)
    held_out = order[len(x) - round(len(x) * test) :]
    kept = order[: len(x) - len(held_out)]
    return Split(x[kept], y[kept], x[held_out], y[held_out])
