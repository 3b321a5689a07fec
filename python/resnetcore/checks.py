"""Checks of single arguments: each returns the argument as it is used, or raises the error that names it."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from . import _core
from ._errors import BuildFeatureError, DeviceError, DTypeError
from .device_arrays import DeviceArray, as_host

# More of anything does not fit into a machine; what is below is a number to every library.
_MOST = 2**53


def as_integer(what: str, value: Any, at_least: int | None = None) -> int:
    """`value` as an int; DTypeError for anything that is not an integer (a bool is not one). `what` names it.

    Where it counts something, `at_least` so many: ValueError for fewer, and for more than 2**53.
    """
    if isinstance(value, (bool, np.bool_)) or not hasattr(value, "__index__"):
        raise DTypeError(f"{what} must be an int, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:  # of arrays, which have the method
        raise DTypeError(f"{what} must be an int, got {value!r}") from None
    if at_least is not None and number < at_least:
        raise ValueError(f"{what} must be at least {at_least}, got {number}")
    if at_least is not None and number > _MOST:
        raise ValueError(f"{what} must be at most 2**53, got {number}")
    return number


def as_number(what: str, value: Any) -> float:
    """`value` as a float; DTypeError for what is no real number, ValueError for NaN and infinity.

    A bool is none, nor is an array with dimensions; one without is, of any library.
    """
    dtype = str(getattr(value, "dtype", ""))
    other = isinstance(value, (bool, str, bytes)) or "bool" in dtype or "complex" in dtype
    if other or getattr(value, "ndim", 0) != 0 or not hasattr(value, "__float__"):
        raise DTypeError(f"{what} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError, RuntimeError):  # a RuntimeError is PyTorch's, of a tensor without data
        raise DTypeError(f"{what} must be a number, got {value!r}") from None
    if not math.isfinite(number):
        raise ValueError(f"{what} must be finite, got {number}")
    return number


def require_finite(operation: str, name: str, array: np.ndarray | DeviceArray) -> None:
    """ValueError where an array, (rows, …), holds a NaN or an infinity; of a GPU's, a copy is looked at."""
    if isinstance(array, DeviceArray):
        array = as_host(array)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=tuple(range(1, array.ndim))))
    if len(bad):
        raise ValueError(
            f"{operation}: {name} must be finite in {array.dtype} (check_finite=True), got NaN or Inf in {len(bad)} rows"
        )


DTYPES = ("float32", "float64", "bfloat16")


def check_dtype(operation: str, dtype: Any) -> str:
    """The name of a network's dtype, or the error that says which there are."""
    name = str(dtype).removeprefix("torch.")
    if name == "float16":
        raise BuildFeatureError(f"{operation}: this build has no networks of float16; use 'bfloat16'")
    if name not in DTYPES and dtype is not None:
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = str(dtype)
    if name not in DTYPES:
        raise DTypeError(f"{operation}: dtype must be 'float32', 'float64' or 'bfloat16', got {dtype!r}")
    return name


def check_matmul_precision(what: str, precision: Any) -> str:
    """One of PyTorch's three names."""
    if not isinstance(precision, str) or precision not in ("highest", "high", "medium"):
        raise ValueError(f'{what} must be "highest", "high" or "medium", got {precision!r}')
    return precision


def check_device(operation: str, device: Any) -> str:
    """The full name of a device, "cuda:0" of "cuda"; DeviceError, with the reason, where it cannot be had."""
    try:
        return _core.check_device(str(device))
    except (DeviceError, ValueError) as error:
        raise DeviceError(f"{operation}: {error}") from None


def check_seed(operation: str, seed: Any) -> int:
    """A seed as the generators take it, 0 ≤ seed < 2**64."""
    value = as_integer(f"{operation}: seed", seed)
    if not 0 <= value < 2**64:
        raise ValueError(f"{operation}: seed must be from 0 to 2**64 - 1, got {value}")
    return value
