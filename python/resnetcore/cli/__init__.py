"""The command `resnetcore`. What goes wrong ends in one line on standard error and exit status 2; Ctrl-C in 130."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

# Each is a module here with `add_arguments(parser)` and `run(arguments)`, imported when it is needed.
COMMANDS = {
    "demo": "train plain and residual networks on real data and draw what depth and skips do",
    "train": "train a network on a table of numbers",
    "predict": "write a trained network's predictions for a table",
    "bench": "time training steps and check them against float64",
    "info": "show the build, the processor's features and a network's plan",
}


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2 and the message, without argparse's lines of usage."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: as typed, without the program's name; None takes those of the process.

    Returns:
        The exit status: 0; 2 after an error the user can act on; 130 after Ctrl-C; 141 where the reader of the output went.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        chosen = build_parser(given).parse_args(given)
        import_module(f".{chosen.command}", __name__).run(chosen)
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except SystemExit as end:  # argparse: --help, --version and its own errors
        return int(end.code or 0)
    except KeyboardInterrupt as stop:
        print(f"\nresnetcore: {stop.args[0] if stop.args else 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains again at its exit
        return 141
    except (OSError, ValueError, ImportError, FloatingPointError, MemoryError, RuntimeError, TypeError) as error:
        if os.environ.get("RESNETCORE_TRACEBACK"):
            raise
        print(f"resnetcore: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def build_parser(given: Sequence[str] = ()) -> Parser:
    """The parser; only the command that `given` names gets its arguments, so that the others need not be imported."""
    parser = Parser(
        prog="resnetcore",
        description="Deep residual networks on fused kernels.",
        epilog="RESNETCORE_TRACEBACK=1 shows where an error was raised.",
    )
    parser.add_argument("--version", action=_Answer, nargs=0, help="show the version and exit")
    parser.add_argument("--include-dir", action=_Answer, nargs=0, help="show the folder of resnetcore.h and exit")
    parser.add_argument("--lib-dir", action=_Answer, nargs=0, help="show the folder of libresnetcore.so and exit")
    parser.add_argument("--cmake-dir", action=_Answer, nargs=0, help="show resnetcore_DIR for CMake and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command", parser_class=Parser)
    wanted = next((word for word in given if not word.startswith("-")), None)
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose[0].upper() + purpose[1:] + ".")
        if name == wanted:
            import_module(f".{name}", __name__).add_arguments(command)
    return parser


class _Answer(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *unused: object) -> NoReturn:
        from .. import __version__, embedding

        print(
            {
                "version": f"resnetcore {__version__}",
                "include_dir": embedding.get_include(),
                "lib_dir": os.path.dirname(embedding.get_library()),
                "cmake_dir": embedding.get_cmake_dir(),
            }[self.dest]
        )
        parser.exit()


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return " ".join(str(error).split()) or type(error).__name__
