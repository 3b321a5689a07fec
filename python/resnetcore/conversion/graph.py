"""How front ends make values: every spelling of one thing comes out as one node.

A method takes `where`, the operation's name in messages, and operands: values or `Constant`s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from .. import _core
from .._errors import ConversionError
from .nodes import Above, Activation, Affine, Array, Concat, Dropout, Gate, Input, Multiply, Node, Norm, Product, Sum

_CLOSE = 1e-6  # of constants such as √½, which files round to float32


@dataclass(eq=False)
class Constant:
    """An array of the model; `trained` is False for one that its program does not train."""

    values: Array
    trained: bool = True


Operand = Node | Constant


class Graph:
    """Makes the values of one model; `operation` begins every message."""

    def __init__(self, operation: str) -> None:
        self._operation = operation
        self.nodes: list[Node] = []  # each after its operands

    def fail(self, where: str, problem: str) -> NoReturn:
        """Raises ConversionError: `problem` says of the operation what is wrong with it."""
        raise ConversionError(f"{self._operation}: {where} {problem}")

    def input(self, width: int | None) -> Node:
        """The model's input; its width is found from what reads it where it is None."""
        return self._made(Input("the input", width))

    def product(self, where: str, x: Operand, weight: Operand, bias: Operand | None = None) -> Node:
        """`x @ weight + bias`."""
        source = self._value(where, x)
        if not isinstance(weight, Constant):
            self.fail(where, "multiplies two values by each other as matrices, and one must be a constant")
        matrix = self._floats(where, weight)
        if matrix.ndim != 2 or 0 in matrix.shape:
            self.fail(where, f"multiplies by a constant that must be a matrix (in, out), got shape {matrix.shape}")
        self._set_width(where, source, matrix.shape[0])
        parts = source.parts if isinstance(source, Concat) else (source,)
        ends = np.cumsum([part.width for part in parts])[:-1]
        blocks = np.split(matrix, ends)
        products = [
            self._made(Product(where, matrix.shape[1], part, block, None, weight.trained))
            for part, block in zip(parts, blocks, strict=True)
        ]
        out = products[0] if len(products) == 1 else self._made(Sum(where, matrix.shape[1], tuple(products), None))
        return out if bias is None else self.add(where, out, bias)

    def norm(self, where: str, x: Operand, arrays: Sequence[Array], eps: float) -> Node:
        """Batch normalisation by γ, β, μ and σ². An epsilon that is not ours is made up for in the variance."""
        source = self._value(where, x)
        weight, bias, mean, var = arrays
        self._set_width(where, source, len(weight))
        ours = _core.norm_eps()
        if not math.isclose(eps, ours, rel_tol=_CLOSE):
            var = var + np.asarray(eps - ours, var.dtype)
        if not (var >= 0).all():
            self.fail(
                where, f"normalises by a variance that must be at least 0 for an epsilon of {ours}, got {var.min()}"
            )
        return self._made(Norm(where, source.width, source, weight, bias, mean, var))

    def activation(self, where: str, x: Operand, name: str) -> Node:
        """g(x)."""
        source = self._value(where, x)
        return source if name == "identity" else self._made(Activation(where, source.width, source, name))

    def dropout(self, where: str, x: Operand, p: float) -> Node:
        """Dropout with probability p."""
        source = self._value(where, x)
        if not 0 <= p < 1:
            self.fail(where, f"drops with a probability that must be in [0, 1), got {p}")
        return self._made(Dropout(where, source.width, source, p)) if p else source

    def concat(self, where: str, operands: Sequence[Operand]) -> Node:
        """Columns side by side."""
        parts: list[Node] = []
        for operand in operands:
            value = self._value(where, operand)
            parts += value.parts if isinstance(value, Concat) else [value]
        if len(parts) == 1:
            return parts[0]
        widths = [part.width for part in parts if part.width is not None]
        if len(widths) < len(parts):
            self.fail(where, "concatenates the input before a product has told its width")
        return self._made(Concat(where, sum(widths), tuple(parts)))

    def add(self, where: str, x: Operand, y: Operand) -> Node:
        """x + y."""
        if isinstance(x, Constant):
            x, y = y, x
        value = self._value(where, x)
        if isinstance(y, Constant):
            return self._add_constant(where, value, self._floats(where, y))
        self._equal_widths(where, value, y)
        for one, other in ((value, y), (y, value)):
            gate = _as_gate(where, one, other)
            if gate is not None:
                return self._made(gate)
        return self._made(Sum(where, value.width, (value, y), None))

    def subtract(self, where: str, x: Operand, y: Operand) -> Node:
        """x − y."""
        if isinstance(y, Constant):
            return self.add(where, x, Constant(-self._floats(where, y), y.trained))
        if not isinstance(x, Constant):
            self.fail(where, "subtracts a value from another; write it as a sum, with the sign in a weight")
        return self._affine(where, y, -1.0, self._number(where, x))

    def multiply(self, where: str, x: Operand, y: Operand) -> Node:
        """The elementwise product; numbers are taken out of it."""
        if isinstance(x, Constant):
            x, y = y, x
        value = self._value(where, x)
        if isinstance(y, Constant):
            return self._affine(where, value, self._number(where, y), 0.0)
        self._equal_widths(where, value, y)
        (left, a), (right, b) = _without_factor(value), _without_factor(y)
        for one, other in ((left, right), (right, left)):
            if isinstance(one, Activation) and one.name == "sigmoid" and one.source is other:
                return self._affine(where, self._made(Activation(where, other.width, other, "silu")), a * b, 0.0)
        return self._affine(where, self._made(Multiply(where, left.width, left, right)), a * b, 0.0)

    def divide(self, where: str, x: Operand, y: Operand) -> Node:
        """x / y by a number."""
        if not isinstance(y, Constant):
            self.fail(where, "divides by a value, and must divide by a constant")
        divisor = self._number(where, y)
        if divisor == 0:
            self.fail(where, "divides by zero")
        return self._affine(where, self._value(where, x), 1 / divisor, 0.0)

    def above(self, where: str, x: Operand, y: Operand) -> Node:
        """x > y for a number y."""
        if not isinstance(y, Constant):
            self.fail(where, "compares two values, and must compare with a constant")
        source = self._value(where, x)
        return self._made(Above(where, source.width, source, self._number(where, y)))

    def where(self, where: str, condition: Operand, x: Operand, y: Operand) -> Node:
        """x or y: known where it only cuts a softplus off above 20, as PyTorch does and so do we."""
        if (
            isinstance(condition, Above)
            and condition.threshold == 20
            and condition.source is x
            and isinstance(y, Activation)
            and (y.name, y.source) == ("softplus", x)
        ):
            return y
        self.fail(where, "chooses between values in a way that is no activation that is known")

    def _add_constant(self, where: str, value: Node, constant: Array) -> Node:
        if constant.size == 1 and not isinstance(value, (Product, Sum, Norm)):
            return self._affine(where, value, 1.0, float(constant.reshape(())))
        if constant.size > 1:
            self._set_width(where, value, constant.shape[-1])
        width = value.width or 1
        if constant.size not in (1, width):
            self.fail(where, f"adds a constant that must have {width} numbers, got shape {constant.shape}")
        row = np.broadcast_to(constant.reshape(-1), (width,))
        if isinstance(value, Product):
            bias = row if value.bias is None else value.bias + row
            return self._made(Product(where, width, value.source, value.weight, bias, value.trained))
        if isinstance(value, Sum):
            return self._made(Sum(where, width, value.terms, row if value.constant is None else value.constant + row))
        return self._made(Sum(where, width, (value,), row))

    def _affine(self, where: str, value: Node, scale: float, shift: float) -> Node:
        if isinstance(value, Affine):
            scale, shift = scale * value.scale, scale * value.shift + shift
            value = value.source
        argument = _gelu_argument(value, scale) if shift == 0 else None
        if argument is not None:
            return self._made(Activation(where, argument.width, argument, "gelu"))
        if (scale, shift) == (1, 0):
            return value
        return self._made(Affine(where, value.width, value, scale, shift))

    def _value(self, where: str, operand: Operand) -> Node:
        if isinstance(operand, Constant):
            self.fail(where, "is applied to a constant, where a value that depends on the input is expected")
        return operand

    def _floats(self, where: str, constant: Constant) -> Array:
        if constant.values.dtype.kind != "f":
            self.fail(where, f"has a constant that must be of floats, got {constant.values.dtype}")
        if constant.values.ndim > 2:
            self.fail(where, f"has a constant that must have at most 2 dimensions, got shape {constant.values.shape}")
        return constant.values

    def _number(self, where: str, constant: Constant) -> float:
        values = self._floats(where, constant)
        if values.size != 1:
            self.fail(where, f"must have one number for all columns as its constant, got shape {values.shape}")
        return float(values.reshape(()))

    def _equal_widths(self, where: str, x: Node, y: Node) -> None:
        if y.width is not None:
            self._set_width(where, x, y.width)
        elif x.width is not None:
            self._set_width(where, y, x.width)

    def _set_width(self, where: str, value: Node, width: int) -> None:
        """Checks a width; where nobody has said how wide the input is, it is what this operation needs."""
        if value.width is None:
            for node in self.nodes:
                node.width = width if node.width is None else node.width
        if value.width != width:
            self.fail(where, f"needs {width} columns, and {value.where} gives {value.width}")

    def _made(self, node: Node) -> Node:
        self.nodes.append(node)
        return node


