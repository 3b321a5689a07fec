"""Tables from files: every cell of a column that is used is a number, or the error names its row and column.

CSV files have a header; the separator is a comma, semicolon or tab. A .npy file holds one array of two dimensions, whose
columns are named by their numbers, from 0. A .npz file holds several arrays by name; one of two dimensions is the inputs.
"""

from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np

DIGITS = "digits"


@dataclass(frozen=True)
class Table:
    """Columns by name, each (rows,): of numbers, or of strings as they stand in a CSV file."""

    source: str
    columns: dict[str, np.ndarray]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()), ()))

    def column(self, name: str) -> np.ndarray:
        """One column, as it is; ValueError naming those there are."""
        if name not in self.columns:
            raise ValueError(f"{self.source}: there is no column {name!r}; there are {_listed(list(self.columns))}")
        return self.columns[name]

    def numbers(self, names: Sequence[str]) -> np.ndarray:
        """(rows, names) float64."""
        columns = [_as_numbers(self.source, name, self.column(name)) for name in names]
        return np.stack(columns, axis=1) if columns else np.empty((self.rows, 0))


def read(path: str) -> Table:
    """A table from a .csv (or .tsv, .txt), .npy or .npz file, or the word "digits".

    Raises:
        OSError: no such file.
        ValueError: no table, an empty one, or rows of different lengths.
        ImportError: "digits" without scikit-learn.
    """
    if path == DIGITS:
        return _digits()
    ending = os.path.splitext(path)[1].lower()
    if ending not in (".csv", ".tsv", ".txt", ".npy", ".npz"):
        raise ValueError(f"{path}: tables are .csv, .tsv, .txt, .npy or .npz files, or the word {DIGITS!r}")
    if not os.path.isfile(path) and os.path.exists(path):
        raise ValueError(f"{path}: not a regular file")
    columns = _read_csv(path) if ending in (".csv", ".tsv", ".txt") else _read_numpy(path)
    table = Table(path, columns)
    if table.rows == 0:
        raise ValueError(f"{path}: the table has no rows")
    return table


def _digits() -> Table:
    from .. import digits

    pixels, labels = digits.load()
    return Table(DIGITS, {**{f"pixel{i}": column for i, column in enumerate(pixels.T)}, "digit": labels})


def _read_csv(path: str) -> dict[str, np.ndarray]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        try:
            separator = _separator(file.readline())
            file.seek(0)
            lines = csv.reader(file, delimiter=separator, strict=True)
            names = [name.strip() for name in next(lines, [])]
            rows = [row for row in lines if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: not a CSV file in UTF-8: {error}") from None
    if len(set(names)) < len(names) or not all(names):
        index = "; the first is unnamed, as an index is that pandas wrote: leave it out with to_csv(index=False)"
        raise ValueError(
            f"{path}: the first line must name each column, each once, got {_listed(names)}"
            + (index if names[:1] == [""] else "")
        )
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise ValueError(f"{path}: row {number} has {len(row)} cells, the header names {len(names)} columns")
    return {name: np.array([row[i].strip() for row in rows], str) for i, name in enumerate(names)}


def _separator(header: str) -> str:
    return max(",;\t", key=header.count)


def _read_numpy(path: str) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as file:  # NumPy leaves it open where it is no archive
            loaded = np.load(file, allow_pickle=False)
            arrays = {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else {"": loaded}
    except (ValueError, EOFError, KeyError, BadZipFile, zlib.error, NotImplementedError) as error:
        raise ValueError(f"{path}: cannot be read as NumPy arrays without pickle: {error}") from None
    if strange := [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]:
        raise ValueError(f"{path}: {strange[0]!r} is no NumPy array; make the file with numpy.savez")
    columns: dict[str, np.ndarray] = {}
    wide = [name for name, array in arrays.items() if array.ndim == 2]
    if len(wide) != 1:
        raise ValueError(f"{path}: one array must have two dimensions, got {_shapes(arrays)}")
    columns.update({str(i): column for i, column in enumerate(arrays[wide[0]].T)})
    rows = len(arrays[wide[0]])
    columns.update({name: array for name, array in arrays.items() if array.shape == (rows,)})
    return columns


def _as_numbers(source: str, name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind in "fiub":
        values = column.astype(np.float64)
    elif column.dtype.kind == "U":
        values = _parsed(source, name, column)
    else:
        raise ValueError(f"{source}: column {name!r} must hold numbers, got dtype {column.dtype}")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"{source}: column {name!r} has {values[bad[0]]} in row {bad[0] + 1}; fill it in or leave the row out"
        )
    return values


def _parsed(source: str, name: str, column: np.ndarray) -> np.ndarray:
    values = np.empty(len(column))
    for row, cell in enumerate(column):
        try:
            values[row] = float(cell)
        except ValueError:
            remedy = "encode it as numbers, or leave it out with --drop" if cell else "fill it in or leave the row out"
            raise ValueError(
                f"{source}: column {name!r} has {str(cell)!r} in row {row + 1}, no number; {remedy}"
            ) from None
    return values


def _shapes(arrays: dict[str, Any]) -> str:
    return ", ".join(f"{name or 'an array'} of shape {array.shape}" for name, array in arrays.items()) or "none"


def _listed(names: list[str]) -> str:
    return ", ".join(name or "''" for name in names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
