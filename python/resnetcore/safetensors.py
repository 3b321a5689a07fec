"""Named arrays in the safetensors layout: nothing is allocated from a file before its whole header has been checked.

A file is 8 bytes (the header's length, little-endian), the header (JSON: `{"name": {"dtype", "shape", "data_offsets"}}`
and text under `"__metadata__"`), and the arrays' bytes, little-endian in C order, one after the other without a gap.
Two saves of equal arrays are equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ._atomic import open_regular, replace_file
from ._errors import CheckpointError, DTypeError
from ._safetensors_header import MAX_HEADER, METADATA, TensorInfo, parse_header

__all__ = ["Reader", "read", "write"]

Array = npt.NDArray[Any]

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_ITEMSIZES = {name: np.dtype(dtype).itemsize for name, dtype in _DTYPES.items()}


def write(path: str | os.PathLike[str], arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> None:
    """Replaces the file at `path`, whole or not at all, by `arrays` and the texts of `metadata`.

    Raises DTypeError for an array that is not of integers or of float16 to float64, ValueError for a name or text that
    the header cannot hold, OSError where the file cannot be written; the old file is then as it was.
    """
    # Wide elements first keeps every array aligned to its element.
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    replace_file(path, _chunks([arrays[name] for name in names], _header(names, arrays, metadata)))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays of a file and its texts. Raises CheckpointError for a bad file, OSError for an unreadable one."""
    with Reader(path) as reader:
        return reader.read(), reader.metadata


class Reader:
    """An open file with a checked header: `tensors` {name: dtype, shape, offset} and `metadata` {name: text}.

    Memory for arrays is taken by `read` alone, so that what the header says can be compared with what is wanted first.
    The file is read, not mapped: one that is overwritten later changes nothing.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fsdecode(path)
        self._file = os.fdopen(open_regular(path), "rb", buffering=0)
        try:
            self._start, self.tensors, self.metadata = self._read_header(os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def error(self, problem: str) -> CheckpointError:
        """A CheckpointError that names the file and what is wrong with it."""
        return CheckpointError(f"load: '{self._path}': {problem}")

    def read(self, names: Collection[str] | None = None) -> dict[str, Array]:
        """All arrays, or those of `names`, in the file's order and this machine's byte order."""
        chosen = self.tensors if names is None else [name for name in self.tensors if name in names]
        return {name: self._read_array(self.tensors[name]) for name in chosen}

    def _read_header(self, size: int) -> tuple[int, dict[str, TensorInfo], dict[str, str]]:
        if size < 8:
            raise self.error(f"a safetensors file has at least 8 bytes, got {size}")
        length = int.from_bytes(self._fill(bytearray(8)), "little")
        if length > min(size - 8, MAX_HEADER):
            raise self.error(
                f"the header's length must be at most {min(size - 8, MAX_HEADER)} bytes, got {length}; "
                "the file is truncated or not in safetensors format"
            )
        try:
            text = self._fill(bytearray(length)).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"the header must be UTF-8: {error.reason} at byte {8 + error.start}") from None
        try:
            tensors, metadata = parse_header(text, _ITEMSIZES, size - 8 - length)
        except CheckpointError as error:
            raise self.error(str(error)) from None
        return 8 + length, tensors, metadata

    def _read_array(self, info: TensorInfo) -> Array:
        stored = np.dtype(_DTYPES[info.dtype]).newbyteorder("<")
        array = np.empty(info.shape, stored)
        self._file.seek(self._start + info.begin)
        self._fill(array.reshape(-1).view(np.uint8))
        return array.astype(stored.newbyteorder("="), copy=False)

    def _fill(self, buffer: Any) -> Any:
        rest = memoryview(buffer)
        while rest:
            count = self._file.readinto(rest)
            if not count:
                raise self.error("the file became shorter while it was read")
            rest = rest[count:]
        return buffer


def _header(names: list[str], arrays: Mapping[str, Array], metadata: Mapping[str, str] | None) -> bytes:
    header: dict[str, Any] = {}
    if metadata:
        header[METADATA] = {_text(key): _text(metadata[key]) for key in sorted(metadata)}
    end = 0
    for name in names:
        array = arrays[name]
        dtype = _NAMES.get(array.dtype.newbyteorder("="))
        if dtype is None:
            raise DTypeError(f"save: '{name}' must be of a dtype among {', '.join(_DTYPES)}, got {array.dtype}")
        if name == METADATA:
            raise ValueError(f"save: no array can be named '{METADATA}': the layout keeps that name for itself")
        begin, end = end, end + array.nbytes
        header[_text(name)] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > MAX_HEADER:
        raise ValueError(f"save: names, shapes and texts need a header of {len(encoded)} bytes, and {MAX_HEADER} fit")
    return len(encoded).to_bytes(8, "little") + encoded


def _text(value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"save: names and texts must be encodable as UTF-8, got {value!r}") from None
    return value


def _chunks(arrays: list[Array], header: bytes) -> Iterator[Any]:
    yield header
    for array in arrays:
        stored = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        yield stored.reshape(-1).view(np.uint8)
