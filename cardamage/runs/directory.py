"""Opening a run directory: a config becomes a folder, and a folder stays with its config."""

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cardamage.config import loading
from cardamage.config.experiment import Experiment
from cardamage.errors import ConfigError, RunError, UserError
from cardamage.runs.lookup import RUNS_DIR
from cardamage.runs.paths import STAGES, RunPaths
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
            if run.config.is_file() and not is_trained(run):
                _replace(run, experiment)
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
    if not run.config.is_file() or _may_be_replaced(run):
        return
    with suppress(OSError, UnicodeDecodeError):  # loading it tells why
        if run.config.read_text(encoding="utf-8") == experiment.to_yaml():
            return  # by far the most frequent case, and reading YAML takes long
    if found := loading.differences(loading.load(run.config), experiment):
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise RunError(
            f"{run.root} holds a run of another config ({found[0]}{more}); "
            f"choose another name=..., or delete that folder"
        )


def _may_be_replaced(run: RunPaths) -> bool:
    """Whether nothing was trained and nobody is at it, so that a mended config may take its place.

    A run that was launched and has not ended is one that waits in a queue.
    """
    if is_trained(run):
        return False
    states = {read_stage(run, stage).state for stage in STAGES[:2]}
    has_ended = not states.isdisjoint(("failed", "stopped", "cancelled"))
    return "running" not in states and (has_ended or not run.launch.is_file())


def is_trained(run: RunPaths) -> bool:
    """Whether a run has a checkpoint, or saved a state behind the first step."""
    return bool(run.finished_checkpoints()) or any(step > 0 for step in run.states())


def _replace(run: RunPaths, experiment: Experiment) -> None:
    """Remove what an untrained run's former config left that would be taken for this one's."""
    with suppress(UserError):  # one that cannot be read says nothing
        there = loading.load(run.config)
        if not loading.differences(there, experiment):
            return
        if there.data.packing() != experiment.data.packing():
            run.stage("pack").unlink(missing_ok=True)
    for path in (run.continued_from, run.pretrained):
        path.unlink(missing_ok=True)
    shutil.rmtree(run.resume, ignore_errors=True)
