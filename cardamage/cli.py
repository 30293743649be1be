"""The command ``cardamage``: ``cardamage COMMAND ...``; ``cardamage COMMAND --help`` tells more.

``python -m cardamage`` is the same, and so are the programs in ``jobs/`` and ``launch/``. What a
command does is imported once its command line was found right, so that help comes at once.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import NoReturn

from cardamage.errors import ConfigError, did_you_mean, run_program
from cardamage.version import __version__

COMMANDS = {
    "init": "write a first experiment file for a dataset",
    "submit": "run experiments, sweeps and studies, on SLURM or here",
    "status": "a table of runs and their stages",
    "logs": "what a stage printed",
    "cancel": "save and stop what runs",
    "decide": "the next round of a search; its jobs run this",
    "prune": "list and remove what is no longer needed",
    "pack": "pack a dataset into shards",
    "train": "train here; the same command resumes",
    "test": "test every epoch's checkpoint",
    "report": "report on a run, or compare several",
    "predict": "class maps and overlays of photos",
    "rank": "which photos to label next",
    "doubtful": "which labels to look at again",
    "export": "a model for other software: ONNX, torch.export, TorchScript",
    "serve": "a model as an HTTP service, with a page to try it",
    "push": "a model and its card to the Hugging Face Hub",
    "audit": "what is in a COCO export, and what is wrong with it",
    "preview": "images with their masks drawn over them",
    "split": "split an export into train, valid and test",
    "download": "download an export from Roboflow",
    "synthesize": "draw a small COCO export",
}
"""Every command and what it does, in the order of ``--help``. Each is a module in ``commands``."""

_STAGES = ("pack", "train", "test", "report")


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors of this software: one line, exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the command line, as a ConfigError."""
        raise ConfigError(f"{message}; see `{self.prog} --help`")


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run one command, by default that of this process, and end it with the exit status."""
    run_program(partial(_execute, sys.argv[1:] if words is None else list(words)))


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "cardamage").partition(".")[0] == "cardamage":
            raise
        raise ConfigError(
            f'{sys.executable} has no package "{error.name}"; activate the environment that '
            f"cardamage is installed in (. .venv/bin/activate), or run `pip install .` in the clone"
        ) from None


def _execute(words: Sequence[str]) -> None:
    if "_ARGCOMPLETE" in os.environ:  # the shell asks what may follow: see docs/install.md
        typed = os.environ.get("COMP_LINE", "").split()
        _import("argcomplete").autocomplete(_overview(only=typed[1] if len(typed) > 1 else ""))
    name, *rest = words or ["--help"]
    if name in ("-h", "--help", "help"):
        print(_overview().format_help(), end="")
    elif name in ("-V", "--version"):
        print(f"cardamage {__version__}")
    elif name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        raise ConfigError(f'"{name}" is no command{hint}; there are: {", ".join(COMMANDS)}')
    else:
        if name in _STAGES:  # SLURM may send SIGUSR2 during the imports, which take seconds
            _import("cardamage.system.processes").block_usr2()
        command = _import(f"cardamage.commands.{name}")
        parser = Parser(
            prog=f"cardamage {name}",
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(parser)
        arguments = parser.parse_intermixed_args(rest)
        _import("cardamage.system.console").start_logging()
        command.run(arguments)


def _overview(only: str = "") -> Parser:
    """The parser of all commands, for help and completion; that of ``only`` is filled in."""
    parser = Parser(
        prog="cardamage",
        description="Train car-damage segmentation, test every epoch, and report.",
        epilog="`cardamage COMMAND --help` tells more of one.",
    )
    parser.add_argument("-V", "--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary)
        if name == only:
            _import(f"cardamage.commands.{name}").configure(command)
            _import("cardamage.commands.completion").add_completers(command)
    return parser
