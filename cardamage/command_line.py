"""What the command lines of the programs have in common: CONFIG, key=value, --runs-dir.

Parse with ``parse_intermixed_args``: options may then stand between configs and overrides.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cardamage.errors import ConfigError
from cardamage.runs import RUNS_DIR


def experiment_parser(program: str | None, example: str) -> argparse.ArgumentParser:
    """A parser of ``config``, ``overrides`` and ``runs_dir``, for a program of one experiment.

    Args:
        program: its docstring; the first line describes it.
        example: an override that makes sense there.
    """
    parser = argparse.ArgumentParser(description=(program or "").partition("\n")[0])
    parser.add_argument("config", type=Path, help="a YAML file, or a run directory")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"as in {example}")
    add_runs_dir(parser)
    return parser


def add_runs_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--runs-dir``."""
    parser.add_argument(
        "--runs-dir",
        type=Path,
        default=RUNS_DIR,
        metavar="DIR",
        help="where run directories lie; default: %(default)s",
    )


def split_overrides(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Configs or runs, and overrides, told apart by the equals sign; a file's name may have one.

    Raises:
        ConfigError: there are overrides only.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    targets = [Path(word) for word in words if word not in overrides]
    if not targets:
        raise ConfigError(f"only {overrides[0]} is given; name a YAML file or a run directory too")
    return targets, overrides
