"""Cuts a graph of values into layers: each value is the input, a layer's output, or inside one layer.

What is inside a layer has one reader, so a value that several read is the output of a layer. The layers are a chain: each
multiplies the output of the one before it by its weight, or, in pre-activation order, g(norm(output)). Values are
looked at in the order of the graph, and each is either matched as a layer's output, by what is known of those before
it, or refused with a reason; the last one's reason is the error. Where both orders fit, the activation belongs to the
layer before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from .. import _core
from .graph import Graph
from .nodes import Above, Activation, Affine, Array, Concat, Dropout, Gate, Input, Multiply, Node, Norm, Product, Sum

# g(m · z) = m · g(z) for m ≥ 0: dropping before these is dropping after them.
_HOMOGENEOUS = ("identity", "relu", "leaky_relu")


@dataclass(eq=False)
class Term:
    """A term of a layer's sum: `dropout(norm(product))`, or any value, which is then an identity skip."""

    value: Node
    product: Product | None = None
    norm: Norm | None = None
    dropout: float = 0.0

    @property
    def source(self) -> Node:
        """The value that is multiplied, or the identity skip's."""
        return self.value if self.product is None else self.product.source


@dataclass(eq=False)
class MatchedLayer:
    """A layer and what it was made of. Number 0 is the input, which has nothing else."""

    output: Node
    number: int = 0
    before: MatchedLayer | None = None
    normal: Term | None = None
    skips: dict[int, Term] = field(default_factory=dict)
    constants: list[Array | float] = field(default_factory=list)
    activation: str = "identity"
    pre: bool = False
    norm: Norm | None = None
    gate: Product | None = None
    dropout: float = 0.0
    dropout_before: float = 0.0  # of the layer before, found between its output and here


class _Refusal(NamedTuple):
    where: str
    problem: str


class _Order(NamedTuple):
    """One way to read a product as a normal path."""

    before: MatchedLayer
    pre: bool = False
    activation: str = "identity"
    norm: Norm | None = None
    dropout: float = 0.0


