"""The values of the intermediate form. Two nodes are the same value only where they are the same object."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(eq=False)
class Node:
    """A value: `where` names the operation that gave it, `width` counts its columns, None where nobody knows yet."""

    where: str
    width: int | None

    def operands(self) -> list[Node]:
        """The values that this one is computed from."""
        found: list[Node] = []
        for field in fields(self):
            value = getattr(self, field.name)
            found += [one for one in (value if isinstance(value, tuple) else [value]) if isinstance(one, Node)]
        return found


@dataclass(eq=False)
class Input(Node):
    """What the model is given."""


@dataclass(eq=False)
class Product(Node):
    """`source @ weight + bias`, weight (in, out); `trained` is False for a matrix that its program does not train."""

    source: Node
    weight: Array
    bias: Array | None
    trained: bool


@dataclass(eq=False)
class Norm(Node):
    """Batch normalisation with an epsilon that is ours."""

    source: Node
    weight: Array
    bias: Array
    mean: Array
    var: Array


@dataclass(eq=False)
class Activation(Node):
    """g(source) by one of `resnetcore.activations()`, or "erf", which a gelu is made of."""

    source: Node
    name: str


@dataclass(eq=False)
class Sum(Node):
    """The terms' sum, plus `constant`, (width,), where there is one."""

    terms: tuple[Node, ...]
    constant: Array | None


@dataclass(eq=False)
class Gate(Node):
    """`transform * transformed + (1 - transform) * carried`."""

    transform: Activation
    transformed: Node
    carried: Node


@dataclass(eq=False)
class Dropout(Node):
    """Each element is dropped with probability p, in training."""

    source: Node
    p: float


@dataclass(eq=False)
class Concat(Node):
    """Columns of several values, side by side."""

    parts: tuple[Node, ...]


@dataclass(eq=False)
class Affine(Node):
    """`scale * source + shift`, two numbers."""

    source: Node
    scale: float
    shift: float


@dataclass(eq=False)
class Multiply(Node):
    """The elementwise product of two values."""

    left: Node
    right: Node


@dataclass(eq=False)
class Above(Node):
    """Where `source` is above a number."""

    source: Node
    threshold: float
