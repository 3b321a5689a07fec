"""Networks as ONNX files, and back (extra `onnx`).

>>> rc.onnx.export(net, "net.onnx")
>>> net = rc.onnx.load("net.onnx")

The package `onnx` is imported when it is called.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from .._atomic import replace_file
from .._errors import DTypeError
from ..checks import as_integer
from ..network import Network
from .framework import require
from .reading import ModelReader, parse
from .writing import Graph

__all__ = ["export", "load"]

# Gelu is an operator from opset 20 on, and older ones need five nodes; ONNX Runtime has read opset 20 since 1.17 (2024).
OPSET, OLDEST_OPSET = 20, 15
_LARGEST = 2**31 - 1  # bytes of one protocol buffer


def export(net: Network, path: str | os.PathLike[str], *, fold_norm: bool = True, opset: int = OPSET) -> None:
    """Writes a network to an ONNX file, whole or not at all: input "x", (batch, inputs), output "y", (batch, outputs).

    What is written is the network in inference: dropout is left out, and batch norms use their running statistics.
    Numbers are float32 or float64 as `net.dtype`. A network of bfloat16, or of a matmul precision below "highest", is
    written with its float32 parameters, and computes in float32 there: more exactly than here.

    ONNX Runtime 1.32 has no float64 kernels for LeakyRelu, Elu, Gelu, Erf and Softplus: for it, export
    `net.astype("float32")`. ONNX keeps attributes, leaky_relu's slope and the norms' epsilon, as float32, and its
    softplus is not cut off above 20, which changes it by 2e-9 there.

    Args:
        net: the network.
        path: the file; an existing one is replaced and keeps its mode.
        fold_norm: fold batch norms into the weights before them; else they stay BatchNormalization nodes. Those of
            pre-activation layers always stay: an activation stands between them and the weights.
        opset: version of the operators, 15 or later. From 20 on gelu is one node.

    Raises:
        DTypeError: an argument of the wrong type.
        ValueError: an opset that is not known; a network of 2 GiB or more, which no ONNX file holds by itself.
        ImportError: the package onnx is not installed.
        OSError: the file cannot be written; the old one is as it was.
    """
    if not isinstance(net, Network):
        raise DTypeError(f"onnx.export: net must be a resnetcore.Network, got {type(net).__name__}")
    if not isinstance(fold_norm, (bool, np.bool_)):
        raise DTypeError(f"onnx.export: fold_norm must be True or False, got {fold_norm!r}")
    onnx = require("onnx.export")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= as_integer("onnx.export: opset", opset) <= newest:
        raise ValueError(f"onnx.export: opset must be from {OLDEST_OPSET} to {newest}, got {opset}")
    arrays = net._arrays()
    size = sum(array.nbytes for array in arrays.values())
    if size > _LARGEST - 2**20:  # nodes and names take the rest
        raise ValueError(f"onnx.export: the network's arrays must be below 2 GiB for an ONNX file, got {size} bytes")
    graph = Graph(onnx, net, arrays, bool(fold_norm), int(opset))
    replace_file(path, [graph.model().SerializeToString(deterministic=True)])


def load(path_or_model: str | os.PathLike[str] | Any) -> Network:
    """A network that computes what an ONNX model computes in inference, float32 or float64 as the model's input.

    The model's products, batch norms, activations, sums and gates, in the forms in which `export` and PyTorch's exporter
    write them, become layers. A Concat that feeds a product becomes a sum of products with that matrix's blocks.
    An epsilon other than 1e-5 is made up for in the norm's variance. All weights are trained: which ones are not, and
    dropout, an inference model does not say.

    Args:
        path_or_model: the file, whose external data may be in a file beside it, or an `onnx.ModelProto`.

    Raises:
        ConversionError: a model that no network equals. The message names the first node that has no place, and why.
        CheckpointError: a damaged file, or one that is no ONNX model.
        DTypeError: neither a path nor a model.
        ImportError: the package onnx is not installed.
        OSError: no file, or one that cannot be read.
    """
    onnx = require("onnx.load")
    if isinstance(path_or_model, onnx.ModelProto):
        return ModelReader(onnx, path_or_model, None).network()
    if not isinstance(path_or_model, (str, os.PathLike)):
        raise DTypeError(f"onnx.load: expected a path or an onnx.ModelProto, got {type(path_or_model).__name__}")
    folder = os.path.dirname(os.path.abspath(os.fsdecode(path_or_model)))
    return ModelReader(onnx, parse(onnx, path_or_model), folder).network()
