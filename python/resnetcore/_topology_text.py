"""A network's topology as JSON, and back; every array that it needs is known by name and shape before any exists.

Only what the arrays of the file do not say is in the text: a fixed skip is marked "fixed" and its matrix is an array.
JSON has no numbers for infinity and NaN: they are the texts "Infinity", "-Infinity" and "NaN".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np

from ._errors import CheckpointError
from .checks import DTYPES, as_integer, check_matmul_precision
from .layers import Layer
from .network import Network

__all__ = ["Topology", "decode", "encode", "expected_shapes", "rejecting"]

_VERSION = 1
# Far above any real topology or history; a general JSON parser can make text into thirty times as much memory.
_MAX_TEXT = 1 << 25
_KEYS = {field.name for field in fields(Layer)}
_NOT_FINITE = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}

Result = TypeVar("Result")


@dataclass(frozen=True)
class Topology:
    """What `Network` is built from, without the matrices of fixed skips; `fixed` has their (layer, layers back)."""

    inputs: int
    dtype: str
    matmul_precision: str | None
    seed: int
    layers: tuple[Layer, ...]
    fixed: tuple[tuple[int, int], ...]

    @classmethod
    def from_json(cls, text: str) -> Topology:
        """The topology of `to_json`'s text. Raises CheckpointError."""
        return rejecting("the topology", lambda: _parse(decode(text)))

    @staticmethod
    def to_json(net: Network) -> str:
        """The text of a network's topology."""
        layers = []
        for layer in net.layers:
            skips = {str(back): kind if isinstance(kind, str) else "fixed" for back, kind in layer.skips.items()}
            layers.append({**layer.to_dict(), "skips": skips})
        value = {"inputs": net.inputs, "dtype": net.precision, "seed": net.seed, "layers": layers}
        if net.matmul_precision != "highest":
            value["matmul_precision"] = net.matmul_precision
        return encode(value)

    def build(self, arrays: Mapping[str, np.ndarray], device: str) -> Network:
        """The network with these parameters and buffers. Raises CheckpointError."""
        return rejecting("the network", lambda: self._build(arrays, device))

    def _build(self, arrays: Mapping[str, np.ndarray], device: str) -> Network:
        layers = list(self.layers)
        for number, back in self.fixed:
            matrix = arrays[f"{number}.skip.{back}.weight"]
            layer = layers[number - 1]
            layers[number - 1] = replace(layer, skips={**layer.skips, back: matrix})
        net = Network(self.inputs, layers, self.seed, self.dtype, device, self.matmul_precision)
        net.set_parameters(arrays)
        return net


def encode(value: Mapping[str, Any]) -> str:
    """JSON of `value` and the version of this format; ValueError where it is too long to be read again."""
    text = json.dumps(_to_json({"version": _VERSION, **value}), allow_nan=False, separators=(",", ":"))
    if len(text) > _MAX_TEXT:
        raise ValueError(f"save: topology, settings and history take {len(text)} characters, and {_MAX_TEXT} fit")
    return text


def decode(text: str) -> dict[str, Any]:
    """What `encode` was given. Raises ValueError or RecursionError."""
    if len(text) > _MAX_TEXT:
        raise ValueError(f"must have at most {_MAX_TEXT} characters, got {len(text)}")
    value: dict[str, Any] = _from_json(json.loads(text))  # which also takes the bare NaN of older files
    version = value.pop("version")
    if type(version) is not int or version != _VERSION:
        raise ValueError(f"must be of version {_VERSION}, got {version!r}; a newer resnetcore may read it")
    return value


def rejecting(what: str, make: Callable[[], Result]) -> Result:
    """What `make` makes of a file's text; CheckpointError where that text is not what was once written."""
    try:
        return make()
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{what} cannot be used: {reason[:500]}") from error


def expected_shapes(inputs: int, layers: Sequence[Layer]) -> dict[str, tuple[int, ...]]:
    """{name: shape} of every parameter and buffer; ValueError for a skip that reaches before the input."""
    widths = [inputs, *(layer.width for layer in layers)]
    shapes: dict[str, tuple[int, ...]] = {}
    for number, layer in enumerate(layers, 1):
        inner, width = widths[number - 1], layer.width
        shapes[f"{number}.weight"] = (inner, width)
        if layer.bias and (layer.pre or layer.norm is None):
            shapes[f"{number}.bias"] = (width,)
        for back, kind in layer.skips.items():
            if back > number:
                raise ValueError(f"layer {number}: a skip of {back} layers reaches before the input")
            if not (isinstance(kind, str) and kind == "identity"):
                shapes[f"{number}.skip.{back}.weight"] = (widths[number - back], width)
        if layer.norm is not None:
            for name in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{number}.norm.{name}"] = (inner if layer.pre else width,)
        if layer.gate:
            shapes[f"{number}.gate.weight"], shapes[f"{number}.gate.bias"] = (inner, width), (width,)
    return shapes


def _parse(value: dict[str, Any]) -> Topology:
    if value.keys() - {"matmul_precision"} != {"inputs", "dtype", "seed", "layers"}:
        raise ValueError(f"must have inputs, dtype, seed and layers, got {sorted(value)}")
    if value["dtype"] not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {value['dtype']!r}")
    precision = value.get("matmul_precision")
    if precision is not None:
        check_matmul_precision("matmul_precision", precision)
    layers, fixed = [], []
    for number, description in enumerate(value["layers"], 1):
        if description.keys() != _KEYS:
            raise ValueError(f"layer {number} must have {sorted(_KEYS)}, got {sorted(description)}")
        skips = {_back(key): kind for key, kind in description["skips"].items()}
        fixed += [(number, back) for back, kind in skips.items() if kind == "fixed"]
        named = {back: "learned" if kind == "fixed" else kind for back, kind in skips.items()}
        if not all(isinstance(kind, str) for kind in named.values()):
            raise ValueError(f"layer {number}: a skip must be 'identity', 'learned' or 'fixed'")
        layers.append(Layer(**{**description, "skips": named}))
    inputs, seed = as_integer("inputs", value["inputs"]), as_integer("seed", value["seed"])
    return Topology(inputs, value["dtype"], precision, seed, tuple(layers), tuple(fixed))


def _back(key: str) -> int:
    # int() alone takes " 2", "+2", "2_0" and other digits: several spellings of one skip.
    back = int(key)
    if str(back) != key:
        raise ValueError(f"a skip must be counted as in '2', got {key!r}")
    return back


def _to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _to_json(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_json(one) for one in value]
    if isinstance(value, np.generic):
        return _to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _from_json(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_from_json(one) for one in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
