"""The arrays of an ONNX file: no byte is read, and no memory taken, that the file itself is not long enough for.

External data (the `.data` file that large models and PyTorch's exporter write) is read from the model's own folder, from
plain files only.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from .._atomic import open_regular
from .._errors import CheckpointError

# By ONNX's data type: name, NumPy's type in raw bytes, the field that holds the numbers where there are no raw bytes.
_TYPES = {
    1: ("FLOAT", "<f4", "float_data"),
    6: ("INT32", "<i4", "int32_data"),
    7: ("INT64", "<i8", "int64_data"),
    9: ("BOOL", "|b1", "int32_data"),
    11: ("DOUBLE", "<f8", "double_data"),
}
_EXTERNAL = 1  # TensorProto.EXTERNAL


class Tensors:
    """Reads the tensors of one model; `folder` has its external data, None for a model that is no file."""

    def __init__(self, folder: str | None) -> None:
        self._folder = folder
        self._left: dict[str, int] = {}  # bytes of each file of external data that no tensor has claimed yet

    def array(self, tensor: Any, name: str) -> np.ndarray:
        """The tensor's numbers, of which messages speak by this name. Raises CheckpointError, OSError."""
        if tensor.data_type not in _TYPES:
            raise _error(
                name, f"must be of {', '.join(t[0] for t in _TYPES.values())}, got data type {tensor.data_type}"
            )
        _, kind, field = _TYPES[tensor.data_type]
        dtype, shape = np.dtype(kind), tuple(tensor.dims)
        if any(n < 0 for n in shape):
            raise _error(name, f"has the shape {shape}")
        count = math.prod(shape)
        if tensor.data_location == _EXTERNAL:
            raw = self._external(tensor, name, count * dtype.itemsize)
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data
        else:
            numbers = getattr(tensor, field)
            if len(numbers) != count:
                raise _error(name, f"must hold {count} numbers for the shape {shape}, got {len(numbers)}")
            return np.array(numbers).astype(dtype.newbyteorder("=")).reshape(shape)
        if len(raw) != count * dtype.itemsize:
            raise _error(name, f"must hold {count * dtype.itemsize} bytes for the shape {shape}, got {len(raw)}")
        return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="), copy=False).reshape(shape)

    def _external(self, tensor: Any, name: str, size: int) -> bytes:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise _error(name, f"is in another file, {location!r}: give the model's path, by which that file is found")
        if location in ("", ".", "..") or "\0" in location or os.path.basename(location) != location:
            raise _error(name, f"must be in a file beside the model, got the location {location!r}")
        offset, length = (_count(name, entries, key) for key in ("offset", "length"))
        if length not in (None, size):
            raise _error(name, f"must hold {size} bytes, got the length {length}")
        path = os.path.join(self._folder, location)
        if os.path.islink(path):
            raise _error(name, f"must be in a plain file beside the model, got the link {location!r}")
        with os.fdopen(open_regular(path), "rb") as file:
            there = os.fstat(file.fileno()).st_size
            left = self._left.setdefault(location, there)
            if (offset or 0) + size > there or size > left:
                raise _error(
                    name, f"needs {size} bytes from byte {offset or 0} on, and {location!r} has {there} in all"
                )
            self._left[location] = left - size
            file.seek(offset or 0)
            return file.read(size)


def _count(name: str, entries: dict[str, str], key: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _error(name, f"must have a number as the {key} of its external data, got {text[:40]!r}")
    return int(text)


def _error(name: str, problem: str) -> CheckpointError:
    return CheckpointError(f"onnx.load: tensor {name[:64]!r} {problem}")
