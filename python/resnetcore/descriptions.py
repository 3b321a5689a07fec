"""Settings and states as dicts, from a file or a caller: their names are checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ._errors import DTypeError


def with_names(what: str, value: Any, names: Collection[str] = ()) -> dict[str, Any]:
    """`value` as a dict; DTypeError for anything else, ValueError where it lacks one of the names."""
    if not isinstance(value, Mapping):
        raise DTypeError(f"{what} must be a dict, got {value!r}")
    if missing := [name for name in names if name not in value]:
        raise ValueError(f"{what} lacks {', '.join(missing)}")
    return dict(value)


def with_just_names(what: str, value: Any, names: Collection[str]) -> dict[str, Any]:
    """The same, and ValueError where it has others."""
    found = with_names(what, value, names)
    if unknown := [str(name) for name in found if name not in names]:
        raise ValueError(f"{what} has unknown names {', '.join(unknown)}; known are {', '.join(names)}")
    return found
