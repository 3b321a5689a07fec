"""`resnetcore demo`: everything is in the package `resnetcore.demo`; here are its arguments and its last words."""

from __future__ import annotations

import argparse
import os


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--quick and --out."""
    parser.add_argument("--quick", action="store_true", help="two depths instead of five, and a third of the epochs")
    parser.add_argument(
        "--out",
        default="resnetcore-demo",
        metavar="DIR",
        help="folder for demo.json and demo.png (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Runs the demo and prints its table."""
    from ..demo import report
    from ..demo import run as run_demo

    try:
        result = run_demo(arguments.out, arguments.quick)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; `resnetcore demo --quick` is shorter") from None
    print()
    print(report.summary(result))
    print(f"\nWritten: {os.path.join(arguments.out, 'demo.png')} and {os.path.join(arguments.out, 'demo.json')}")
