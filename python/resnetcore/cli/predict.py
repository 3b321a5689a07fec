"""`resnetcore predict`: a table's columns are found by name, in any order; its target may be there or not."""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Sequence
from typing import Any

from .._atomic import replace_file
from ..checkpoint import load_network
from ..network import Network
from . import datafile
from .run_folder import DESCRIPTION, Run, network_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the table, --out and --proba."""
    parser.add_argument("net", help="the folder of a training run, or a saved network")
    parser.add_argument("data", help="a .csv, .npy or .npz file, or the word digits")
    parser.add_argument("--out", metavar="FILE", help="a CSV file (default: standard output)")
    parser.add_argument("--proba", action="store_true", help="a column with the probability of each class besides")


def run(arguments: argparse.Namespace) -> None:
    """Writes one row a row of the table.

    A network in the folder of its run, with a run.json beside it, gets its columns standardised as in training and
    answers with class names or in the target's own units. Any other one gets the table's columns as they are, and its
    outputs are written.
    """
    path = network_path(arguments.net)
    net, table = load_network(path), datafile.read(arguments.data)
    folder = os.path.dirname(path) or "."
    if os.path.exists(os.path.join(folder, DESCRIPTION)):
        columns = _as_trained(net, Run.read(folder), table, arguments.proba)
    else:
        columns = _as_it_is(net, table, arguments.proba)
    _write(arguments.out, columns)


def _as_trained(net: Network, described: Run, table: datafile.Table, probabilities: bool) -> dict[str, Sequence[Any]]:
    how = described.preparation
    if (net.inputs, net.outputs) != (len(how.inputs), how.outputs):
        raise ValueError(
            f"predict: the network is {net.inputs} -> {net.outputs}, {DESCRIPTION} beside it describes "
            f"{len(how.inputs)} -> {how.outputs}; they are of different runs"
        )
    return how.predictions(net.predict(how.x(table)), probabilities)


def _as_it_is(net: Network, table: datafile.Table, probabilities: bool) -> dict[str, Sequence[Any]]:
    if len(table.columns) != net.inputs:
        raise ValueError(
            f"predict: the network takes {net.inputs} columns, {table.source} has {len(table.columns)}; a network "
            f"without {DESCRIPTION} beside it takes exactly its inputs, in order"
        )
    x = table.numbers(list(table.columns))
    outputs = net.predict_proba(x) if probabilities else net.predict(x)
    return {f"output{number}": column.tolist() for number, column in enumerate(outputs.T)}


def _write(path: str | None, columns: dict[str, Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    if path is None:
        print(text.getvalue(), end="")
    else:
        replace_file(path, [text.getvalue().encode()])