class _Refused(Exception):
    """Carries a refusal out of the depth of one match."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(where, problem)
        self.refusal = _Refusal(where, problem)


def match(graph: Graph, output: Node) -> list[MatchedLayer]:
    """The layers whose last one gives `output`, first to last, the input before them. Raises ConversionError."""
    matcher = _Matcher(graph, output)
    last = matcher.found[output]
    if isinstance(last, _Refusal):
        graph.fail(*last)
    layers = [last]
    while (before := layers[-1].before) is not None:
        before.dropout = before.dropout or layers[-1].dropout_before
        layers.append(before)
    if len(layers) == 1:
        graph.fail("the output", "is the input itself; a network has at least one layer")
    _check_weights_are_own(graph, layers)
    return layers[::-1]


def _check_weights_are_own(graph: Graph, layers: list[MatchedLayer]) -> None:
    """A constant added to a product makes another one of its weight: two layers would then train that apart."""
    read: dict[int, Product] = {}
    for layer in layers:
        terms = [layer.normal, *layer.skips.values()]
        for product in [layer.gate, *(term.product for term in terms if term is not None)]:
            if product is None or not product.trained:
                continue
            other = read.setdefault(id(product.weight), product)
            if other is not product:
                graph.fail(product.where, f"shares its weight with {other.where}, and layers have their own")


class _Matcher:
    def __init__(self, graph: Graph, output: Node) -> None:
        needed = {output}
        for node in reversed(graph.nodes):
            if node in needed:
                needed.update(node.operands())
        nodes = [node for node in graph.nodes if node in needed]
        self._readers = dict.fromkeys(nodes, 0)
        for node in nodes:
            for operand in node.operands():
                self._readers[operand] += 1
        # A sum within a sum is no layer's output; looking at all of a long one each time would take forever.
        within = {
            term
            for node in nodes
            if isinstance(node, Sum)
            for term in node.terms
            if isinstance(term, Sum) and self._inside(term)
        }
        self.found: dict[Node, MatchedLayer | _Refusal] = {}
        for node in nodes:
            if node in within:
                continue
            try:
                self.found[node] = self._match(node)
            except _Refused as refused:
                self.found[node] = refused.refusal

    def _match(self, top: Node) -> MatchedLayer:
        if isinstance(top, Input):
            return MatchedLayer(top)
        layer, rest = MatchedLayer(top), top
        if isinstance(rest, Dropout):
            layer.dropout, rest = rest.p, rest.source
        carried: Node | None = None
        if isinstance(rest, Gate) and self._inside(rest, top):
            layer.gate, carried, rest = self._gate(rest), rest.carried, rest.transformed
        if isinstance(rest, Activation) and self._inside(rest, top):
            layer.activation, rest = self._activation(rest), rest.source
        terms, layer.constants = self._terms(rest, top)
        products = [term for term in terms if term.product is not None]
        if not products:
            raise self._without_product(top, terms)
        plain = layer.activation == "identity" and layer.gate is None
        orders = [(order, term) for term in products for order in self._orders(term, plain)]
        if not orders:
            raise self._cause(products[0], plain)
        # The latest layer of those that are multiplied; of both orders the one in which the activation came first.
        order, layer.normal = max(orders, key=lambda one: (one[0].before.number, not one[0].pre))
        self._settle(layer, order, [term for term in terms if term is not layer.normal])
        if layer.gate is not None and not (carried is order.before.output is layer.gate.source):
            raise _Refused(top.where, "gates with another value than the output of the layer before it")
        return layer

    def _settle(self, layer: MatchedLayer, order: _Order, others: list[Term]) -> None:
        """Fills in the way of the normal path, and the other terms as skips."""
        assert layer.normal is not None
        where = layer.output.where
        layer.before, layer.number = order.before, order.before.number + 1
        layer.pre, layer.norm = order.pre, layer.normal.norm
        if order.pre:
            layer.activation, layer.norm = order.activation, order.norm
        layer.dropout_before = order.dropout
        for term in others:
            found = self.found[term.source]
            if isinstance(found, _Refusal):
                raise _Refused(*found)
            if not _is_on_path(found, order.before):
                raise _Refused(where, f"adds {term.source.where}, which is no output of a layer on the way to it")
            if term.norm or term.dropout:
                raise _Refused(where, f"adds {term.value.where}, a skip, which can have neither norm nor dropout")
            back = layer.number - found.number
            if back == 1 or back in layer.skips:
                raise _Refused(
                    where, f"adds {term.value.where}, a second term of {term.source.where}; a layer reads each once"
                )
            layer.skips[back] = term

    def _orders(self, term: Term, plain: bool) -> list[_Order]:
        found: list[_Order] = []
        before = self.found[term.source]
        if isinstance(before, MatchedLayer):
            found.append(_Order(before))
        if plain and term.norm is None:
            activation, norm, p, source = self._preactivation(term.source)
            before = self.found[source]
            movable = not p or (norm is None and activation in _HOMOGENEOUS and self._takes_dropout(source))
            if source is not term.source and isinstance(before, MatchedLayer) and movable:
                found.append(_Order(before, True, activation, norm, p))
        return found

    def _preactivation(self, value: Node) -> tuple[str, Norm | None, float, Node]:
        """The parts of `dropout(g(norm(source)))`, all of which may be missing."""
        activation, norm, p = "identity", None, 0.0
        if isinstance(value, Dropout) and self._inside(value):
            p, value = value.p, value.source
        if isinstance(value, Activation) and self._inside(value):
            activation, value = self._activation(value), value.source
        if isinstance(value, Norm) and self._inside(value):
            norm, value = value, value.source
        return activation, norm, p, value

    def _takes_dropout(self, source: Node) -> bool:
        before = self.found[source]
        return isinstance(before, MatchedLayer) and before.number > 0 and not before.dropout and self._inside(source)

    def _terms(self, top_of_sum: Node, top: Node) -> tuple[list[Term], list[Array | float]]:
        terms: list[Term] = []
        constants: list[Array | float] = []
        left = [top_of_sum]
        while left:
            value = left.pop()
            inside = self._inside(value, top)
            if isinstance(value, Sum) and inside:
                left += value.terms[::-1]
                constants += [] if value.constant is None else [value.constant]
            elif isinstance(value, Affine) and inside and value.scale == 1:
                left.append(value.source)
                constants.append(value.shift)
            else:
                terms.append(self._term(value, top))
        return terms, constants

    def _term(self, value: Node, top: Node) -> Term:
        term, rest = Term(value), value
        if isinstance(rest, Dropout) and self._inside(rest, top):
            term.dropout, rest = rest.p, rest.source
        if isinstance(rest, Norm) and self._inside(rest, top):
            term.norm, rest = rest, rest.source
        if isinstance(rest, Product) and self._inside(rest, top):
            term.product = rest
            return term
        return Term(value)

    def _gate(self, gate: Gate) -> Product:
        product = gate.transform.source
        if not (isinstance(product, Product) and self._inside(product) and self._inside(gate.transform)):
            raise _Refused(
                gate.where, "gates by something other than sigmoid(x @ W + b), or something that others read"
            )
        return product

    def _activation(self, value: Activation) -> str:
        if value.name not in _core.activations():
            raise _Refused(value.where, f"is part of no activation that is known: {', '.join(_core.activations())}")
        return value.name

    def _inside(self, value: Node, top: Node | None = None) -> bool:
        return value is top or self._readers[value] == 1

    def _cause(self, term: Term, plain: bool) -> _Refused:
        """Why a product is no normal path."""
        *_, source = self._preactivation(term.source)
        found = self.found[source]
        if isinstance(found, _Refusal):
            return _Refused(*found)
        if plain and term.norm is None:
            problem = (
                "drops what no layer drops: dropout is of a layer's output, or of a product before skips are added"
            )
            return _Refused(term.source.where, problem)
        problem = "and an activation, a norm or a gate comes after it: a layer has these before its product or after it"
        return _Refused(term.value.where, f"multiplies {term.source.where}, {problem}, not both")

    def _without_product(self, top: Node, terms: list[Term]) -> _Refused:
        for term in terms:
            found = self.found.get(term.value)
            if isinstance(found, _Refusal):
                return _Refused(*found)
        if type(top) in _LEFT_OVER:
            return _Refused(top.where, _LEFT_OVER[type(top)])
        names = " and ".join(one.where for one in top.operands())
        return _Refused(top.where, f"takes {names}, and there is no product with a weight between, as every layer has")


def _is_on_path(layer: MatchedLayer, last: MatchedLayer) -> bool:
    at: MatchedLayer | None = last
    while at is not None and at.number > layer.number:
        at = at.before
    return at is layer


_LEFT_OVER: dict[type[Node], str] = {
    Multiply: "multiplies two values, and they are neither a gate, T * h + (1 - T) * x, nor an activation",
    Affine: "multiplies by a constant that is no part of an activation; multiply it into the weights before it",
    Concat: "concatenates for something other than a product, which would be a sum of products",
    Above: "compares, and is no part of an activation",
}
