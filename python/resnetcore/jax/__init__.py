"""The fused block, and whole stacks of layers, inside JAX: functions that `jit`, `grad` and `vmap` take as its own.

Needs the extra `jax`. XLA calls the kernels itself, through its foreign function interface: Python is not on the way, and
arrays are read and written where XLA has them.
"""

from __future__ import annotations

try:
    import jax as _jax  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ModuleNotFoundError(
        "resnetcore.jax needs JAX, which is not installed: pip install 'resnetcore[jax]'", name="jax"
    ) from None

from .block import residual
from .stack import ResidualStack

__all__ = ["ResidualStack", "residual"]
