"""An `nn.Module`'s graph, as torch.fx traces it, in the intermediate form: node by node by the rules of `operators.py`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from .._errors import ConversionError, DTypeError
from ..conversion import Constant, Graph, Operand, assemble, match
from ..network import Network
from .operators import FUNCTIONS, METHODS, MODULES, constant
from .shared import DTYPE_NAMES
from .stack import ResidualStack

_OPERATION = "torch.from_module"
_CHANGED_BY_MODE = (nn.BatchNorm1d, nn.Dropout)
_IN_PLACE = (operator.iadd, operator.isub, operator.imul, "add_")


def from_module(module: nn.Module) -> Network:
    """A network that computes what a module computes, in training too, with a copy of its parameters and statistics.

    The module is a stack of `nn.Linear`, `nn.BatchNorm1d`, activations and `nn.Dropout` with skips, gates and
    concatenations (which become sums), as modules or as functions, in the order in which torch.fx traces it; its input is
    one tensor of two dimensions. Parameters are all float32, all float64 or all bfloat16, and so is the network. A skip's
    weight that does not require a gradient becomes a fixed one; all other weights are trained, and biases always.

    Two things train differently. Several biases that are added to one sum, as the second one of a skip's Linear,
    become one. The bias of a Linear before a batch norm, which has no effect, becomes a part of the running mean.

    `F.dropout(x, p, self.training)` is seen where the module is in training mode. Masks are drawn by our generator.

    Raises:
        ConversionError: a module that no network equals, or that torch.fx cannot trace. The message names the first node
            that has no place, and why.
        DTypeError: not an `nn.Module`, or parameters of several or other dtypes.
    """
    if not isinstance(module, nn.Module):
        raise DTypeError(f"{_OPERATION}: module must be a torch.nn.Module, got {type(module).__name__}")
    _check_hooks("the module", module)
    if isinstance(module, ResidualStack):
        if getattr(module.forward, "__func__", None) is not ResidualStack.forward:
            raise ConversionError(
                f"{_OPERATION}: {type(module).__name__} is a ResidualStack with a forward() of its own, which cannot be looked "
                "into; convert the stack inside of it by ResidualStack.to_network()"
            )
        return module.to_network()
    dtype = _dtype(module)
    root = module
    if type(module) in MODULES:  # a leaf by itself, as nn.Linear, has a forward() that the tracer would look into
        root = nn.Sequential(module)
        root.training = module.training
    try:
        traced = fx.Tracer().trace(root)
    except Exception as error:  # whatever forward() makes of a value that is not there
        raise ConversionError(f"{_OPERATION}: torch.fx cannot trace {type(module).__name__}: {error}") from error
    return _Walk(root, traced).network(dtype)


def _dtype(module: nn.Module) -> str:
    dtypes = {parameter.dtype for parameter in module.parameters()}
    if len(dtypes) != 1 or not dtypes <= DTYPE_NAMES.keys():
        got = ", ".join(sorted(map(str, dtypes))) or "no parameters"
        raise DTypeError(f"{_OPERATION}: parameters must be all float32, all float64 or all bfloat16, got {got}")
    return DTYPE_NAMES[dtypes.pop()]


def _check_hooks(where: str, module: nn.Module) -> None:
    if module._forward_hooks or module._forward_pre_hooks:
        raise ConversionError(
            f"{_OPERATION}: {where} has forward hooks, which torch.fx does not see; remove them, and what they do"
        )


class _Walk:
    def __init__(self, root: nn.Module, traced: fx.Graph) -> None:
        self._root, self._traced = root, traced
        self._graph = Graph(_OPERATION)
        self._values: dict[fx.Node, Operand] = {}
        self._overwritten: dict[Operand, str] = {}  # by whom
        self._read: dict[int, str] = {}  # by a parameter's identity: the node that has used it

    def network(self, dtype: str) -> Network:
        inputs = [node for node in self._traced.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            self._graph.fail("the module", f"must have one input, got {len(inputs)}")
        (result,) = (node.args[0] for node in self._traced.nodes if node.op == "output")
        if not isinstance(result, fx.Node):
            self._graph.fail("the output", f"must be one tensor, got {type(result).__name__}")
        for node in self._traced.nodes:
            if node.op != "output":
                self._values[node] = self._value(node)
        output = self._values[result]
        if isinstance(output, Constant):
            self._graph.fail("the output", "is a constant")
        return assemble(self._graph, match(self._graph, output), dtype)

    def _value(self, node: fx.Node) -> Operand:
        if node.op == "placeholder":
            return self._graph.input(None)
        where, target = f"node {node.name!r} ({_kind(node, self._root)})", node.target
        if node.op == "get_attr":
            tensor = _attribute(self._root, str(target))
            for user in node.users:
                self._use_once(f"node {user.name!r}", [tensor])
            return constant(tensor)
        args: Any = fx.node.map_aggregate(node.args, lambda one: self._operand(where, one))
        named: Any = fx.node.map_aggregate(node.kwargs, lambda one: self._operand(where, one))
        in_place = named.get("inplace", False) or target in _IN_PLACE
        if node.op == "call_module":
            module = self._root.get_submodule(str(target))
            self._use_once(where, list(module.parameters()))
            _check_hooks(where, module)
            if isinstance(module, _CHANGED_BY_MODE) and module.training != self._root.training:
                modes = [("evaluation", "training")[one.training] for one in (module, self._root)]
                self._graph.fail(
                    where, f"is in {modes[0]} mode in a module in {modes[1]} mode; a network has one mode: call train()"
                )
            in_place = getattr(module, "inplace", False)
            value = self._call(where, MODULES.get(type(module)), (module, *args), named)
        else:
            table: dict[Any, Callable[..., Operand]] = FUNCTIONS if node.op == "call_function" else METHODS
            value = self._call(where, table.get(target), args, named)
        if in_place and value is not self._values[node.all_input_nodes[0]]:
            self._overwritten[self._values[node.all_input_nodes[0]]] = where
        return value

    def _call(self, where: str, rule: Callable[..., Operand] | None, args: Any, named: Any) -> Operand:
        if rule is None:
            modules = ", ".join(sorted(kind.__name__ for kind in MODULES))
            functions = ", ".join(sorted({kind.__name__ for kind in FUNCTIONS}))
            self._graph.fail(where, f"is not known; known are the modules {modules} and the functions {functions}")
        try:
            return rule(self._graph, where, *args, **named)
        except TypeError as error:
            self._graph.fail(where, f"has arguments that are not known: {error}")

    def _operand(self, where: str, given: Any) -> Any:
        """An argument as the rules take it. Whoever reads a tensor later than it was overwritten reads other numbers."""
        value = self._values[given] if isinstance(given, fx.Node) else given
        if isinstance(given, fx.Node) and value in self._overwritten:
            self._graph.fail(where, f"reads a tensor that {self._overwritten[value]} has changed in place")
        return value

    def _use_once(self, where: str, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            if id(tensor) in self._read:
                self._graph.fail(
                    where, f"shares its parameters with {self._read[id(tensor)]}, and layers have their own"
                )
            self._read[id(tensor)] = where


def _kind(node: fx.Node, root: nn.Module) -> str:
    if node.op == "call_module":
        return f"{type(root.get_submodule(str(node.target))).__name__} {node.target}"
    return str(getattr(node.target, "__name__", node.target))


def _attribute(root: nn.Module, path: str) -> torch.Tensor:
    value: Any = root
    for name in path.split("."):
        value = getattr(value, name)
    return value
