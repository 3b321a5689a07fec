"""The strict grammar of a safetensors header: what it accepts describes every byte of the data exactly once.

Read by a cursor that knows only what a header may hold, never by a general JSON parser: such a one follows nesting to
any depth and can make a hundred million bytes of text into many times as much memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ._errors import CheckpointError

__all__ = ["MAX_HEADER", "METADATA", "TensorInfo", "parse_header"]

MAX_HEADER = 100_000_000
METADATA = "__metadata__"
# NumPy 1.x stops at 32.
_MAX_DIMENSIONS = 32
_MAX_BYTES = 2**63 - 1

# Bounded, and never two blanks side by side: a hostile header costs a match no more than its own length.
_SPACE = r"[ \t\n\r]*"
_INTEGER = r"(?:0|[1-9][0-9]{0,18})"
_INTEGERS = rf"\[{_SPACE}(?:{_INTEGER}{_SPACE}(?:,{_SPACE}{_INTEGER}{_SPACE}){{0,{_MAX_DIMENSIONS - 1}}})?\]"
_FIELD = re.compile(
    rf'"(?:(dtype)"{_SPACE}:{_SPACE}"([A-Z0-9_]{{1,16}})"|(shape|data_offsets)"{_SPACE}:{_SPACE}({_INTEGERS}))'
)
_BLANK = re.compile(_SPACE)
_STRINGS = json.JSONDecoder()


class TensorInfo(NamedTuple):
    """Where an array lies: `begin` to `end` in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def parse_header(
    text: str, itemsizes: Mapping[str, int], data_bytes: int
) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """The arrays, in the order of their bytes, and the texts of a header whose data are `data_bytes` long.

    `itemsizes` are the bytes per element of each known dtype. Raises CheckpointError.
    """
    cursor = _Cursor(text)
    tensors: dict[str, TensorInfo] = {}
    metadata: dict[str, str] | None = None
    for name in cursor.object("the header"):
        if name == METADATA:
            if metadata is not None:
                raise CheckpointError(f"the header has '{METADATA}' twice")
            metadata = _parse_metadata(cursor)
        elif name in tensors:
            raise CheckpointError(f"the header has the tensor {_short(name)} twice")
        else:
            tensors[name] = _parse_tensor(cursor, name, itemsizes)
    cursor.finish()
    return _check_cover(tensors, data_bytes), metadata or {}


class _Cursor:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def object(self, what: str) -> Iterator[str]:
        """Yields each key of an object with the cursor on its value, which the caller reads."""
        self.expect("{", f"{what} must begin with '{{'")
        if self.accept("}"):
            return
        while True:
            key = self.string(f"a name in {what}")
            self.expect(":", f"':' must follow the name {_short(key)}")
            yield key
            if self.accept("}"):
                return
            self.expect(",", f"',' or '}}' must follow the value of {_short(key)}")

    def string(self, what: str) -> str:
        self.blank()
        value: str | None = None
        if self.text.startswith('"', self.at):
            try:
                value, self.at = _STRINGS.raw_decode(self.text, self.at)
                value.encode("utf-8")
            except ValueError:
                value = None
        if value is None:
            raise self.error(f"{what} must be a string of valid Unicode")
        return value

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.blank()
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def accept(self, character: str) -> bool:
        self.blank()
        found = self.text.startswith(character, self.at)
        self.at += found
        return found

    def expect(self, character: str, problem: str) -> None:
        if not self.accept(character):
            raise self.error(problem)

    def finish(self) -> None:
        self.blank()
        if self.at != len(self.text):
            raise self.error("nothing but blanks may follow the header's last '}'")

    def blank(self) -> None:
        self.at = _BLANK.match(self.text, self.at).end()  # type: ignore[union-attr]

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{problem}, got {self.text[self.at : self.at + 40]!r} at character {self.at}")


def _parse_metadata(cursor: _Cursor) -> dict[str, str]:
    metadata: dict[str, str] = {}
    for key in cursor.object(f"'{METADATA}'"):
        if key in metadata:
            raise CheckpointError(f"'{METADATA}' has {_short(key)} twice")
        metadata[key] = cursor.string(f"the text of {_short(key)} in '{METADATA}'")
    return metadata


def _parse_tensor(cursor: _Cursor, name: str, itemsizes: Mapping[str, int]) -> TensorInfo:
    what = f"tensor {_short(name)}"
    cursor.expect("{", f"{what} must be an object")
    fields = _parse_fields(cursor, what)
    shape, offsets = _integers(fields["shape"]), _integers(fields["data_offsets"])
    if fields["dtype"] not in itemsizes:
        raise CheckpointError(f"{what} must be of a dtype among {', '.join(itemsizes)}, got {fields['dtype']}")
    if len(offsets) != 2:
        raise CheckpointError(f"{what} must have two data_offsets, got {len(offsets)}")
    size = _bytes(what, shape, itemsizes[fields["dtype"]])
    begin, end = offsets
    if end - begin != size:
        raise CheckpointError(f"{what} of shape {shape} needs {size} bytes, got data_offsets {begin} to {end}")
    return TensorInfo(fields["dtype"], shape, begin, end)


def _parse_fields(cursor: _Cursor, what: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    while len(fields) < 3:
        if fields:
            cursor.expect(",", f"{what} must have dtype, shape and data_offsets")
        field = cursor.match(_FIELD)
        key = field[1] or field[3] if field else None
        if field is None or key is None or key in fields:
            raise cursor.error(
                f"{what} must have dtype, shape (at most {_MAX_DIMENSIONS} dimensions) and data_offsets once each, "
                "with sizes that are integers from 0 to 2**63 - 1"
            )
        fields[key] = field[2] or field[4]
    cursor.expect("}", f"{what} must have nothing but dtype, shape and data_offsets")
    return fields


def _integers(text: str) -> tuple[int, ...]:
    inside = text[1:-1].strip()
    return tuple(int(word) for word in inside.split(",")) if inside else ()


def _bytes(what: str, shape: tuple[int, ...], itemsize: int) -> int:
    # Zeros are left out of the bound: NumPy refuses strides that overflow even where there is no element.
    size, bound = itemsize, itemsize
    for extent in shape:
        size *= extent
        bound *= extent or 1
    if bound > _MAX_BYTES:
        raise CheckpointError(f"{what} must take less than 2**63 bytes, got shape {shape}")
    return size


def _check_cover(tensors: dict[str, TensorInfo], data_bytes: int) -> dict[str, TensorInfo]:
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    end = 0
    for name, info in ordered.items():
        if info.begin != end:
            kind = "a hole" if info.begin > end else "an overlap"
            raise CheckpointError(f"tensor {_short(name)} must begin at byte {end}, got {info.begin}: {kind}")
        end = info.end
    if end != data_bytes:
        kind = "truncated" if end > data_bytes else "followed by bytes that belong to no tensor"
        raise CheckpointError(f"the tensors take {end} bytes, got {data_bytes}: the data are {kind}")
    return ordered


def _short(name: str) -> str:
    return repr(name if len(name) <= 64 else name[:64] + "…")