def _without_factor(value: Node) -> tuple[Node, float]:
    if isinstance(value, Affine) and value.shift == 0:
        return value.source, value.scale
    return value, 1.0


def _as_gate(where: str, transformed: Node, carried: Node) -> Gate | None:
    """`T * h` and `(1 - T) * x` as one gate; None where they are no such thing."""
    if not (isinstance(transformed, Multiply) and isinstance(carried, Multiply)):
        return None
    for rest, x in ((carried.left, carried.right), (carried.right, carried.left)):
        if isinstance(rest, Affine) and (rest.scale, rest.shift) == (-1, 1):
            for t, h in ((transformed.left, transformed.right), (transformed.right, transformed.left)):
                if t is rest.source and isinstance(t, Activation) and t.name == "sigmoid":
                    return Gate(where, h.width, t, h, x)
    return None


def _gelu_argument(value: Node, factor: float) -> Node | None:
    """z where `factor * value` is z·(1 + erf(z / √2)) / 2, else None."""
    if not isinstance(value, Multiply):
        return None
    for z, rest in ((value.left, value.right), (value.right, value.left)):
        if isinstance(rest, Affine) and isinstance(rest.source, Activation) and rest.source.name == "erf":
            inner, root = _without_factor(rest.source.source)
            numbers = (factor * rest.scale, factor * rest.shift, root)
            if inner is z and np.allclose(numbers, (0.5, 0.5, math.sqrt(0.5)), rtol=_CLOSE, atol=0):
                return z
    return None
