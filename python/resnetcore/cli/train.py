"""`resnetcore train`: a table in, a folder out. Between two steps the folder's checkpoint can always be brought up to date,
so Ctrl-C loses nothing, and a killed run loses the epoch it was in."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import models, schedules
from .._core import random_permutation
from ..callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping
from ..checks import check_seed
from ..network import Network
from ..optimizers import SGD, Adam, AdamW
from ..trainer import Trainer
from . import datafile
from .preparation import Preparation
from .run_folder import CHECKPOINT, CURVES, DESCRIPTION, HISTORY, NETWORK, Run

if TYPE_CHECKING:
    from ..fit_plan import FitPlan

MODELS: dict[str, Callable[..., Network]] = {
    "plain": models.plain,
    "resnet": models.resnet,
    "highway": models.highway,
    "gated_highway": models.gated_highway,
    "densenet": models.densenet,
    "preact_resnet": models.preact_resnet,
    "tabular_resnet": models.tabular_resnet,
}
SCHEDULES = {"constant": schedules.Constant, "cosine": schedules.Cosine, "onecycle": schedules.OneCycle}
RATES = {"sgd": 0.05, "adam": 1e-3, "adamw": 1e-3}

# Choices of a new run, with their defaults: a resumed one has them in its folder.
NEW_RUN: dict[str, Any] = {
    "target": None,
    "drop": [],
    "task": "auto",
    "standardise": True,
    "model": "resnet",
    "width": 128,
    "depth": 8,
    "norm": "batch",
    "activation": "relu",
    "dropout": 0.0,
    "batch_size": 128,
    "optimizer": "adamw",
    "lr": None,
    "momentum": 0.9,
    "weight_decay": None,
    "schedule": "constant",
    "clip_norm": None,
    "validation": 0.2,
    "patience": None,
    "seed": 0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All of them; those of NEW_RUN are None unless they are typed."""
    add = parser.add_argument
    add("data", nargs="?", help="a .csv, .npy or .npz file, or the word digits; may be left out with --resume")
    add("--target", metavar="COLUMN", help="what to predict: a name, or a number for arrays (default: the last column)")
    add("--drop", action="append", metavar="COLUMN", help="leave a column out; may be given several times")
    add(
        "--task",
        choices=("auto", "classification", "regression"),
        help="auto: text and integers that come back are classes",
    )
    add(
        "--no-standardise",
        dest="standardise",
        action="store_false",
        default=None,
        help="take columns as they are; otherwise each is brought to mean 0 and deviation 1, and predict does the same",
    )
    add("--model", choices=tuple(MODELS), help="default: resnet")
    add("--width", type=int, help="units of a hidden layer (default: 128)")
    add("--depth", type=int, help="layers with weights, input and output layer included (default: 8)")
    add("--norm", choices=("batch", "none"), help="default: batch")
    add("--activation", help="default: relu")
    add("--dropout", type=float, help="default: 0")
    add("--epochs", type=int, help="total number, also when resumed (default: 30)")
    add("--batch-size", type=int, help="default: 128")
    add("--optimizer", choices=tuple(RATES), help="default: adamw")
    add("--lr", type=float, help="learning rate (default: 0.05 for sgd, 0.001 for the others)")
    add("--momentum", type=float, help="of sgd (default: 0.9)")
    add("--weight-decay", type=float, help="default: 0.01 for adamw, 0 for the others")
    add("--schedule", choices=tuple(SCHEDULES), help="of the learning rate (default: constant)")
    add("--clip-norm", type=float, help="largest norm of all gradients together")
    add("--validation", type=float, metavar="FRACTION", help="rows set apart to measure on (default: 0.2)")
    add("--patience", type=int, metavar="EPOCHS", help="stop after as many without improvement, and keep the best")
    add("--seed", type=int, help="of split, weights, shuffles and dropout (default: 0)")
    add("--out", default="resnetcore-run", metavar="DIR", help="folder of the run (default: %(default)s)")
    add("--resume", action="store_true", help="continue the run in --out, with its own settings")
    add("--overwrite", action="store_true", help="start anew where --out holds a run already")
    add("--quiet", action="store_true", help="no progress")


