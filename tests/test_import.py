"""Importing resnetcore costs little more than importing NumPy, and pulls in no framework."""

import statistics
import subprocess
import sys
import time

import pytest

import resnetcore as rc

HEAVY = (
    "ml_dtypes",
    "torch",
    "jax",
    "onnx",
    "sklearn",
    "scipy",
    "matplotlib",
    "pandas",
    "polars",
    "tqdm",
    "pybind11",
    "safetensors",
)


def run(code):
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_nothing_heavy_is_imported():
    loaded = run("import resnetcore, sys; print(*{name.partition('.')[0] for name in sys.modules})").split()
    assert not set(loaded) & set(HEAVY)


def test_only_the_core_and_numpy_are_loaded():
    ours = run("import resnetcore, sys; print(*sorted(m for m in sys.modules if m.startswith('resnetcore.')))").split()
    assert "resnetcore._core" in ours
    for module in ("resnetcore.trainer", "resnetcore.checkpoint", "resnetcore.cli", "resnetcore.plots"):
        assert module not in ours


@pytest.mark.alone
def test_import_takes_less_than_1_3_times_numpys():
    def seconds(module):
        begin = time.perf_counter()
        run(f"import {module}")
        return time.perf_counter() - begin

    bare = statistics.median(seconds("sys") for _ in range(5))
    for _attempt in range(3):  # one quiet moment is enough: a busy machine only ever makes it slower
        pairs = [(seconds("numpy") - bare, seconds("resnetcore") - bare) for _ in range(7)]
        numpy, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
        if ours < 1.3 * numpy:
            return
    pytest.fail(f"numpy takes {numpy:.3f} s, resnetcore {ours:.3f} s")


def test_every_public_name_is_there():
    missing = []
    for name in rc.__all__:
        try:
            getattr(rc, name)
        except (ImportError, AttributeError):
            missing.append(name)
    assert not missing
    assert set(rc.__all__) <= set(dir(rc))


def test_every_public_name_has_a_docstring():
    assert [name for name in rc.__all__ if name != "__version__" and not getattr(rc, name).__doc__] == []


def test_unknown_name():
    with pytest.raises(AttributeError, match="nonsense"):
        rc.nonsense  # noqa: B018


def test_version():
    assert rc.__version__.count(".") >= 2
