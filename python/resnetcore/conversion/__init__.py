"""Other programs' models as `Network`s: one intermediate form, whichever program a model comes from.

The form is a graph of values, each (batch, width), that knows nothing of layers (`nodes.py`):

    Input                                   the model's one input
    Product(x, W, b)                        x @ W + b
    Norm(x, γ, β, μ, σ²)                    batch normalisation
    Activation(x, name)                     g(x)
    Sum(terms, b)                           of values, and of a constant row
    Gate(T, h, x)                           T ⊙ h + (1 − T) ⊙ x
    Dropout(x, p)
    Concat(xs)                              columns side by side
    Affine(x, a, b), Multiply(x, y), Above(x, c)     what is left of arithmetic that made none of the above

A front end (`onnx/reading.py`, `torch/tracing.py`) walks its program's graph in order and calls a method of `Graph` for each
operation. These methods bring every spelling of one thing into one form (`graph.py`): a product of a concatenation is a
sum of products with the blocks of the matrix, x·σ(x) is silu, a constant added to a product is its bias. Each value
remembers which operation it came from, and that is what errors name.

`match` (`matching.py`) then cuts the graph into layers, and `assemble` (`assembly.py`) makes the network of them.
"""

from __future__ import annotations

from .assembly import assemble
from .graph import Constant, Graph, Operand
from .matching import match

__all__ = ["Constant", "Graph", "Operand", "assemble", "match"]
