"""A network or a trainer as one safetensors file, and back: the whole header is checked before arrays are made.

The arrays have the names that `Network.parameters` and `Network.buffers` give them, a trainer's further ones begin with
`optimizer.` or `best.` (what an `EarlyStopping` keeps); topology and settings are JSON among the header's texts. There is
no device, no time stamp and no pickle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from . import schedules
from ._errors import CheckpointError
from ._topology_text import Topology, decode, encode, expected_shapes, rejecting
from .checks import check_device
from .network import Network
from .safetensors import Reader, write
from .trainer import Trainer

__all__ = ["load_network", "load_trainer", "save_network", "save_trainer"]

Loaded = TypeVar("Loaded")

_NETWORK, _TRAINER = "resnetcore.network", "resnetcore.trainer"
_OPTIMIZER, _STEP, _BEST = "optimizer.", "optimizer.step", "best."
_OF_TRAINERS = (_OPTIMIZER, _BEST)
# Every count of steps or rows stays exact as a float64, and far from the end of an int64.
_MAX_COUNT = 2**53
_DTYPES = {"float32": "F32", "float64": "F64", "bfloat16": "F32"}  # of the parameters


def save_network(net: Network, path: str | os.PathLike[str]) -> None:
    """Writes a network to a safetensors file, whole or not at all.

    An existing file is replaced and keeps its mode. Raises OSError with the old file as it was.
    """
    write(path, net._arrays(), {_NETWORK: Topology.to_json(net)})


def load_network(path: str | os.PathLike[str], device: str = "cpu") -> Network:
    """The network of a file that `Network.save` or `Trainer.save` wrote.

    Args:
        path: the file.
        device: where the network is to be, as of `Network`; files are the same for all.

    Raises:
        DeviceError: a device that is not there.
        CheckpointError: anything else, or a damaged file; nothing is taken from it.
        OSError: no file, or one that cannot be read.
    """
    device = check_device("load", device)
    with Reader(path) as reader:
        names = set(reader.tensors)
        if _TRAINER in reader.metadata:
            names = {name for name in names if not name.startswith(_OF_TRAINERS)}
        return _naming(reader, lambda: _read_network(reader, names, device))


def save_trainer(trainer: Trainer, path: str | os.PathLike[str]) -> None:
    """Writes all of a training to a safetensors file, whole or not at all: the network and what continuing it needs.

    Raises:
        ValueError: a schedule of the caller's own, which no file can hold.
        OSError: the file cannot be written; the old one is as it was.
    """
    with trainer._between_steps():  # all of one moment between two steps; the file is written while others go on
        config, state, network = trainer.config(), trainer.state(), trainer.net._arrays()
    try:
        schedules.from_dict(config["schedule"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"save: the schedule {trainer.schedule!r} cannot be saved: {error}") from None
    arrays = {**network, **state["optimizer"]}
    for number, best in enumerate(state["best"]):
        arrays.update({f"{_BEST}{number}.{name}": array for name, array in best.pop("arrays").items()})
    settings = encode({"config": config, **{name: state[name] for name in ("position", "history", "best")}})
    write(path, arrays, {_NETWORK: Topology.to_json(trainer.net), _TRAINER: settings})


def load_trainer(path: str | os.PathLike[str], device: str = "cpu") -> Trainer:
    """The trainer of a file that `Trainer.save` wrote; continued, it gives the bits of an uninterrupted training, on the
    same kind of device.

    Args:
        path: the file.
        device: where its network is to be, as of `Network`.

    Raises:
        DeviceError: a device that is not there.
        CheckpointError: anything else, or a damaged file; nothing is taken from it.
        OSError: no file, or one that cannot be read.
    """
    device = check_device("resume", device)
    with Reader(path) as reader:
        return _naming(reader, lambda: _read_trainer(reader, device))


def _naming(reader: Reader, make: Callable[[], Loaded]) -> Loaded:
    try:
        return make()
    except CheckpointError as error:
        raise reader.error(str(error)) from error.__cause__


def _read_network(reader: Reader, names: set[str], device: str) -> Network:
    topology = _topology(reader)
    _check_arrays(reader, names, topology)
    return topology.build(reader.read(names), device)


def _read_trainer(reader: Reader, device: str) -> Trainer:
    if _TRAINER not in reader.metadata:
        raise CheckpointError("must be written by Trainer.save, and holds no training; resnetcore.load reads networks")
    text = reader.metadata[_TRAINER]
    settings = rejecting("the training's settings", lambda: _settings(decode(text)))
    further = {name for name in reader.tensors if name.startswith(_OF_TRAINERS)}
    _check_further(reader, further)
    net = _read_network(reader, reader.tensors.keys() - further, device)
    return rejecting("the training's settings", lambda: _build_trainer(net, settings, reader.read(further)))


def _build_trainer(net: Network, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Trainer:
    steps = int(arrays[_STEP][0])
    if not 0 <= steps < _MAX_COUNT:
        raise ValueError(f"{_STEP} must be from 0 to 2**53 - 1, got {steps}")
    trainer = Trainer.from_config(net, settings["config"])
    best = [{**one, "arrays": _beginning(arrays, f"{_BEST}{i}.")} for i, one in enumerate(settings.get("best", ()))]
    left = sum(name.startswith(_BEST) for name in arrays) - sum(len(one["arrays"]) for one in best)
    if left:
        raise ValueError(f"there are {left} arrays of best epochs that it does not know")
    optimizer = {name: array for name, array in arrays.items() if name.startswith(_OPTIMIZER)}
    trainer.set_state({**settings, "optimizer": optimizer, "best": best})
    return trainer


def _beginning(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)}


def _topology(reader: Reader) -> Topology:
    if _NETWORK not in reader.metadata:
        raise CheckpointError("must be written by Network.save or Trainer.save, and has no topology of a network")
    return Topology.from_json(reader.metadata[_NETWORK])


def _settings(value: dict[str, Any]) -> dict[str, Any]:
    if value.keys() - {"best"} != {"config", "position", "history"}:  # files of before best epochs were kept
        raise ValueError(f"must have config, position, history and best, got {sorted(value)}")
    counts = [value["position"][name] for name in ("epoch", "batch", "rows")] + [value["position"].get("total") or 0]
    if not all(0 <= count < _MAX_COUNT for count in counts):
        raise ValueError(f"position must count from 0 to 2**53 - 1, got {value['position']}")
    return value


def _check_arrays(reader: Reader, names: set[str], topology: Topology) -> None:
    shapes = rejecting("the topology", lambda: expected_shapes(topology.inputs, topology.layers))
    if missing := sorted(shapes.keys() - names):
        raise CheckpointError(f"lacks {_some(missing)}, which the topology needs")
    if extra := sorted(names - shapes.keys()):
        raise CheckpointError(f"has {_some(extra)}, which the topology does not know")
    dtype = _DTYPES[topology.dtype]
    for name, shape in shapes.items():
        _check_array(reader, name, dtype, shape)


def _check_further(reader: Reader, names: set[str]) -> None:
    if _STEP not in names:
        raise CheckpointError(f"lacks '{_STEP}', the number of updates")
    _check_array(reader, _STEP, "I64", (1,))
    for name in names - {_STEP}:
        if name.startswith(_OPTIMIZER):
            parameter = reader.tensors.get(name[len(_OPTIMIZER) :].rpartition(".")[0])
        else:
            parameter = reader.tensors.get(name[len(_BEST) :].partition(".")[2])
        if parameter is None:
            raise CheckpointError(f"has '{name}', which belongs to no array of the network")
        _check_array(reader, name, parameter.dtype, parameter.shape)


def _check_array(reader: Reader, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    info = reader.tensors[name]
    if (info.dtype, info.shape) != (dtype, shape):
        raise CheckpointError(f"'{name}' must be {dtype} {shape}, got {info.dtype} {info.shape}")


def _some(names: list[str]) -> str:
    shown = ", ".join(repr(name[:64]) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
