"""Opening a run directory: a config becomes a folder, and a folder stays with its config."""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cardamage.config import loading
from cardamage.config.experiment import Experiment
from cardamage.errors import ConfigError, RunError
from cardamage.runs.continued import has_begun
from cardamage.runs.lookup import RUNS_DIR
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage, writable
from cardamage.system.files import write_text


def resolve(
    target: Path, overrides: Sequence[str] = (), runs_dir: Path = RUNS_DIR
) -> tuple[Experiment, RunPaths]:
    """The experiment and run directory that a command's CONFIG argument means; writes nothing.

    ``target`` is a YAML file, whose run directory lies in ``runs_dir``, or a run directory.

    Raises:
        ConfigError: there is no such file or folder, or the config is wrong.
        RunError: the run directory belongs to another config.
    """
    if target.is_dir():
        run = RunPaths(target)
        if not run.config.is_file():
            raise ConfigError(f"{target.absolute()} is no run directory: it has no config.yaml")
        experiment = loading.load(run.config, overrides)
        if any(override.startswith("name=") for override in overrides):
            run = run.beside(experiment.name)  # another run, with this one's config
    else:
        experiment = loading.load(target, overrides)
        run = RunPaths(runs_dir / experiment.name)
    check_same_run(run, experiment)
    return experiment, run


def open_run(run: RunPaths, experiment: Experiment, *, flushed: bool = True) -> None:
    """Make the run directory, or take up the one that is there, and write its ``config.yaml``.

    Raises:
        RunError: it cannot be written, or belongs to another config.
    """
    check_same_run(run, experiment)
    text = experiment.to_yaml()
    with writable(run.root):
        run.root.mkdir(parents=True, exist_ok=True)
        if not run.config.is_file() or run.config.read_text(encoding="utf-8") != text:
            write_text(run.config, text, flushed=flushed)
        run.logs.mkdir(exist_ok=True)
        _check_writable(run)


def _check_writable(run: RunPaths) -> None:
    """Raise PermissionError when a folder of the run takes no new files, now and not hours later.

    The system is asked rather than the mode bits, so a read-only file system counts as well.
    """
    folders = [run.root, *(path for path in run.root.iterdir() if path.is_dir())]
    for folder in folders:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"{folder.name}: {os.strerror(errno.EACCES)}")


def as_tested(run: RunPaths, experiment: Experiment) -> Experiment:
    """The experiment, tested on valid where its dataset, once packed, has no test split."""
    test = experiment.test
    if test.split in read_stage(run, "pack").output.get("splits", (test.split,)):
        return experiment
    return experiment.model_copy(update={"test": test.model_copy(update={"split": "valid"})})


def check_same_run(run: RunPaths, experiment: Experiment) -> None:
    """Make sure that a run directory, if it is there, belongs to an experiment.

    Raises:
        RunError: it belongs to another one.
    """
    if not run.config.is_file() or _came_to_nothing(run):
        return
    with suppress(OSError, UnicodeDecodeError):  # loading it tells why
        if run.config.read_text(encoding="utf-8") == experiment.to_yaml():
            return  # by far the most frequent case, and reading YAML takes long
    there = loading.load(run.config)
    if _never_began(run) and there.data.packing() == experiment.data.packing():
        return
    if found := loading.differences(there, experiment):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise RunError(
            f"{run.root} holds a run of another config ({found[0]}{more}); "
            f"choose another name=..., or delete that folder"
        )


def _came_to_nothing(run: RunPaths) -> bool:
    """Whether the run ended while packing, so that a mended config may take its place."""
    return not has_begun(run) and read_stage(run, "pack").state == "failed"


def _never_began(run: RunPaths) -> bool:
    """Whether training failed before it saved anything; what was packed may be of use yet."""
    began = has_begun(run) or run.continued_from.exists()
    return not began and read_stage(run, "train").state == "failed"