def run(arguments: argparse.Namespace) -> None:
    """Trains, and leaves the folder that `run_folder` describes."""
    trainer, described, table = (_resume if arguments.resume else _begin)(arguments)
    x, y = described.preparation.x(table), described.preparation.y(table)
    if len(x) != described.rows:
        raise ValueError(
            f"train: {table.source} has {len(x)} rows, the run in {arguments.out} was begun with {described.rows}: other "
            "rows would be split apart for validation; give the same table, or begin a new run"
        )
    kept, held_out = _split(len(x), described)
    validation = (x[held_out], y[held_out]) if len(held_out) else None
    _say(arguments, _headline(trainer, described, kept, held_out))
    folder, description = arguments.out, _Describe(arguments, described)
    try:
        history = trainer.fit(
            x[kept],
            y[kept],
            described.epochs,
            validation=validation,
            progress=not arguments.quiet,
            callbacks=[description, *_callbacks(folder, described)],
        )
    except KeyboardInterrupt:
        if not description.written:
            raise
        trainer.save(os.path.join(folder, CHECKPOINT))
        raise KeyboardInterrupt(
            f"stopped in epoch {trainer.epoch + 1} after step {trainer.steps}, which is saved; continue "
            f"with: resnetcore train --resume --out {folder}"
        ) from None
    except FloatingPointError as error:
        raise FloatingPointError(
            f"{error}; try a smaller --lr (it is {trainer.optimizer.lr:g}) or --clip-norm 1"
        ) from None
    trainer.net.save(os.path.join(folder, NETWORK))
    _write_curves(arguments, history)
    _say(arguments, f"Written to {folder}: {NETWORK} and the run it came from")
    print(_result(trainer, described, validation, (x[kept], y[kept])))


def _begin(arguments: argparse.Namespace) -> tuple[Trainer, Run, datafile.Table]:
    folder = arguments.out
    if arguments.data is None:
        raise ValueError("train: which table? Give a .csv, .npy or .npz file, or the word digits")
    if os.path.exists(os.path.join(folder, DESCRIPTION)) and not arguments.overwrite:
        raise ValueError(
            f"train: {folder} holds a run already: continue it with --resume, replace it with --overwrite, or "
            "choose another --out"
        )
    choice = {
        name: default if getattr(arguments, name) is None else getattr(arguments, name)
        for name, default in NEW_RUN.items()
    }
    if arguments.momentum is not None and choice["optimizer"] != "sgd":
        raise ValueError(f"train: --momentum belongs to sgd, not to {choice['optimizer']}; add --optimizer sgd")
    check_seed("train", choice["seed"])
    if not 0 <= choice["validation"] < 1:
        raise ValueError(f"train: --validation must be in [0, 1), got {choice['validation']}")
    table = datafile.read(arguments.data)
    target = list(table.columns)[-1] if choice["target"] is None else choice["target"]
    rows = _split_rows(table.rows, choice["validation"], choice["seed"])[0]
    preparation = Preparation.fit(table, rows, target, choice["task"], choice["drop"], choice["standardise"])
    epochs = 30 if arguments.epochs is None else arguments.epochs
    described = Run(
        arguments.data, choice["validation"], choice["seed"], epochs, choice["patience"], preparation, table.rows
    )
    trainer = Trainer(
        _build(choice, preparation),
        preparation.loss,
        _optimizer(choice),
        choice["batch_size"],
        choice["seed"],
        SCHEDULES[choice["schedule"]](),
        clip_norm=choice["clip_norm"],
    )
    return trainer, described, table


def _resume(arguments: argparse.Namespace) -> tuple[Trainer, Run, datafile.Table]:
    given = [name for name in NEW_RUN if getattr(arguments, name) is not None]
    if given or arguments.overwrite:
        option = given[0].replace("_", "-") if given else "overwrite"
        raise ValueError(
            f"train: --{option} belongs to a new run; with --resume a run keeps its own settings, "
            "only --epochs may change"
        )
    described = Run.read(arguments.out)
    trainer = Trainer.resume(os.path.join(arguments.out, CHECKPOINT))
    data = described.data if arguments.data is None else arguments.data
    epochs = described.epochs if arguments.epochs is None else arguments.epochs
    return trainer, replace(described, data=data, epochs=epochs), datafile.read(data)


