"""Every file of a run directory and of a shard folder, each as one property.

Nothing else in the project spells a file name of these folders.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

STAGES = ("pack", "train", "test", "report")
"""The four stages, in the order in which they depend on each other."""

SPLITS = ("train", "valid", "test")
"""The folders of a COCO export and of a shard folder."""

_CHECKPOINT = re.compile(r"epoch-(\d{4,})\.safetensors")
_STATE = re.compile(r"state-(\d{8,})\.pt")


class _Under:
    """A file or folder of a place in its ``root``."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, place: RunPaths | ShardPaths, owner: type) -> Path:
        return place.root / self._path


def weights_folder(shards_dir: str) -> Path:
    """Where pretrained weights are kept: ``weights/`` beside the folder of the shards."""
    return Path(shards_dir).parent / "weights"


@dataclass(frozen=True)
class RunPaths:
    """The files of one run."""

    root: Path

    def beside(self, name: str) -> RunPaths:
        """The run of a name whose directory lies beside this one, which may be ``.``."""
        return RunPaths(Path(os.path.normpath(self.root / ".." / name)))

    config = _Under("config.yaml")
    """The config as resolved: every default written out."""
    provenance = _Under("provenance.json")
    """Commit, patch, versions, command and host of the last start."""
    continued_from = _Under("continued_from.json")
    """The checkpoint of another run that training began with; absent where it was none."""
    pretrained = _Under("pretrained.json")
    """The pretrained weights that training began with; absent where there were none."""
    rung = _Under("rung.json")
    """The epoch at which a search stops the run; absent where it is trained to its end."""
    metrics = _Under("metrics.csv")
    """One row per epoch."""
    events = _Under("events.jsonl")
    """Progress, one JSON object per line."""
    checkpoints = _Under("checkpoints")
    """The folder of the weights, one file per epoch."""

    def checkpoint(self, epoch: int) -> Path:
        """The weights after ``epoch`` (counted from 1)."""
        return self.checkpoints / f"epoch-{epoch:04d}.safetensors"

    def finished_checkpoints(self) -> dict[int, Path]:
        """Every checkpoint on disk by epoch, in ascending order."""
        return _numbered(self.checkpoints, _CHECKPOINT)

    resume = _Under("resume")
    """The folder with what the next start resumes from."""

    def state(self, step: int) -> Path:
        """What training was after ``step`` optimiser steps."""
        return self.resume / f"state-{step:08d}.pt"

    def states(self) -> dict[int, Path]:
        """Every saved state on disk by step, in ascending order."""
        return _numbered(self.resume, _STATE)

    progress = _Under("resume/progress.json")
    """Epochs and steps that training has saved, for those who cannot read its state."""

    def test_table(self, split: str) -> Path:
        """One row per checkpoint, tested on ``split``."""
        return self.root / "test" / f"{split}.csv"

    def test_counts(self, split: str, epoch: int) -> Path:
        """Per-image counts of one checkpoint on ``split``."""
        return self.root / "test" / split / f"epoch-{epoch:04d}.npz"

    def validation_counts(self, epoch: int) -> Path:
        """Per-image counts of an epoch on the validation split, as training found them."""
        return self.root / "validation" / f"epoch-{epoch:04d}.npz"

    report = _Under("report")
    """The folder of the report; its page is ``index.html``."""
    model_card = _Under("checkpoints/README.md")
    """What the best checkpoint is, for those it is given to."""
    export = _Under("export")
    """The folder of its networks in other formats."""

    def stage(self, stage: str) -> Path:
        """The marker that says how a stage stands."""
        return self.root / "stages" / f"{stage}.json"

    def lock(self, stage: str) -> Path:
        """There while a process works at a stage, so that no second one does."""
        return self.root / "stages" / f"{stage}.lock"

    def usage(self, stage: str, process: int) -> Path:
        """What a process of a stage's last attempt took."""
        return self.root / "stages" / "usage" / f"{stage}.{process}.json"

    launch = _Under("launch.json")
    """Who launched the run last, where, and with which process or job ids."""
    cancel_request = _Under("stages/cancel.json")
    """There while somebody asks the launcher to stop this run; the launcher removes it."""
    code = _Under("code")
    """The folder of the snapshots of the code, one for each state it was submitted in."""
    slurm = _Under("slurm")
    """The folder of batch scripts, of where processes meet, and of starts counted."""

    def awaited(self, stage: str) -> Path:
        """What the job of a stage waits for once it is queued again, as SLURM's dependency."""
        return self.slurm / f"{stage}.after"

    def starts(self, stage: str) -> Path:
        """The starts of a stage on SLURM: when, where, and what each found done."""
        return self.slurm / f"{stage}.starts.json"

    resubmitted = _Under("slurm/resubmitted")
    """Jobs that took another's place, as batch scripts write them: ``old new`` per line."""
    logs = _Under("logs")
    """The folder of the stages' logs."""

    def log(self, stage: str) -> Path:
        """What a stage printed."""
        return self.logs / f"{stage}.log"


@dataclass(frozen=True)
class StudyPaths(RunPaths):
    """The files of a study: what its runs have in common, beside their directories.

    Of a run's files it has the code, ``launch.json``, and the report with its marker and log.
    """

    record = _Under("study.json")
    """The names of its runs and what is compared; no run has such a file."""
    search = _Under("search.json")
    """What a search was asked for and has decided."""
    journal = _Under("optuna.journal")
    """The trials of a search as Optuna's storage, made again after every decision."""

    def slot(self, number: int, place: int) -> Path:
        """The link, set when it is decided, to the run at a place of a round of a search."""
        return self.root / "rounds" / str(number) / str(place)

    def comparison(self, name: str) -> Path:
        """The folder of a report that compares some of the runs."""
        return self.report / name


@dataclass(frozen=True)
class ShardPaths:
    """The files of one packed dataset."""

    root: Path

    manifest = _Under("manifest.json")
    """Counts, sizes, hashes, classes, fingerprint; written last, so it marks completeness."""

    def shard(self, split: str, number: int) -> Path:
        """One tar of samples; numbers count from 0."""
        return self.root / split / f"{number:06d}.tar"

    def index(self, split: str) -> Path:
        """Where each sample lies inside the split's shards."""
        return self.root / split / "index.npy"


def _numbered(folder: Path, name: re.Pattern[str]) -> dict[int, Path]:
    """The files of a folder whose names have a number in them, in ascending order of it."""
    if not folder.is_dir():
        return {}
    found = ((name.fullmatch(path.name), path) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))
