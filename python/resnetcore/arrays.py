"""Any kind of array to NumPy and back. Nothing is copied here that NumPy can look at; no framework is imported."""

from __future__ import annotations

import mmap
import sys
from typing import Any, overload

import numpy as np

from . import _core
from ._errors import ArrayDeviceError, DTypeError, ShapeError
from .device_arrays import DeviceArray, as_host, device_array, gpu_of, is_on_gpu, like_device_array, on_device

_HOST_DEVICES = (1, 3, 11, 13)  # DLPack's CPU, and memory that CUDA and ROCm share with it
_FLOATS = (np.dtype("float32"), np.dtype("float64"))
# What stands for bfloat16 here, as NumPy has none; ml_dtypes, JAX and PyTorch each have their own.
BFLOAT16 = _core.bfloat16_dtype()

Rows = np.ndarray | DeviceArray  # of X: in the CPU's memory, or in that of the network's GPU


def as_array(operation: str, name: str, value: Any, *, widen: bool = True) -> np.ndarray:
    """`value` as a NumPy array of any dtype in native byte order: arrays, lists, frames, anything that speaks DLPack.

    NumPy has no bfloat16: where `widen`, it becomes float32, exactly; else it is a view as `BFLOAT16`.

    Raises:
        DTypeError: no array, or not in native byte order.
        ArrayDeviceError: an array that is not in the CPU's memory.
        BufferError: a DLPack array that is not sound.
    """
    what = f"{operation}: {name}"
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "to_numpy"):
        array = value.to_numpy()
    elif hasattr(value, "__dlpack__"):
        array = _from_dlpack(what, value, widen)
    elif is_on_gpu(value):
        raise ArrayDeviceError(f"{what} must be in the CPU's memory, got an array on a GPU; copy it to the CPU first")
    elif isinstance(value, (list, tuple)) or hasattr(value, "__array__") or _has_buffer(value):
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise ShapeError(f"{what} must be rectangular: {error}") from None
    else:
        raise DTypeError(f"{what} must be an array, got {type(value).__name__}")
    return _plain(what, name, array, widen)


def as_memory(operation: str, name: str, value: Any) -> np.ndarray:
    """`value`'s own memory as a NumPy array, never a copy: for what is written to. bfloat16 is a view as `BFLOAT16`.

    Raises:
        DTypeError: a list, a frame, or another object that NumPy could only copy; not in native byte order.
        ValueError: masked elements; read-only.
        ArrayDeviceError, BufferError: as `as_array`; BufferError also from a producer that can only copy.
    """
    what = f"{operation}: {name}"
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "__dlpack__"):
        array = _from_dlpack(what, value, widen=False, written=True)
    elif _has_buffer(value):
        array = np.asarray(memoryview(value))
    else:
        raise DTypeError(
            f"{what} is written to: it must be a NumPy array, or one that offers its memory by DLPack or the buffer "
            f"protocol, got {type(value).__name__}"
        )
    if not array.flags.writeable:
        raise ValueError(f"{what} is written to, and it is read-only")
    return _plain(what, name, array, widen=False)


def as_neighbour(operation: str, name: str, value: Any, device: str, written: bool = False) -> DeviceArray:
    """The memory of `value`, which has to be on the GPU `device` as a first array is; its library's work so far comes first.

    Raises:
        ArrayDeviceError: an array elsewhere.
        ValueError: read-only, or not said to be anything else, where it is to be written to.
        BufferError, DTypeError: as `on_device`.
    """
    what = f"{operation}: {name}"
    where = gpu_of(what, value, device) if is_on_gpu(value) else "in the CPU's memory"
    if where != device:
        raise ArrayDeviceError(
            f"{what} must be on {device} as sources[0] is, got an array {where.replace('cuda', 'on cuda')}; copy it to {device}"
        )
    return device_array(_without_negative_bit(what, value, written), what, device, written)


def dtype_name(dtype: np.dtype) -> str:
    """As messages have it."""
    return "bfloat16" if dtype == BFLOAT16 else str(dtype)


def all_finite(array: np.ndarray) -> bool:
    """Whether no element of an array of floating-point numbers is NaN or infinite."""
    if array.dtype == BFLOAT16:
        exponent = 0x7F80
        return bool((array.view(np.uint16) & exponent != exponent).all())
    return bool(np.isfinite(array).all())


def _plain(what: str, name: str, array: np.ndarray, widen: bool) -> np.ndarray:
    """Without a mask, which only a MaskedArray's own functions would see, in native byte order, bfloat16 as asked."""
    if isinstance(array, np.ma.MaskedArray):
        if np.ma.is_masked(array):
            raise ValueError(f"{what} has masked elements; fill them first, as with {name}.filled(0)")
        array = array.data
    if array.dtype.byteorder not in "=|" and not array.dtype.isnative:
        raise DTypeError(
            f"{what} must be in native byte order, got {array.dtype.str}; use "
            f"{name}.astype({name}.dtype.newbyteorder('='))"
        )
    # ml_dtypes', which its users alone import. To NumPy it is void, and a dtype's name takes long to make.
    if array.dtype.kind == "V" and array.dtype.name == "bfloat16":
        return array.astype(np.float32) if widen else array.view(BFLOAT16)
    return array


