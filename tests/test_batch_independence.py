"""A row's prediction is the same bits whatever the batch it comes in."""

import numpy as np
import pytest

import resnetcore as rc


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("norm", [None, "batch"])
def test_rows_do_not_see_each_other(norm, dtype):
    net = rc.models.resnet(37, 5, 67, 8, norm=norm, seed=1, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((131, 37)).astype("float64" if dtype == "float64" else "float32")
    whole = net.predict(x)
    for size in (1, 2, 3, 5, 8, 13, 16, 31, 64, 130):
        parts = [net.predict(x[start : start + size]) for start in range(0, len(x), size)]
        assert np.array_equal(np.concatenate(parts), whole), size
