"""Which way to do a training step is fastest here: measured once, where asked for, and kept in a file.

A cost model chooses without measuring. On the CPU all ways give the same bits, so this is a matter of time alone; a GPU's
kernels may differ in roundings.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import _core
from ._atomic import open_regular, replace_file
from ._errors import DeviceError, DTypeError
from .checks import as_integer, as_number
from .losses import Loss
from .network import Network
from .optimizers import SGD
from .tables import Text, table

__all__ = ["tune"]

_Way = tuple[Any, ...]  # a strategy and a number of threads, or a path
_Ways = tuple[tuple[str, ...], tuple[str, ...], Sequence[_Way]]  # what a way decides, titles of that, and the ways
_VERSION = 1
_DECIDED = ("strategy", "use_threads", "path")  # by a tuning; the rest of a choice is what it was for
_TURN = 0.02  # seconds of steps that are timed together
_SAME_LOSS = 0.05  # of two ways' losses, relative: they may round to bfloat16 otherwise
_loaded: list[tuple[Path, str]] = []


def tune(net: Network, batch: int, seconds: float = 2.0, *, paths: Sequence[str] | None = None) -> Text:
    """Times the ways to train `net` on batches of `batch` rows, here and with these threads, and keeps the fastest.

    On a GPU, of a network in bfloat16, the ways are those that RESNETCORE_CUDA_PATH names: different kernels of the same
    formulas, whose roundings may differ. It holds for this process, and by a file for later ones: for training steps of
    every network and batch of the same sizes. `net` is left as it is. The file is RESNETCORE_TUNING, or
    resnetcore/tuning.json in the user's cache folder; an empty RESNETCORE_TUNING means none. Delete it to forget.

    Args:
        net: the network.
        batch: rows of a step (of a micro-batch, where the trainer accumulates).
        seconds: of timing, the ways in turns.
        paths: on a GPU, the kernels to time; those whose tests have passed on one, where nothing is said.

    Returns:
        A table of the ways: milliseconds a step, the fastest one first.

    Raises:
        DTypeError, ValueError: `net` is no network, a number is out of range, the GPU has no such path, or one way is forced
            (RESNETCORE_STRATEGY, RESNETCORE_CUDA_PATH).
        DeviceError: `net` is on a GPU and not in bfloat16: there is one way to do a step. Or the kernels of a path compute
            something else than those of others.
        OSError: the file cannot be written; the choice holds for this process all the same.
    """
    if not isinstance(net, Network):
        raise DTypeError(f"tune: net must be a Network, got {type(net).__name__}")
    batch = as_integer("tune: batch", batch, at_least=1)
    seconds = as_number("tune: seconds", seconds)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"tune: seconds must be positive and finite, got {seconds}")
    decided, titles, ways = _ways_on_gpu(net, paths) if net.device != "cpu" else _ways_on_cpu(net, batch, paths)
    load(net.device)
    shape = net._core.step_shape(batch)
    before = _core.remembered_way(shape)
    try:
        times = _times(net, batch, shape, ways, seconds)
    except BaseException:
        _core.forget_way(shape)
        if before is not None:
            _remember(shape, before)
        raise
    ranking = sorted(ways, key=times.__getitem__)
    _remember(shape, ranking[0])
    _keep({**shape, **dict(zip(decided, ranking[0], strict=True))}, net.device)
    return table((*titles, "ms a step"), [(*way, f"{1e3 * times[way]:.3f}") for way in ranking])


def _ways_on_cpu(net: Network, batch: int, paths: Sequence[str] | None) -> _Ways:
    if paths is not None:
        raise ValueError(f"tune: paths are a GPU's, got {paths!r} for a network on the CPU")
    if _core.get_strategy() != "auto":
        raise ValueError(f"tune: RESNETCORE_STRATEGY forces {_core.get_strategy()}: there is nothing to choose")
    counts = sorted({1, net._core.step_shape(batch)["threads"]}, reverse=True)
    ways = [(strategy, threads) for strategy in ("by_layer", "by_tile") for threads in counts]
    return ("strategy", "use_threads"), ("weight gradients", "threads"), ways


def _ways_on_gpu(net: Network, paths: Sequence[str] | None) -> _Ways:
    if net.precision != "bfloat16":
        raise DeviceError(
            f"tune: net must be on the CPU, or in bfloat16, got one in {net.precision} on {net.device}, which has one way to do "
            "a step"
        )
    forced = os.environ.get("RESNETCORE_CUDA_PATH")
    if forced:
        raise ValueError(f"tune: RESNETCORE_CUDA_PATH forces {forced}: there is nothing to choose")
    has_passed = dict(_core.device_paths(net.device))
    if paths is None:
        paths = [path for path, passed in has_passed.items() if passed]
    if isinstance(paths, str) or not paths or any(path not in has_passed for path in paths):
        raise ValueError(f"tune: paths must be some of {list(has_passed)} on {net.device}, got {paths!r}")
    return ("path",), ("kernels",), [(path,) for path in paths]


def _remember(shape: dict[str, Any], way: _Way) -> None:
    if "device" in shape:
        _core.remember_path(shape, *way)
    else:
        _core.remember_choice(shape, *way)


def _times(net: Network, batch: int, shape: dict[str, Any], ways: Sequence[_Way], seconds: float) -> dict[_Way, float]:
    """Median seconds of a step, by way; the ways take turns."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, net.inputs)).astype(net.dtype)
    y = rng.standard_normal((batch, net.outputs)).astype(net.dtype)
    copy = net.copy()
    core = _core.Trainer(copy._core, Loss("mse").to_core(net.outputs, net.dtype), SGD(lr=1e-30, momentum=0.0).to_core())
    taken: dict[_Way, list[float]] = {way: [] for way in ways}
    first_loss = None
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken[ways[0]]) < 3:
        for way in ways:
            _remember(shape, way)
            for _ in range(3 if "device" in shape else 1):  # a GPU's step is recorded when it is met again
                loss = core.step(x, y, 1e-30)
            if first_loss is None:
                first_loss = loss
            if not abs(loss - first_loss) <= _SAME_LOSS * abs(first_loss):
                raise DeviceError(
                    f"tune: a step by {way} has a loss of {loss}, and by {ways[0]} of {first_loss}: leave out the one that is "
                    "wrong (paths=), and please report it"
                )
            start, steps = time.perf_counter(), 0
            while steps == 0 or time.perf_counter() - start < _TURN:
                core.step(x, y, 1e-30)
                steps += 1
            taken[way].append((time.perf_counter() - start) / steps)
    return {way: float(np.median(times)) for way, times in taken.items()}


