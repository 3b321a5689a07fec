"""`resnetcore demo`: what skips do to deep networks, shown on real data. Every sentence it prints is computed from its runs."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any, TextIO

from .. import digits
from .._atomic import replace_file
from . import experiments, figure, gradients, report


def run(
    out: str | os.PathLike[str] = "resnetcore-demo", quick: bool = False, stream: TextIO | None = None
) -> dict[str, Any]:
    """Trains plain, residual, learned-skip, dense and gated networks on the digits, and draws what happened.

    Args:
        out: folder for `demo.json` and `demo.png`; made where it is not there.
        quick: fewer depths and epochs.
        stream: where progress goes; None is standard error.

    Returns:
        What `demo.json` holds: "settings", "networks" (training error by epoch, test accuracy, seconds), "gradients"
        (norm by layer at the start) and "skips" (‖skip‖ / ‖branch‖ by layer and step).

    Raises:
        ImportError: scikit-learn or matplotlib is not installed; the message has the command.
        OSError: the folder cannot be written to; found out before anything is trained.
    """
    require_extras()
    folder = os.fspath(out)
    os.makedirs(folder, exist_ok=True)
    data = digits.split()
    settings = experiments.Settings.quick() if quick else experiments.Settings()
    result: dict[str, Any] = {
        "settings": settings.to_dict(),
        "networks": [],
        "skips": None,
        "gradients": gradients.at_start(data, settings),
    }
    _write(folder, result)
    with report.Progress(sys.stderr if stream is None else stream, settings) as progress:
        for experiment in settings.experiments():
            outcome = experiments.train(experiment, data, settings, progress)
            result["networks"].append(outcome.pop("network"))
            result["skips"] = outcome["skips"] or result["skips"]
    _write(folder, result)
    figure.draw(result, os.path.join(folder, "demo.png"))
    return result


def require_extras() -> None:
    """ImportError with the command to type, before anything is done, where scikit-learn or matplotlib is missing."""
    missing = []
    for module, name in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        try:
            import_module(module)
        except ImportError:
            missing.append(name)
    if missing:
        raise ImportError(f"demo: needs {' and '.join(missing)}: pip install 'resnetcore[demo]'")


def _write(folder: str, result: dict[str, Any]) -> None:
    replace_file(os.path.join(folder, "demo.json"), [json.dumps(result, indent=1, allow_nan=False).encode() + b"\n"])
