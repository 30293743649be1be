"""What the shell may complete: runs, configs, stages, profiles, checkpoints."""

import argparse
from collections.abc import Callable
from pathlib import Path

from argcomplete.completers import FilesCompleter

from cardamage.config.shipped import PROFILES, shipped_names
from cardamage.runs.lookup import RUNS_DIR, SUFFIXES, run_names
from cardamage.runs.paths import STAGES


def add_completers(parser: argparse.ArgumentParser) -> None:
    """Tell argcomplete what stands where on a command's line, by the arguments' names."""
    by_name: dict[str, Callable[..., list[str]]] = {
        "config": lambda prefix, **given: [*_runs(prefix, **given), *shipped_names()],
        "run": _runs,
        "runs": _runs,
        "stage": _stages,
        "stages": _stages,
        "cluster": _clusters,
        "checkpoint": lambda **_: ["best", "last"],
    }
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list them
        if completer := by_name.get(action.dest):
            action.completer = completer  # type: ignore[attr-defined]


def _runs(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
    runs_dir = Path(getattr(parsed_args, "runs_dir", None) or RUNS_DIR)
    return [*run_names(runs_dir), *_files(prefix)]


def _stages(prefix: str, **_: object) -> list[str]:
    before = prefix[: prefix.rfind(",") + 1]
    return [f"{before}{stage}" for stage in STAGES]


def _clusters(prefix: str, **_: object) -> list[str]:
    return [*(path.stem for path in PROFILES.glob("*.yaml")), *_files(prefix)]


def _files(prefix: str) -> list[str]:
    suffixes = [suffix.removeprefix(".") for suffix in SUFFIXES]
    return list(FilesCompleter(allowednames=suffixes)(prefix))
