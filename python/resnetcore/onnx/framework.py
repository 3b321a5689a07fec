"""The one place that imports the package `onnx`."""

from __future__ import annotations

from types import ModuleType


def require(operation: str) -> ModuleType:
    """The package `onnx`; ImportError with the command that installs it."""
    try:
        import onnx
        import onnx.defs
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(f"{operation} needs the package onnx: pip install 'resnetcore[onnx]'") from error
    return onnx
