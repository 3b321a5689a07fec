"""`resnetcore info`: what was built, what this machine has, and how a saved network is run."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--plan, --training and --batch."""
    parser.add_argument(
        "--plan", metavar="NET", help="a saved network, or the folder of a training run: show its layers and plan"
    )
    parser.add_argument("--training", action="store_true", help="the plan of a training step instead of prediction's")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="rows of that step")


def run(arguments: argparse.Namespace) -> None:
    """Prints the configuration, or a network's summary and plan."""
    if arguments.plan is None:
        from ..config import show_config

        show_config()
        return
    from ..checkpoint import load_network
    from .run_folder import network_path

    net = load_network(network_path(arguments.plan))
    print(net.summary())
    print()
    print(net.explain(training=arguments.training, batch=arguments.batch))