def load(device: str = "cpu") -> None:
    """Takes over what was kept for this machine's CPU, or a GPU. Once for a file; one that cannot be used is passed over,
    with a warning."""
    path = _path()
    if path is None or (path, device) in _loaded:
        return
    _loaded.append((path, device))
    try:
        for choice in _read(path, device):
            way = tuple(choice.pop(name) for name in _DECIDED if name in choice)
            _remember(choice if device == "cpu" else {**choice, "device": device}, way)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        warnings.warn(f"{path} is passed over: {error}; delete it, and tune again", RuntimeWarning, stacklevel=3)


def _path() -> Path | None:
    given = os.environ.get("RESNETCORE_TUNING")
    if given is not None:
        return Path(given) if given else None
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder, "resnetcore", "tuning.json")


def _machine(device: str) -> dict[str, Any]:
    """What choices are kept apart by: a home may be shared by several machines."""
    if device != "cpu":
        facts = _core.cuda_info()
        gpu, capability = facts["gpus"][int(device.removeprefix("cuda:"))]
        of_module = {"architectures": facts["architectures"], "version": _core.build_info()["version"]}
        return {"gpu": gpu, "capability": capability, "driver": facts["driver_version"], **of_module}
    return {"isa": _core.isa_info()["current"], **_core.cache_info(), "cpus": os.cpu_count()}


def _text(path: Path) -> str:
    with os.fdopen(open_regular(path), encoding="utf-8") as file:
        return file.read()


def _read(path: Path, device: str) -> list[dict[str, Any]]:
    """The choices kept for this machine."""
    kept = json.loads(_text(path))
    if not isinstance(kept, dict) or kept.get("version") != _VERSION:
        raise ValueError(f"it is not of version {_VERSION}")
    machine = _machine(device)
    return [dict(entry["choice"]) for entry in kept["choices"] if entry["machine"] == machine]


def _keep(choice: dict[str, Any], device: str) -> None:
    """Adds a choice to the file, in place of one for the same steps."""
    path = _path()
    if path is None:
        return
    try:
        entries = json.loads(_text(path))["choices"]
    except (OSError, ValueError, TypeError, KeyError):
        entries = []  # none yet, or load() has warned of what was there
    # Which of several equal GPUs it was is of no account.
    choice = {name: value for name, value in choice.items() if name != "device"}
    new = {"machine": _machine(device), "choice": choice}

    def superseded(entry: Any) -> bool:
        """By the new one; or it is none at all."""
        try:
            if entry["machine"] != new["machine"]:
                return False
            return all(entry["choice"][name] == value for name, value in choice.items() if name not in _DECIDED)
        except (TypeError, KeyError):
            return True

    kept = {"version": _VERSION, "choices": [*(e for e in entries if not superseded(e)), new]}
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, [json.dumps(kept, indent=1).encode()])
