"""Deep residual networks on fused CPU kernels.

>>> import resnetcore as rc
>>> net = rc.models.resnet(64, 10, width=64, depth=20, norm="batch")
>>> trainer = rc.Trainer(net, loss="cross_entropy", optimizer=rc.SGD(lr=0.1, momentum=0.9))
>>> history = trainer.fit(X, y, epochs=20, validation=(Xv, yv))

Importing this loads NumPy and the compiled core; everything else is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import callbacks, losses, models, onnx, ops, optimizers, plots, schedules
    from ._core import DeviceArray, activations
    from ._errors import (
        BuildFeatureError,
        BusyError,
        CheckpointError,
        ConversionError,
        DeviceError,
        DTypeError,
        ResnetcoreError,
        ShapeError,
    )
    from .callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, JSONLLogger
    from .checkpoint import load_network as load
    from .config import (
        get_matmul_precision,
        get_num_threads,
        set_matmul_precision,
        set_num_threads,
        show_config,
    )
    from .diagnostics import Diagnosis
    from .embedding import get_cmake_dir, get_include, get_library
    from .history import History
    from .layers import Layer
    from .losses import Loss
    from .network import Network
    from .optimizers import SGD, Adam, AdamW
    from .progress import Progress
    from .schedules import Schedule
    from .trainer import Trainer
    from .tuning import tune

# Public name: (module, name in it). A module itself has no name.
_EXPORTS = {
    **{
        name: (f".{name}", None)
        for name in ("callbacks", "losses", "models", "onnx", "ops", "optimizers", "plots", "schedules")
    },
    "activations": ("._core", "activations"),
    **{
        name: ("._errors", name)
        for name in (
            "BuildFeatureError",
            "CheckpointError",
            "ConversionError",
            "BusyError",
            "DeviceError",
            "DTypeError",
            "ResnetcoreError",
            "ShapeError",
        )
    },
    **{name: (".callbacks", name) for name in ("Callback", "Checkpoint", "CSVLogger", "EarlyStopping", "JSONLLogger")},
    "Progress": (".progress", "Progress"),
    "load": (".checkpoint", "load_network"),
    **{
        name: (".config", name)
        for name in (
            "get_matmul_precision",
            "get_num_threads",
            "set_matmul_precision",
            "set_num_threads",
            "show_config",
        )
    },
    "DeviceArray": ("._core", "DeviceArray"),
    "Diagnosis": (".diagnostics", "Diagnosis"),
    **{name: (".embedding", name) for name in ("get_cmake_dir", "get_include", "get_library")},
    "History": (".history", "History"),
    "Layer": (".layers", "Layer"),
    "Loss": (".losses", "Loss"),
    "Network": (".network", "Network"),
    **{name: (".optimizers", name) for name in ("SGD", "Adam", "AdamW")},
    "Schedule": (".schedules", "Schedule"),
    "Trainer": (".trainer", "Trainer"),
    "tune": (".tuning", "tune"),
}

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BuildFeatureError",
    "BusyError",
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "ConversionError",
    "DTypeError",
    "DeviceArray",
    "DeviceError",
    "Diagnosis",
    "EarlyStopping",
    "History",
    "JSONLLogger",
    "Layer",
    "Loss",
    "Network",
    "Progress",
    "ResnetcoreError",
    "Schedule",
    "ShapeError",
    "Trainer",
    "__version__",
    "activations",
    "callbacks",
    "get_cmake_dir",
    "get_include",
    "get_library",
    "get_matmul_precision",
    "get_num_threads",
    "load",
    "losses",
    "models",
    "onnx",
    "ops",
    "optimizers",
    "plots",
    "schedules",
    "set_matmul_precision",
    "set_num_threads",
    "show_config",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("resnetcore")
    elif name in _EXPORTS:
        module, attribute = _EXPORTS[name]
        loaded = importlib.import_module(module, __name__)
        value = loaded if attribute is None else getattr(loaded, attribute)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


from . import _core as _core  # noqa: E402  (fails at import, not at first use, where the core cannot be loaded)
