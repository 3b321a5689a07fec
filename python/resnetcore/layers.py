"""A layer as data. A `Layer` that exists is valid by itself; how layers fit together is checked by `Network`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from ._core import activations as _known_activations
from ._errors import DTypeError, ShapeError
from .arrays import as_array
from .checks import as_integer, as_number

INITIALIZATIONS = ("he", "glorot", "lecun", "zero")


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, `a = g(norm(a_prev @ W + b) + Σ skips)`, or another order of the same parts.

    Args:
        width: number of units.
        activation: name of g; None is "identity". `resnetcore.activations()` lists the names.
        skips: `{k: kind}` for a skip from k layers back, k ≥ 2 (1 is the normal path; the input is layer 0). Kinds:
            "identity" (unweighted, equal widths), "learned" (a weight matrix trained with the layer's own), or a
            matrix (width of the earlier layer, width of this one): copied, never updated.
        norm: "batch" for batch normalisation (Ioffe & Szegedy 2015; eps 1e-5, momentum 0.1), or None.
        bias: whether there is a bias; a layer normalised after its product has none in any case.
        pre: pre-activation order (He et al. 2016b): `a = g(norm(a_prev)) @ W + b + Σ skips`.
        gate: transform gate (Srivastava et al. 2015): `a = T * h + (1 - T) * a_prev`, where
            `T = sigmoid(a_prev @ W_T + b_T)`.
        dropout: probability of dropping each element of the layer's output, in training.
        branch_dropout: the same for the normal path, before the skips are added.
        init: "he", "glorot", "lecun" or "zero" for the initial weights; None chooses by activation.
        init_scale: factor on the initial weight of the normal path.
        norm_init: initial weight (γ) of the norm; 0 starts a residual block as the identity.
        gate_bias: initial bias of the transform gate; negative carries at first.

    Example:
        >>> Layer(64, norm="batch", skips={2: "identity"})
        Layer(64, skips={2: 'identity'}, norm='batch')

    Raises:
        ShapeError: a width below 1, or a skip matrix that has not two dimensions.
        DTypeError: an argument of the wrong type.
        ValueError: an unknown name, a skip below 2, a skip matrix that is not finite, or a rate outside [0, 1).
    """

    width: int
    activation: str | None = "relu"
    skips: Mapping[int, Any] = field(default_factory=lambda: _Skips())
    norm: str | None = None
    bias: bool = True
    pre: bool = False
    gate: bool = False
    dropout: float = 0.0
    branch_dropout: float = 0.0
    init: str | None = None
    init_scale: float = 1.0
    norm_init: float = 1.0
    gate_bias: float = -2.0

    def __post_init__(self) -> None:
        checked = {
            "width": _width(self.width),
            "activation": _choice("activation", self.activation, _known_activations()) or "identity",
            "skips": _skips(self.skips),
            "norm": _choice("norm", self.norm, ("batch",)),
            "init": _choice("init", self.init, INITIALIZATIONS),
        }
        checked.update({name: _flag(name, getattr(self, name)) for name in ("bias", "pre", "gate")})
        checked.update({name: _rate(name, getattr(self, name)) for name in ("dropout", "branch_dropout")})
        numbers = ("init_scale", "norm_init", "gate_bias")
        checked.update({name: as_number(f"Layer: {name}", getattr(self, name)) for name in numbers})
        if self.gate and self.pre:
            raise ValueError("Layer: gate=True and pre=True cannot be combined; choose one")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """Every field by name; `Layer(**layer.to_dict())` is the same layer."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["skips"] = dict(self.skips)
        return values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layer):
            return NotImplemented
        mine, theirs = self.to_dict(), other.to_dict()
        skips, other_skips = mine.pop("skips"), theirs.pop("skips")
        return (
            mine == theirs
            and skips.keys() == other_skips.keys()
            and all(_same_skip(skips[k], other_skips[k]) for k in skips)
        )

    def __hash__(self) -> int:
        return hash((self.width, self.activation, self.norm, tuple(self.skips)))

    def __repr__(self) -> str:
        shown = [str(self.width)]
        for f in fields(self)[1:]:
            value = getattr(self, f.name)
            if f.name == "skips":
                value = {
                    k: v if isinstance(v, str) else f"<{v.shape[0]} x {v.shape[1]} matrix>" for k, v in value.items()
                }
            if value != ({} if f.name == "skips" else f.default):
                shown.append(f"{f.name}={value!r}")
        return f"Layer({', '.join(shown)})"


def _same_skip(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return isinstance(a, str) and isinstance(b, str) and a == b
    return bool(np.array_equal(a, b))


def _width(value: Any) -> int:
    width = as_integer("Layer: width", value)
    if width < 1:
        raise ShapeError(f"Layer: width must be at least 1, got {width}")
    return width


def _choice(name: str, value: Any, known: tuple[str, ...] | list[str]) -> str | None:
    if value is None or (isinstance(value, str) and value in known):
        return value
    if not isinstance(value, str):
        raise DTypeError(f"Layer: {name} must be a name or None, got {value!r}")
    raise ValueError(f"Layer: unknown {name} {value!r}; known are {', '.join(known)} and None")


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise DTypeError(f"Layer: {name} must be True or False, got {value!r}")
    return bool(value)


def _rate(name: str, value: Any) -> float:
    rate = as_number(f"Layer: {name}", value)
    if not 0 <= rate < 1:
        raise ValueError(f"Layer: {name} must be in [0, 1), got {rate}")
    return rate


class _Skips(dict[int, Any]):
    """A dict that does not change: a layer is shared by all networks that were built of it."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the skips of a Layer do not change; make another with dataclasses.replace(layer, skips={...})")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return _skips, (dict(self),)  # what copies and pickles make of a read-only matrix could be written to


def _skips(skips: Any) -> _Skips:
    if skips is None:
        return _Skips()
    if not isinstance(skips, Mapping):
        raise DTypeError(f"Layer: skips must be a dict such as {{2: 'identity'}}, got {skips!r}")
    checked = {}
    for key, kind in skips.items():
        back = as_integer("Layer: the key of a skip", key)
        if back < 2:
            raise ValueError(f"Layer: a skip counts layers back from 2 (1 is the normal path), got {back}")
        checked[back] = _skip_kind(back, kind)
    return _Skips(sorted(checked.items()))


def _skip_kind(back: int, kind: Any) -> Any:
    if isinstance(kind, str):
        if kind not in ("identity", "learned"):
            raise ValueError(f"Layer: skips[{back}] must be 'identity', 'learned' or a matrix, got {kind!r}")
        return kind
    try:
        matrix = as_array("Layer", f"skips[{back}]", kind)
    except DTypeError as error:
        raise DTypeError(f"{error}; a skip is 'identity', 'learned' or a matrix of floats") from None
    if matrix.dtype.kind != "f":
        raise DTypeError(f"Layer: skips[{back}] must be 'identity', 'learned' or a matrix of floats, got {kind!r}")
    if matrix.ndim != 2:
        raise ShapeError(f"Layer: skips[{back}], a matrix, must have 2 dimensions, got shape {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"Layer: skips[{back}], a matrix, must be finite")
    matrix = np.array(matrix, order="C")
    matrix.flags.writeable = False
    return matrix