def as_host_array(operation: str, name: str, value: Any, device: str) -> np.ndarray:
    """`as_array`, of a copy where `value` is on the GPU `device`."""
    return as_array(operation, name, as_host(on_device(operation, name, value, device)) if is_on_gpu(value) else value)


def is_floating(array: Rows) -> bool:
    """Whether the core can read its elements, and convert them where the network's dtype is another."""
    return array.dtype in _FLOATS or (isinstance(array, DeviceArray) and array.dtype == BFLOAT16)


def as_rows(operation: str, name: str, value: Any, width: int, device: str = "cpu") -> Rows:
    """`value` as a (rows, width) array of float32 or float64, not copied where NumPy or the GPU `device` can look at it.

    Raises:
        ShapeError: another rank or width.
        DTypeError: integers, complex numbers, objects or strings.
        ArrayDeviceError: an array on another device than the CPU or `device`.
    """
    array: Rows
    if is_on_gpu(value):
        array = on_device(operation, name, _without_negative_bit(f"{operation}: {name}", value, False), device)
    else:
        array = as_array(operation, name, value)
    if not is_floating(array):
        # Frames become objects where a column is no number, but also where booleans or their own numbers stand beside.
        remedy = f"use {_as_float32(name, value)}" + (
            ", of its numeric columns, without missing values" if array.dtype.kind in "OUS" else ""
        )
        raise DTypeError(f"{operation}: {name} must be float32 or float64, got {array.dtype}; {remedy}")
    if array.ndim != 2 or array.shape[1] != width:
        remedy = f"; a single row is {name}[None, :]" if array.shape == (width,) else ""
        raise ShapeError(f"{operation}: {name} must be (rows, {width}), got {array.shape}{remedy}")
    return array


def is_memory_map(array: Any) -> bool:
    """Whether an array's memory is a file's, however many views lie between."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) or isinstance(array.base, mmap.mmap):
            return True
        array = array.base
    return False


def is_ready(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether the core can read the rows where they lie."""
    return array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned


@overload
def as_dense(array: np.ndarray, dtype: Any) -> np.ndarray: ...


@overload
def as_dense(array: Rows, dtype: Any) -> Rows: ...


def as_dense(array: Rows, dtype: Any) -> Rows:
    """`array` as the core reads it: itself where it is ready, else a copy, in which what `dtype` cannot hold is infinite.

    A GPU's is converted by the core, on that GPU.
    """
    dtype = np.dtype(dtype)
    if isinstance(array, DeviceArray) or is_ready(array, dtype):
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # invalid: of a signalling NaN, which becomes a quiet one
        return np.ascontiguousarray(array, dtype)


def _is_torch(original: Any) -> bool:
    return type(original).__module__.partition(".")[0] == "torch" and "torch" in sys.modules


def _as_float32(name: str, value: Any) -> str:
    """The conversion of `value` that its library has, as code."""
    if isinstance(value, (list, tuple)):
        return f"numpy.asarray({name}, 'float32')"
    return f"{name}.float()" if _is_torch(value) else f"{name}.astype('float32')"


def has_bfloat16(original: Any) -> bool:
    """Whether `like` can give bfloat16 to the caller: as PyTorch's, or in the dtype of ml_dtypes, which JAX imports."""
    return _is_torch(original) or "ml_dtypes" in sys.modules


def like(result: Rows, original: Any) -> Any:
    """`result` as the caller's kind of array: torch's and array-API libraries' own; NumPy's for everything else."""
    if isinstance(result, DeviceArray):
        return like_device_array(result, original)
    if _is_torch(original):
        torch = sys.modules["torch"]
        if result.dtype == BFLOAT16:
            return torch.from_dlpack(result.view(np.int16)).view(torch.bfloat16)
        return torch.from_dlpack(result)
    if result.dtype == BFLOAT16:
        result = result.view(sys.modules["ml_dtypes"].bfloat16)
    if isinstance(original, np.ndarray):
        return result
    if hasattr(original, "__array_namespace__"):
        return original.__array_namespace__().asarray(result)
    return result


class _WithoutCopy:
    """A DLPack producer that is asked not to copy, where it knows the question; unasked, it may."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __dlpack__(self, **arguments: Any) -> Any:
        try:
            return self._value.__dlpack__(copy=False, **arguments)
        except TypeError:
            return self._value.__dlpack__(**arguments)


def _from_dlpack(what: str, value: Any, widen: bool, written: bool = False) -> np.ndarray:
    value = _without_negative_bit(what, value, written)
    if hasattr(value, "__dlpack_device__") and int(value.__dlpack_device__()[0]) not in _HOST_DEVICES:
        raise ArrayDeviceError(
            f"{what} must be in the CPU's memory, got an array on another device; copy it to the CPU first"
        )
    return _core.from_dlpack(_WithoutCopy(value) if written else value, what, widen, written)


def _without_negative_bit(what: str, value: Any, written: bool) -> Any:
    """A tensor that PyTorch has marked as to be negated when it is read, as `z.conj().imag`: its DLPack forgets the mark."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor) or not value.is_neg():
        return value
    if written:
        raise ValueError(f"{what} is written to, and it is a negated view of memory; give its .resolve_neg()")
    return value.resolve_neg()


def _has_buffer(value: Any) -> bool:
    """Whether `value` offers its memory by the buffer protocol, and is no text."""
    try:
        memoryview(value)
    except TypeError:
        return False
    return not isinstance(value, (bytes, bytearray, str))
