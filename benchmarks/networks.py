"""What is measured, described once: layers as data, their arrays by name, and the one loop that every rival runs.

A hidden layer is `a = relu(norm(a_prev W + b) + Σ skips)`; the last one gives 10 logits, trained by cross-entropy. Names
of arrays are resnetcore's: `3.weight` (in, out), `3.bias`, `3.skip.2.weight`, `3.norm.weight`, `3.norm.running_mean`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np

from .shapes import CLASSES, Shape

EPS, MOMENTUM = 1e-5, 0.1  # of batch normalisation
REACH = 4  # earlier layers that a dense layer reads
# Small rates: a run repeats one batch thousands of times, and must neither diverge nor fit it until gradients vanish.
OPTIMIZERS = {
    "sgd": {"lr": 1e-3},
    "momentum": {"lr": 1e-3, "momentum": 0.9},
    "adamw": {"lr": 1e-5, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2},
}
MODES = ("train", "infer")
# bfloat16: activations and the operands of products; parameters are float32, and so are sums in the libraries' products.
PRECISIONS = ("float32", "bfloat16")
PRODUCTS = ("highest", "high", "medium")  # of float32, in resnetcore alone
DEVICES = ("cpu", "cuda")  # where networks are, and their batches


@dataclass(frozen=True)
class Layer:
    inputs: int
    width: int
    skips: dict[int, str]
    norm: bool = False
    relu: bool = True


def _every_second(kind: str):
    return lambda number: {2: kind} if number % 2 == 0 else {}


# Skips of a hidden layer, counted from 1, by layers back (the input is layer 0).
SKIPS = {
    "identity": _every_second("identity"),
    "norm": _every_second("identity"),
    "learned": _every_second("learned"),
    "dense": lambda number: {back: "learned" for back in range(2, min(REACH, number) + 1)},
}
VARIANTS = tuple(SKIPS)


@dataclass(frozen=True)
class Case:
    """One cell of the tables: a size, a kind of network, and what is done with it."""

    shape: Shape
    variant: str = "identity"
    mode: str = "train"
    optimizer: str = "sgd"
    precision: str = "float32"
    device: str = "cpu"
    products: str = "highest"

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Case:
        return cls(**{**values, "shape": Shape(**values["shape"])})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def label(self) -> str:
        optimizer = [self.optimizer] if self.mode == "train" else []
        products = [f"{self.products} products"] if self.products != "highest" else []
        return ", ".join([self.variant, self.mode, *optimizer, self.precision, *products])

    @property
    def layers(self) -> list[Layer]:
        width, norm = self.shape.width, self.variant == "norm"
        hidden = [Layer(width, width, SKIPS[self.variant](n), norm) for n in range(1, self.shape.depth)]
        return [*hidden, Layer(width, CLASSES, {}, relu=False)]

    @property
    def operations(self) -> float:
        """Floating-point operations: one product a weight matrix forward, two more backward."""
        weights = sum(layer.inputs * layer.width * _matrices(layer) for layer in self.layers)
        return 2.0 * self.shape.batch * weights * (3 if self.mode == "train" else 1)

    @property
    def traffic(self) -> float:
        """Bytes that cannot but move where nothing stays in a cache: the batch, every weight as often as the work passes
        over it (to update, it is read forward and backward, and written), and to train, every activation there and back."""
        training = self.mode == "train"
        weights = sum(layer.inputs * layer.width * _matrices(layer) for layer in self.layers)
        activations = self.shape.batch * sum(layer.width for layer in self.layers)
        size = 4 if self.precision == "float32" else 2
        batch = self.shape.batch * self.shape.width
        return size * (batch + weights * (3 if training else 1) + activations * (2 if training else 0))

    def problem(self) -> Problem:
        """Random, the same for every rival. Weights are small enough that no skip makes the sums explode."""
        rng = np.random.default_rng(0)
        arrays = {}
        for number, layer in enumerate(self.layers, 1):
            size = (layer.inputs, layer.width)
            scale = 1 / np.sqrt(layer.inputs * (1 if number == 1 else 4) * _matrices(layer))
            arrays[f"{number}.weight"] = scale * rng.standard_normal(size)
            if layer.norm:
                arrays[f"{number}.norm.weight"] = 0.5 + 0.05 * rng.standard_normal(layer.width)
                arrays[f"{number}.norm.bias"] = 0.1 * rng.standard_normal(layer.width)
                arrays[f"{number}.norm.running_mean"] = 0.1 * rng.standard_normal(layer.width)
                arrays[f"{number}.norm.running_var"] = rng.uniform(0.5, 2.0, layer.width)
            else:
                arrays[f"{number}.bias"] = 0.1 * rng.standard_normal(layer.width)
            for back, kind in layer.skips.items():
                if kind == "learned":
                    arrays[f"{number}.skip.{back}.weight"] = scale * rng.standard_normal(size)
        x = rng.standard_normal((self.shape.batch, self.shape.width)).astype("float32")
        labels = rng.integers(0, CLASSES, self.shape.batch)
        return Problem(self.layers, {name: a.astype("float32") for name, a in arrays.items()}, x, labels)


@dataclass(frozen=True)
class Problem:
    layers: list[Layer]
    arrays: dict[str, np.ndarray]
    x: np.ndarray
    labels: np.ndarray

    def folded(self) -> Problem:
        """The same function with every norm folded into the weight before it, as whoever serves a network would."""
        arrays = {name: array for name, array in self.arrays.items() if ".norm." not in name}
        for number, layer in enumerate(self.layers, 1):
            if layer.norm:
                of = {part: self.arrays[f"{number}.norm.{part}"].astype("float64") for part in NORM_PARTS}
                factor = of["weight"] / np.sqrt(of["running_var"] + EPS)
                arrays[f"{number}.weight"] = (arrays[f"{number}.weight"] * factor).astype("float32")
                arrays[f"{number}.bias"] = (of["bias"] - of["running_mean"] * factor).astype("float32")
        return replace(self, layers=[replace(layer, norm=False) for layer in self.layers], arrays=arrays)


NORM_PARTS = ("weight", "bias", "running_mean", "running_var")


def is_trained(name: str) -> bool:
    return ".running_" not in name


def _matrices(layer: Layer) -> int:
    return 1 + sum(kind == "learned" for kind in layer.skips.values())


class Operations(Protocol):
    """A library's ways to write the parts of a layer. `z` is nobody else's: it may be overwritten."""

    def product(self, a: Any, weight: Any, bias: Any) -> Any: ...
    def norm(self, z: Any, arrays: dict[str, Any], names: list[str]) -> Any: ...
    def add(self, z: Any, a: Any) -> Any: ...
    def add_product(self, z: Any, a: Any, weight: Any) -> Any: ...
    def relu(self, z: Any) -> Any: ...


def forward(layers: list[Layer], arrays: dict[str, Any], x: Any, use: Operations) -> Any:
    """The logits."""
    outputs = [x]
    for number, layer in enumerate(layers, 1):
        z = use.product(outputs[-1], arrays[f"{number}.weight"], arrays.get(f"{number}.bias"))
        if layer.norm:
            z = use.norm(z, arrays, [f"{number}.norm.{part}" for part in NORM_PARTS])
        for back, kind in layer.skips.items():
            earlier = outputs[number - back]
            if kind == "learned":
                z = use.add_product(z, earlier, arrays[f"{number}.skip.{back}.weight"])
            else:
                z = use.add(z, earlier)
        outputs.append(use.relu(z) if layer.relu else z)
    return outputs[-1]
