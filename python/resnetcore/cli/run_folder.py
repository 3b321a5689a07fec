"""What a training run leaves in its folder. Nothing there depends on the machine or the time.

net.safetensors         the network, for `resnetcore predict` and `resnetcore.load`
checkpoint.safetensors  the whole training, for `resnetcore train --resume`
run.json                where the data came from, and how a table's columns become the network's inputs and targets
history.csv, curves.png what every epoch measured
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from .._atomic import replace_file
from .preparation import Preparation

NETWORK, CHECKPOINT, DESCRIPTION, HISTORY, CURVES = (
    "net.safetensors",
    "checkpoint.safetensors",
    "run.json",
    "history.csv",
    "curves.png",
)


@dataclass(frozen=True)
class Run:
    """The part of a run that neither the network nor the trainer knows."""

    data: str
    validation: float
    seed: int
    epochs: int
    patience: int | None
    preparation: Preparation
    rows: int  # of the table: the split into training and validation rows follows from it

    def write(self, folder: str) -> None:
        """To run.json, whole or not at all."""
        replace_file(os.path.join(folder, DESCRIPTION), [json.dumps(asdict(self), indent=1).encode() + b"\n"])

    @classmethod
    def read(cls, folder: str) -> Run:
        """From run.json; ValueError where it is not what `write` wrote, OSError where it is not there."""
        path = os.path.join(folder, DESCRIPTION)
        with open(path, encoding="utf-8") as file:
            try:
                values: dict[str, Any] = json.load(file)
                return cls(**{**values, "preparation": Preparation.from_dict(values["preparation"])})
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise ValueError(f"{path}: not the description of a training run: {error}") from None


def network_path(path: str) -> str:
    """A network's file, given itself or the folder of its run."""
    return os.path.join(path, NETWORK) if os.path.isdir(path) else path
