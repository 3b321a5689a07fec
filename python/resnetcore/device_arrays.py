"""Arrays in a GPU's memory: taken where they lie, given back as the caller's kind. No framework is imported."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ._core import DeviceArray, device_array
from ._errors import ArrayDeviceError

__all__ = ["DeviceArray"]

_CUDA = 2  # DLPack's number


def is_on_gpu(value: Any) -> bool:
    """Whether an array is in a CUDA GPU's memory, as far as it says."""
    if isinstance(value, np.ndarray):
        return False
    if isinstance(value, DeviceArray):  # without DLPack's way round, which a small network's step would feel
        return True
    if hasattr(value, "__dlpack_device__"):
        try:
            return _dlpack_device(value)[0] == _CUDA
        except Exception:  # such as Arrow's of strings: who takes it from the CPU says what is wrong
            return False
    return hasattr(value, "__cuda_array_interface__")


def says_where(value: Any) -> bool:
    """Whether an array on a GPU says on which; an empty one is as well on one as on another where it does not."""
    if hasattr(value, "__dlpack_device__"):
        return True
    shape = value.__cuda_array_interface__.get("shape")
    return not isinstance(shape, tuple) or 0 not in shape


def on_device(operation: str, name: str, value: Any, device: str) -> DeviceArray:
    """The memory of `value`, an array on a GPU, for work on `device`; what its library does with it so far comes first.

    Raises:
        ArrayDeviceError: an array on another device.
        BufferError: an array that is not sound.
        DTypeError: elements that NumPy lacks.
    """
    what = f"{operation}: {name}"
    if isinstance(value, DeviceArray):
        _check_device(what, value.device, device)
    elif hasattr(value, "__dlpack_device__"):  # says where it is before any CUDA is asked for
        _check_device(what, f"cuda:{_dlpack_device(value)[1]}", device)
    elif device == "cpu":
        _check_device(what, "a GPU", device)
    array = device_array(value, what, device)
    _check_device(what, array.device, device)
    return array


def gpu_of(what: str, value: Any, home: str) -> str:
    """The device, "cuda:0", that an array on a GPU is on, `home` where it does not say; `what` begins messages."""
    if hasattr(value, "__dlpack_device__"):  # says so before any CUDA is asked for
        return f"cuda:{_dlpack_device(value)[1]}"
    return device_array(value, what, home).device


def as_host(array: DeviceArray) -> np.ndarray:
    """A copy in the CPU's memory; bfloat16, which NumPy lacks, becomes float32, exactly."""
    host = array.numpy()
    if host.dtype.kind != "V":
        return host
    return (host.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _dlpack_device(value: Any) -> tuple[int, int]:
    kind, index = value.__dlpack_device__()
    return int(kind), int(index)


def _check_device(what: str, where: str, device: str) -> None:
    if where == device:
        return
    move = where if where.startswith("cuda:") else "cuda"
    if device == "cpu":
        raise ArrayDeviceError(
            f"{what} must be in the CPU's memory, as its network is, got an array on {where}; copy it to the CPU first, or "
            f"move the network there by net.to({move!r})"
        )
    raise ArrayDeviceError(
        f"{what} is on {where}, and its network on {device}; copy it to {device}, or move the network by net.to({move!r})"
    )


def like_device_array(result: DeviceArray, original: Any) -> Any:
    """`result` as `original`'s kind of array, of the same memory, where its library takes arrays by DLPack."""
    if isinstance(original, DeviceArray):
        return result
    if hasattr(original, "__array_namespace__"):
        library = original.__array_namespace__()
    else:
        library = sys.modules.get(type(original).__module__.partition(".")[0])
    from_dlpack = getattr(library, "from_dlpack", None)
    return result if from_dlpack is None else from_dlpack(result)
