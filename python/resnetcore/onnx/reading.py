"""An ONNX graph in the intermediate form: node by node, in the file's order, each by the rule of `operators.py`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .._atomic import open_regular
from .._errors import CheckpointError
from ..conversion import Constant, Graph, Operand, assemble, match
from ..network import Network
from .operators import OPERATORS, Operator
from .tensors import Tensors

OLDEST_OPSET = 13
_DOMAINS = ("", "ai.onnx")
_DTYPES = {1: "float32", 11: "float64"}  # by ONNX's element type
# By AttributeProto's type: the field that holds the value.
_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}
# What a Constant node may have, and of which type.
_CONSTANTS = [("value", 4), ("value_float", 1), ("value_floats", 6), ("value_int", 2), ("value_ints", 7)]


def parse(onnx: Any, path: str | os.PathLike[str]) -> Any:
    """The model of a file, external data not looked at."""
    from google.protobuf.message import DecodeError  # onnx brings it

    with os.fdopen(open_regular(path), "rb") as file:
        content = file.read()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise CheckpointError(f"onnx.load: '{os.fsdecode(path)}' is damaged, or no ONNX file: {error}") from None
    return model


class ModelReader:
    """Reads one model; `folder` is where its external data is."""

    def __init__(self, onnx: Any, model: Any, folder: str | None) -> None:
        self._model, self._tensors = model, Tensors(folder)
        self._check_opset(onnx.defs.onnx_opset_version())
        self._graph = Graph("onnx.load")
        self._values: dict[str, Operand] = {}
        self._initialisers = {one.name: one for one in model.graph.initializer}
        if len(self._initialisers) != len(model.graph.initializer) or len(model.graph.sparse_initializer):
            raise _error("must have initialisers of different names, and no sparse ones")

    def network(self) -> Network:
        """The network that computes what the model computes."""
        inputs = [one for one in self._model.graph.input if one.name not in self._initialisers]
        outputs = self._model.graph.output
        if len(inputs) != 1 or len(outputs) != 1:
            self._graph.fail("the model", f"must have one input and one output, got {len(inputs)} and {len(outputs)}")
        self._dtype, width = self._described(inputs[0])
        self._values[inputs[0].name] = self._graph.input(width)
        for number, node in enumerate(self._model.graph.node):
            self._read(number, node)
        output = self._operand("the model", outputs[0].name)
        if isinstance(output, Constant):
            self._graph.fail("the output", "is a constant")
        return assemble(self._graph, match(self._graph, output), self._dtype)

    def _check_opset(self, newest: int) -> None:
        versions = [one.version for one in self._model.opset_import if one.domain in _DOMAINS]
        if not self._model.HasField("graph") or len(versions) != 1:
            raise _error("must have a graph and one version of ONNX's operators; the file is damaged, or no ONNX file")
        if not OLDEST_OPSET <= versions[0] <= newest:
            raise _error(
                f"must have an opset from {OLDEST_OPSET} to {newest}, got {versions[0]}; onnx.version_converter converts "
                "older ones, and a newer onnx reads newer ones"
            )

    def _described(self, value: Any) -> tuple[str, int | None]:
        tensor = value.type.tensor_type
        if tensor.elem_type not in _DTYPES:
            self._graph.fail("the input", f"must be of FLOAT or DOUBLE, got element type {tensor.elem_type}")
        if not tensor.HasField("shape"):
            return _DTYPES[tensor.elem_type], None
        if len(tensor.shape.dim) != 2:
            self._graph.fail("the input", f"must have 2 dimensions, (batch, width), got {len(tensor.shape.dim)}")
        width = tensor.shape.dim[1].dim_value  # 0 where it is a name, or nothing
        return _DTYPES[tensor.elem_type], width if width > 0 else None

    def _read(self, number: int, node: Any) -> None:
        where = (
            f"node {node.name[:64]!r} ({node.op_type[:64]})" if node.name else f"node {number} ({node.op_type[:64]})"
        )
        if node.op_type == "Constant" and node.domain in _DOMAINS:
            value: Operand = self._constant(where, node)
        else:
            operator = OPERATORS.get(node.op_type) if node.domain in _DOMAINS else None
            if operator is None:
                known = ", ".join(sorted([*OPERATORS, "Constant"]))
                self._graph.fail(where, f"is not known; known are {known}")
            attributes = {one.name: _value(one) for one in node.attribute}
            inputs = [self._operand(where, name) if name else None for name in node.input]
            value = self._apply(where, operator, inputs, attributes)
        if not node.output or node.output[0] in self._values:
            raise _error(f"{where} must give one value that no other node gives")
        self._values[node.output[0]] = value

    def _apply(
        self, where: str, operator: Operator, inputs: list[Operand | None], attributes: dict[str, Any]
    ) -> Operand:
        for name, given in attributes.items():
            if name not in operator.attributes or type(operator.attributes[name]) is not type(given):
                known = ", ".join(operator.attributes) or "none"
                self._graph.fail(
                    where, f"has the attribute {name[:64]!r} = {given!r:.64}; known are {known}, of their types"
                )
        complete = operator.inputs(inputs)
        if complete is None:
            raise _error(f"{where} has {len(inputs)} inputs, which is no number of them that it can have")
        return operator.rule(self._graph, where, complete, {**operator.attributes, **attributes})

    def _operand(self, where: str, name: str) -> Operand:
        if name not in self._values:
            if name not in self._initialisers:
                raise _error(f"{where} reads {name[:64]!r}, which nothing before it gives")
            self._values[name] = self._checked(name, self._tensors.array(self._initialisers[name], name))
        return self._values[name]

    def _constant(self, where: str, node: Any) -> Constant:
        given = [(one.name, one.type) for one in node.attribute]
        if len(given) != 1 or given[0] not in _CONSTANTS:
            names = ", ".join(name for name, _ in _CONSTANTS)
            self._graph.fail(where, f"must have one attribute of {names}, of its type")
        value = _value(node.attribute[0])
        if given[0][0] == "value":
            return self._checked(where, self._tensors.array(value, where))
        return self._checked(where, np.asarray(value, "float32" if "float" in given[0][0] else "int64"))

    def _checked(self, name: str, array: np.ndarray) -> Constant:
        if array.dtype.kind == "f" and array.dtype != self._dtype:
            raise _error(f"{name[:80]} must be {self._dtype} as the input, got {array.dtype}")
        return Constant(array)


def _value(attribute: Any) -> Any:
    """None for a type that no operator here has."""
    value: Any = getattr(attribute, _FIELDS.get(attribute.type, ""), None)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value) if attribute.type in (6, 7) else value


def _error(problem: str) -> CheckpointError:
    return CheckpointError(f"onnx.load: the model is not sound: {problem}")