def _build(choice: dict[str, Any], preparation: Preparation) -> Network:
    options = {
        "norm": None if choice["norm"] == "none" else choice["norm"],
        "dropout": choice["dropout"],
        "activation": choice["activation"],
        "seed": choice["seed"],
    }
    if choice["model"] == "tabular_resnet":
        if options.pop("activation") != "relu":
            raise ValueError("train: --activation: tabular_resnet has relu; choose another --model")
    return MODELS[choice["model"]](
        len(preparation.inputs), preparation.outputs, choice["width"], choice["depth"], **options
    )


def _optimizer(choice: dict[str, Any]) -> Any:
    name = choice["optimizer"]
    numbers: dict[str, Any] = {"lr": RATES[name] if choice["lr"] is None else choice["lr"]}
    if choice["weight_decay"] is not None:
        numbers["weight_decay"] = choice["weight_decay"]
    if name == "sgd":
        return SGD(momentum=choice["momentum"], **numbers)
    return {"adam": Adam, "adamw": AdamW}[name](**numbers)


def _split(rows: int, described: Run) -> tuple[np.ndarray, np.ndarray]:
    return _split_rows(rows, described.validation, described.seed)


def _split_rows(rows: int, validation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    order = random_permutation(rows, seed, 0)
    count = rows - round(rows * validation)
    if count < 2:
        raise ValueError(f"train: at least 2 rows must be left to train on, got {count} of {rows}")
    return order[:count], order[count:]


class _Describe(Callback):
    """Writes what a run is once nothing but training can fail: a mistake leaves no folder, and a run as it was."""

    def __init__(self, arguments: argparse.Namespace, described: Run) -> None:
        self._folder, self._new, self._described = arguments.out, not arguments.resume, described
        self.written = False

    def on_fit_begin(self, trainer: Trainer, plan: FitPlan) -> None:
        os.makedirs(self._folder, exist_ok=True)
        if self._new:
            # The description first: no file of the run that was here may be taken for one of this run, however it ends.
            for name in (DESCRIPTION, NETWORK, HISTORY, CURVES):
                with suppress(FileNotFoundError):
                    os.remove(os.path.join(self._folder, name))
            trainer.save(os.path.join(self._folder, CHECKPOINT))
        self._described.write(self._folder)
        self.written = True


def _callbacks(folder: str, described: Run) -> list[Callback]:
    stopping = [] if described.patience is None else [EarlyStopping(described.patience)]
    return [*stopping, Checkpoint(os.path.join(folder, CHECKPOINT)), CSVLogger(os.path.join(folder, HISTORY))]


def _headline(trainer: Trainer, described: Run, kept: np.ndarray, held_out: np.ndarray) -> str:
    how = described.preparation
    task = "a number" if how.classes is None else f"{len(how.classes)} classes"
    start = f"; continuing after step {trainer.steps}" if trainer.steps else ""
    return (
        f"Predicting {how.target!r} ({task}) from {len(how.inputs)} columns; {len(kept):,} rows to train on, "
        f"{len(held_out):,} to validate{start}"
    )


def _result(trainer: Trainer, described: Run, validation: Any, training: Any) -> str:
    where, (x, y) = ("validation", validation) if validation is not None else ("training", training)
    found = trainer.evaluate(x, y)
    if described.preparation.classes is not None:
        return f"{where} accuracy {found['accuracy']:.2%}, loss {found['loss']:.4f}"
    return (
        f"{where} root mean square error {found['rmse'] * described.preparation.target_scale:.5g} "
        f"(in units of {described.preparation.target!r}), {found['rmse']:.3f} of its deviation"
    )


def _write_curves(arguments: argparse.Namespace, history: Any) -> None:
    try:
        history.plot(os.path.join(arguments.out, CURVES))
    except ImportError as error:
        _say(arguments, f"{CURVES} is left out: {error}")


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        print(text, file=sys.stderr)
