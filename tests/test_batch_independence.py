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


@pytest.fixture
def number_of_threads():
    before = rc.get_num_threads()
    yield
    rc.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize(
    "network",
    [
        lambda dtype: rc.models.resnet(580, 5, 580, 8, norm="batch", seed=1, dtype=dtype),
        lambda dtype: rc.models.highway(600, 5, 600, 5, seed=1, dtype=dtype),
        lambda dtype: rc.models.densenet(500, 5, 490, 5, seed=1, dtype=dtype),
    ],
    ids=["norms", "gates", "dense"],
)
def test_threads_that_divide_the_columns_of_a_few_rows(network, dtype, number_of_threads):
    net = network(dtype)
    x = (
        np.random.default_rng(0)
        .standard_normal((40, net.inputs))
        .astype("float64" if dtype == "float64" else "float32")
    )
    rc.set_num_threads(1)
    whole = net.predict(x)
    for threads in (2, 3, 7):
        rc.set_num_threads(threads)
        assert "some columns of every step" in str(net.explain(batch=4))
        assert "some columns of every step" not in str(net.explain(batch=40))
        for rows in (1, 2, 4, 8):
            for start in (0, 3, 32):
                assert np.array_equal(net.predict(x[start : start + rows]), whole[start : start + rows]), (
                    threads,
                    rows,
                )
