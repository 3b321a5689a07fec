"""Optimizers as data: what is here are numbers, checked; the rules themselves are csrc/math/optimizer.h."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from ._errors import DTypeError
from .checks import as_number

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Base of `SGD`, `Adam` and `AdamW`.

    Args:
        lr: learning rate η > 0. Updates are Δw = −η·∂E/∂w: positive descends.
        weight_decay: as in PyTorch: added to the gradient (SGD, Adam), or decoupled (AdamW).
        decay: which parameters decay: "all", or "weights" for the matrices only (no biases, no norms).
    """

    lr: float = field(default=1e-3, kw_only=False)
    weight_decay: float = 0.0
    decay: str = "all"

    core_name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if not self.core_name:
            raise TypeError("Optimizer is a base class; use SGD, Adam or AdamW")
        self._make_floats("lr", "weight_decay")
        if not self.lr > 0:
            raise ValueError(f"{self._name}: lr must be above 0 (an update is -lr times the gradient), got {self.lr}")
        if self.weight_decay < 0:
            raise ValueError(f"{self._name}: weight_decay must not be negative, got {self.weight_decay}")
        if self.decay not in ("all", "weights"):
            raise ValueError(f"{self._name}: decay must be 'all' or 'weights', got {self.decay!r}")

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _make_floats(self, *names: str) -> None:
        for name in names:
            object.__setattr__(self, name, as_number(f"{self._name}: {name}", getattr(self, name)))

    def _check_in_unit_interval(self, name: str, value: float) -> None:
        if not 0 <= value < 1:
            raise ValueError(f"{self._name}: {name} must be in [0, 1), got {value}")

    def to_dict(self) -> dict[str, Any]:
        """Name and numbers: `from_dict(optimizer.to_dict()) == optimizer`."""
        return {"name": self._name, **asdict(self)}

    def to_core(self) -> dict[str, Any]:
        """As the compiled trainer takes it."""
        return {"name": self.core_name, "weight_decay": float(self.weight_decay), "decay": self.decay}


@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent, optionally with momentum (PyTorch's form: v = μv + g, w = w − ηv) or Nesterov's.

    Example:
        >>> SGD(lr=0.1, momentum=0.9)
        SGD(lr=0.1, weight_decay=0.0, decay='all', momentum=0.9, nesterov=False)
    """

    momentum: float = 0.0
    nesterov: bool = False

    core_name: ClassVar[str] = "sgd"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._make_floats("momentum")
        self._check_in_unit_interval("momentum", self.momentum)
        if not isinstance(self.nesterov, bool):
            raise DTypeError(f"SGD: nesterov must be True or False, got {self.nesterov!r}")
        if self.nesterov and self.momentum == 0:
            raise ValueError("SGD: nesterov=True needs a momentum above 0")

    def to_core(self) -> dict[str, Any]:
        """Plain descent where there is no momentum: it needs no array of velocities."""
        numbers = {**super().to_core(), "momentum": float(self.momentum), "nesterov": self.nesterov}
        return {**numbers, "name": "momentum"} if self.momentum else numbers


@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), PyTorch's order of operations; `betas` in [0, 1), `eps` > 0."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    core_name: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.betas, (tuple, list)) or len(self.betas) != 2:
            raise DTypeError(f"{self._name}: betas must be two numbers, got {self.betas!r}")
        betas = tuple(as_number(f"{self._name}: betas[{i}]", beta) for i, beta in enumerate(self.betas))
        object.__setattr__(self, "betas", betas)
        for i, beta in enumerate(self.betas):
            self._check_in_unit_interval(f"betas[{i}]", beta)
        self._make_floats("eps")
        if not self.eps > 0:
            raise ValueError(f"{self._name}: eps must be above 0, got {self.eps}")

    def to_core(self) -> dict[str, Any]:
        """The two betas by name."""
        beta1, beta2 = self.betas
        return {**super().to_core(), "beta1": float(beta1), "beta2": float(beta2), "eps": float(self.eps)}


@dataclass(frozen=True, kw_only=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): w = w − η·λ·w before Adam's own step."""

    weight_decay: float = 1e-2

    core_name: ClassVar[str] = "adamw"


_KNOWN = {cls.__name__: cls for cls in (SGD, Adam, AdamW)}


def as_optimizer(value: Any) -> Optimizer:
    """`value` itself, or the optimizer of that name with its default numbers."""
    if isinstance(value, Optimizer):
        return value
    if isinstance(value, str):
        for name, cls in _KNOWN.items():
            if name.lower() == value.lower():
                return cls()
        raise ValueError(f"Trainer: unknown optimizer {value!r}; known are {', '.join(_KNOWN)}")
    raise DTypeError(f"Trainer: optimizer must be one such as SGD(lr=0.1), got {value!r}")


def from_dict(description: dict[str, Any]) -> Optimizer:
    """The optimizer that `Optimizer.to_dict` described.

    Raises:
        ValueError: an unknown name, unknown arguments, or numbers out of range.
    """
    numbers = dict(description)
    name = numbers.pop("name", None)
    if name not in _KNOWN:
        raise ValueError(f"optimizer: unknown name {name!r}; known are {', '.join(_KNOWN)}")
    known = {f.name for f in fields(_KNOWN[name])}
    if numbers.keys() - known:
        raise ValueError(
            f"optimizer {name}: unknown arguments {sorted(numbers.keys() - known)}; known are {sorted(known)}"
        )
    return _KNOWN[name](**numbers)
