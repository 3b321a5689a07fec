"""A network as an ONNX graph. Every layer is written by the formula of docs/math.md in inference: Gemm adds to Gemm.

An initialiser has the name of the parameter it holds; where a norm is folded, of the parameter it is folded into.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import _core
from ..layers import Layer
from ..network import Network

_OPERATORS: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {"alpha": 1.0}),
    "tanh": ("Tanh", {}),
    "sigmoid": ("Sigmoid", {}),
    "softplus": ("Softplus", {}),
}


class Graph:
    """The nodes and initialisers so far; methods add to them and return the name of what they computed."""

    def __init__(self, onnx: Any, net: Network, arrays: dict[str, np.ndarray], fold_norm: bool, opset: int) -> None:
        self._onnx, self._net, self._arrays = onnx, net, arrays
        self._fold_norm, self._opset = fold_norm, opset
        self._nodes: list[Any] = []
        self._initialisers: dict[str, Any] = {}

    def model(self) -> Any:
        """The whole model, checked by nobody yet."""
        net, helper = self._net, self._onnx.helper
        values = ["x"]
        for number, layer in enumerate(net.layers, 1):
            values.append(self._layer(number, layer, values))
        self._nodes.append(helper.make_node("Identity", [values[-1]], ["y"], name="y"))
        kind = helper.np_dtype_to_tensor_dtype(net.dtype)
        graph = helper.make_graph(
            self._nodes,
            "resnetcore",
            [helper.make_tensor_value_info("x", kind, ["batch", net.inputs])],
            [helper.make_tensor_value_info("y", kind, ["batch", net.outputs])],
            list(self._initialisers.values()),
        )
        opsets = [helper.make_opsetid("", self._opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
        model.producer_name, model.producer_version = "resnetcore", _core.build_info()["version"]
        helper.set_model_props(model, {"resnetcore.precision": net.precision})
        return model

    def _layer(self, number: int, layer: Layer, values: list[str]) -> str:
        before, g = values[-1], layer.activation or "identity"
        source, weight, bias = before, f"{number}.weight", f"{number}.bias"
        if layer.pre:
            source = self._activation(number, g, self._norm(number, before) if layer.norm else before)
        normed = layer.norm is not None and not layer.pre
        if normed and self._fold_norm:
            z = self._product(number, "branch", source, *self._folded(number))
        else:
            has_bias = bias in self._arrays
            z = self._product(number, "branch", source, self._array(weight), self._array(bias) if has_bias else None)
            z = self._norm(number, z) if normed else z
        for back, kind in layer.skips.items():
            if isinstance(kind, str) and kind == "identity":
                z = self._node(number, f"skip.{back}", "Add", [z, values[-back]])
            else:
                z = self._product(number, f"skip.{back}", values[-back], self._array(f"{number}.skip.{back}.weight"), z)
        a = z if layer.pre else self._activation(number, g, z)
        return self._gate(number, a, before) if layer.gate else a

    def _gate(self, number: int, h: str, before: str) -> str:
        z = self._product(
            number, "gate", before, self._array(f"{number}.gate.weight"), self._array(f"{number}.gate.bias")
        )
        t = self._node(number, "gate.transform", "Sigmoid", [z])
        carry = self._node(number, "gate.carry", "Sub", [self._constant("one", 1.0), t])
        terms = [
            self._node(number, "gate.transformed", "Mul", [t, h]),
            self._node(number, "gate.carried", "Mul", [carry, before]),
        ]
        return self._node(number, "gate.sum", "Add", terms)

    def _activation(self, number: int, g: str, z: str) -> str:
        if g == "identity":
            return z
        if g == "silu":
            return self._node(number, "silu", "Mul", [z, self._node(number, "silu.sigmoid", "Sigmoid", [z])])
        if g == "gelu":
            return self._gelu(number, z)
        operator, attributes = _OPERATORS[g]
        return self._node(number, g, operator, [z], **attributes)

    def _gelu(self, number: int, z: str) -> str:
        if self._opset >= 20:
            return self._node(number, "gelu", "Gelu", [z], approximate="none")
        scaled = self._node(number, "gelu.scaled", "Div", [z, self._constant("sqrt_two", math.sqrt(2))])
        erf = self._node(number, "gelu.erf", "Erf", [scaled])
        doubled = self._node(number, "gelu.doubled_phi", "Add", [erf, self._constant("one", 1.0)])
        product = self._node(number, "gelu.doubled", "Mul", [z, doubled])
        return self._node(number, "gelu", "Mul", [product, self._constant("half", 0.5)])

    def _norm(self, number: int, z: str) -> str:
        names = ("weight", "bias", "running_mean", "running_var")
        inputs = [z, *(self._array(f"{number}.norm.{name}") for name in names)]
        return self._node(number, "norm", "BatchNormalization", inputs, epsilon=_core.norm_eps())

    def _folded(self, number: int) -> tuple[str, str]:
        """Weight and bias of a layer with its norm folded in, by the formula of docs/math.md."""

        def get(name: str) -> np.ndarray:
            return self._arrays[f"{number}.{name}"].astype(np.float64)

        with np.errstate(invalid="ignore"):  # a network that has diverged is written as it is
            scale = get("norm.weight") / np.sqrt(get("norm.running_var") + _core.norm_eps())
            weight, bias = get("weight") * scale, get("norm.bias") - get("norm.running_mean") * scale
        return self._initialiser(f"{number}.weight", weight), self._initialiser(f"{number}.bias", bias)

    def _product(self, number: int, part: str, a: str, weight: str, added: str | None) -> str:
        return self._node(number, part, "Gemm", [a, weight] if added is None else [a, weight, added])

    def _node(self, number: int, part: str, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{number}.{part}.out"
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, [name], name=f"{number}.{part}", **attributes))
        return name

    def _array(self, name: str) -> str:
        return self._initialiser(name, self._arrays[name])

    def _constant(self, name: str, value: float) -> str:
        return self._initialiser(name, np.asarray(value))

    def _initialiser(self, name: str, values: np.ndarray) -> str:
        if name not in self._initialisers:
            with np.errstate(over="ignore", invalid="ignore"):  # a folded weight may not fit into float32
                array = np.ascontiguousarray(values, self._net.dtype).reshape(values.shape)
            self._initialisers[name] = self._onnx.numpy_helper.from_array(array, name)
        return name
