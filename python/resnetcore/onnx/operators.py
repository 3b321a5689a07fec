"""What each ONNX operator is in the intermediate form, for inputs of two dimensions, (batch, width), in inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..conversion import Constant, Graph, Operand

Attributes = Mapping[str, Any]
Inputs = list[Operand | None]
_Rule = Callable[[Graph, str, Inputs, Attributes], Operand]


def _gemm(graph: Graph, where: str, inputs: Inputs, attributes: Attributes) -> Operand:
    x, weight, added = inputs
    assert x is not None and weight is not None
    if attributes["transA"]:
        graph.fail(where, "transposes its input (transA=1), whose rows are the batch")
    if isinstance(weight, Constant):
        weight = _scaled(weight, attributes["alpha"])
        weight = Constant(weight.values.T) if attributes["transB"] else weight
    out = graph.product(where, x, weight)
    if added is None:
        return out
    if isinstance(added, Constant):
        return graph.add(where, out, _scaled(added, attributes["beta"]))
    return graph.add(where, out, graph.multiply(where, added, Constant(np.float64(attributes["beta"]).reshape(()))))


def _scaled(constant: Constant, factor: float) -> Constant:
    if factor == 1 or constant.values.dtype.kind != "f":
        return constant
    with np.errstate(over="ignore", invalid="ignore"):
        return Constant((constant.values * np.float64(factor)).astype(constant.values.dtype))


def _batch_normalization(graph: Graph, where: str, inputs: Inputs, attributes: Attributes) -> Operand:
    if attributes["training_mode"]:
        graph.fail(where, "is in training mode; export the model in inference")
    x, *arrays = inputs
    assert x is not None
    rows = [one.values for one in arrays if isinstance(one, Constant)]
    if len(rows) != 4 or len({row.shape for row in rows}) != 1 or rows[0].ndim != 1 or not rows[0].size:
        graph.fail(where, "must have scale, bias, mean and variance as four constants of one length")
    if any(row.dtype.kind != "f" for row in rows):
        graph.fail(where, "must have scale, bias, mean and variance of floats")
    return graph.norm(where, x, rows, attributes["epsilon"])


def _dropout(graph: Graph, where: str, inputs: Inputs, attributes: Attributes) -> Operand:
    x, _, training = inputs
    assert x is not None
    if training is not None and not (isinstance(training, Constant) and not training.values.any()):
        graph.fail(where, "is in training mode, or may be; export the model in inference")
    return x


def _flatten(graph: Graph, where: str, inputs: Inputs, attributes: Attributes) -> Operand:
    if attributes["axis"] not in (1, -1):
        graph.fail(where, f"flattens along axis {attributes['axis']}, and only axis 1 keeps (batch, width) as it is")
    return _first(graph, where, inputs, attributes)


def _first(_: Graph, __: str, inputs: Inputs, ___: Attributes) -> Operand:
    assert inputs[0] is not None
    return inputs[0]


def _transpose(graph: Graph, where: str, inputs: Inputs, attributes: Attributes) -> Operand:
    (x,) = inputs
    if not isinstance(x, Constant) or x.values.ndim != 2 or attributes["perm"] not in ([], [1, 0]):
        graph.fail(where, "transposes something other than a constant matrix")
    return Constant(x.values.T)


def _concat(graph: Graph, where: str, inputs: Inputs, attributes: Attributes) -> Operand:
    if attributes["axis"] not in (1, -1):
        graph.fail(where, f"concatenates along axis {attributes['axis']}; columns are axis 1")
    return graph.concat(where, [x for x in inputs if x is not None])


def _sum(graph: Graph, where: str, inputs: Inputs, _: Attributes) -> Operand:
    total, *others = (x for x in inputs if x is not None)
    for x in others:
        total = graph.add(where, total, x)
    return total


def _binary(name: str) -> _Rule:
    return lambda graph, where, inputs, _: getattr(graph, name)(where, *inputs)


def _activation(name: str, required: Attributes | None = None) -> _Rule:
    """One whose attributes must have the values that ours has."""

    def rule(graph: Graph, where: str, inputs: Inputs, attributes: Attributes) -> Operand:
        for attribute, ours in (required or {}).items():
            given = attributes[attribute]
            same = given == ours if isinstance(ours, str) else math.isclose(given, ours, rel_tol=1e-6)
            if not same:
                graph.fail(where, f"must have {attribute}={ours}, as {name} has here, got {given}")
        return graph.activation(where, _first(graph, where, inputs, attributes), name)

    return rule


class Operator:
    """`required` inputs, and `optional` ones more, None for any number; attributes with defaults of their types."""

    def __init__(self, rule: _Rule, required: int = 1, optional: int | None = 0, **attributes: Any) -> None:
        self.rule, self.attributes = rule, attributes
        self._required, self._optional = required, optional

    def inputs(self, given: Inputs) -> Inputs | None:
        """All inputs, with None for what is left out; None where there are too few or too many."""
        required = given[: self._required]
        if len(required) < self._required or None in required:
            return None
        if self._optional is None:
            return given
        left = self._required + self._optional - len(given)
        return given + [None] * left if left >= 0 else None


OPERATORS = {
    "Add": Operator(_binary("add"), 2),
    "BatchNormalization": Operator(_batch_normalization, 5, epsilon=1e-5, momentum=0.9, training_mode=0),
    "Concat": Operator(_concat, 1, None, axis=0),
    "Div": Operator(_binary("divide"), 2),
    "Dropout": Operator(_dropout, 1, 2, seed=0),
    "Elu": Operator(_activation("elu", {"alpha": 1.0}), alpha=1.0),
    "Erf": Operator(_activation("erf")),
    "Flatten": Operator(_flatten, axis=1),
    "Gelu": Operator(_activation("gelu", {"approximate": "none"}), approximate="none"),
    "Gemm": Operator(_gemm, 2, 1, alpha=1.0, beta=1.0, transA=0, transB=0),
    "Greater": Operator(_binary("above"), 2),
    "Identity": Operator(_first),
    "LeakyRelu": Operator(_activation("leaky_relu", {"alpha": 0.01}), alpha=0.01),
    "MatMul": Operator(_binary("product"), 2),
    "Mul": Operator(_binary("multiply"), 2),
    "Relu": Operator(_activation("relu")),
    "Sigmoid": Operator(_activation("sigmoid")),
    "Softplus": Operator(_activation("softplus")),
    "Sub": Operator(_binary("subtract"), 2),
    "Sum": Operator(_sum, 1, None),
    "Swish": Operator(_activation("silu", {"alpha": 1.0}), alpha=1.0),
    "Tanh": Operator(_activation("tanh")),
    "Transpose": Operator(_transpose, perm=[]),
    "Where": Operator(_binary("where"), 3),
}
