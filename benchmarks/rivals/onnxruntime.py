from __future__ import annotations

from itertools import count

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from ..networks import forward
from ..shapes import CLASSES
from . import Unable

OPSET, IR_VERSION = 21, 10


class Graph:
    """The parts of a layer as ONNX nodes; values are their names. ONNX Runtime fuses what it can when it loads them."""

    def __init__(self):
        self.nodes = []
        self._number = count()

    def node(self, kind, *inputs):
        name = f"v{next(self._number)}"
        self.nodes.append(helper.make_node(kind, inputs, [name]))
        return name

    def product(self, a, weight, bias):
        return self.node("Gemm", a, weight, bias) if bias is not None else self.node("MatMul", a, weight)

    def add(self, z, a):
        return self.node("Add", z, a)

    def add_product(self, z, a, weight):
        return self.node("Gemm", a, weight, z)

    def relu(self, z):
        return self.node("Relu", z)


def build(case, problem, threads):
    if case.mode != "infer":
        raise Unable("serves networks, and trains none")
    if case.precision != "float32":
        raise Unable("has no bfloat16 products on the CPU")
    problem, use = problem.folded(), Graph()
    logits = forward(problem.layers, {name: name for name in problem.arrays}, "x", use)
    graph = helper.make_graph(
        use.nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, problem.x.shape)],
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, (len(problem.x), CLASSES))],
        [numpy_helper.from_array(array, name) for name, array in problem.arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = {"x": np.ascontiguousarray(problem.x)}
    return lambda: session.run(None, inputs)[0], dict
