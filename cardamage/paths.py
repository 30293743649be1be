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


@dataclass(frozen=True)
class RunPaths:
    """The files of one run."""

    root: Path

    def beside(self, name: str) -> RunPaths:
        """The run of a name whose directory lies beside this one, which may be ``.``."""
        return RunPaths(Path(os.path.normpath(self.root / ".." / name)))

    @property
    def config(self) -> Path:
        """The config as resolved: every default written out."""
        return self.root / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Commit, patch, versions, command and host of the last start."""
        return self.root / "provenance.json"

    @property
    def continued_from(self) -> Path:
        """The checkpoint of another run that training began with; absent where it was none."""
        return self.root / "continued_from.json"

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.root / "metrics.csv"

    @property
    def events(self) -> Path:
        """Progress, one JSON object a line."""
        return self.root / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of the weights, one file an epoch."""
        return self.root / "checkpoints"

    def checkpoint(self, epoch: int) -> Path:
        """The weights after ``epoch`` (counted from 1)."""
        return self.checkpoints / f"epoch-{epoch:04d}.safetensors"

    def finished_checkpoints(self) -> dict[int, Path]:
        """Every checkpoint on disk by epoch, in ascending order."""
        return _numbered(self.checkpoints, _CHECKPOINT)

    @property
    def resume(self) -> Path:
        """The folder with what the next start needs to go on."""
        return self.root / "resume"

    def state(self, step: int) -> Path:
        """What training was after ``step`` optimiser steps."""
        return self.resume / f"state-{step:08d}.pt"

    def states(self) -> dict[int, Path]:
        """Every saved state on disk by step, in ascending order."""
        return _numbered(self.resume, _STATE)

    @property
    def progress(self) -> Path:
        """Epochs and steps that training has saved, for those who cannot read its state."""
        return self.resume / "progress.json"

    def test_table(self, split: str) -> Path:
        """One row a checkpoint, tested on ``split``."""
        return self.root / "test" / f"{split}.csv"

    def test_counts(self, split: str, epoch: int) -> Path:
        """Per-image counts of one checkpoint on ``split``."""
        return self.root / "test" / split / f"epoch-{epoch:04d}.npz"

    @property
    def report(self) -> Path:
        """The folder of the report; its page is ``index.html``."""
        return self.root / "report"

    def stage(self, stage: str) -> Path:
        """The marker that says how a stage stands."""
        return self.root / "stages" / f"{stage}.json"

    def lock(self, stage: str) -> Path:
        """There while a process works at a stage, so that no second one does."""
        return self.root / "stages" / f"{stage}.lock"

    @property
    def launch(self) -> Path:
        """Who launched the run last, where, and with which process or job ids."""
        return self.root / "launch.json"

    @property
    def cancel_request(self) -> Path:
        """There while somebody asks the launcher to stop this run; the launcher removes it."""
        return self.root / "stages" / "cancel.json"

    @property
    def code(self) -> Path:
        """The folder of the snapshots of the code, one for each state it was submitted in."""
        return self.root / "code"

    @property
    def slurm(self) -> Path:
        """The folder of batch scripts, of where processes meet, and of starts counted."""
        return self.root / "slurm"

    def starts(self, stage: str) -> Path:
        """The starts of a stage on SLURM: when, where, and what each found done."""
        return self.slurm / f"{stage}.starts.json"

    @property
    def resubmitted(self) -> Path:
        """Jobs submitted anew where SLURM may not queue them again: ``old new`` a line."""
        return self.slurm / "resubmitted"

    @property
    def logs(self) -> Path:
        """The folder of the stages' logs."""
        return self.root / "logs"

    def log(self, stage: str) -> Path:
        """What a stage printed."""
        return self.logs / f"{stage}.log"

    def consumed_samples(self, rank: int) -> Path:
        """The samples each training step of one rank really consumed, one JSON object a line."""
        return self.logs / f"samples-rank{rank}.jsonl"


@dataclass(frozen=True)
class StudyPaths(RunPaths):
    """The files of a study: what its runs have in common, beside their directories.

    Of a run's files it has the code, ``launch.json``, and the report with its marker and log.
    """

    @property
    def record(self) -> Path:
        """The names of its runs and what is compared; no run has such a file."""
        return self.root / "study.json"

    def run(self, name: str) -> RunPaths:
        """One of its runs."""
        return self.beside(name)

    def comparison(self, name: str) -> Path:
        """The folder of a report that compares some of the runs."""
        return self.report / name


@dataclass(frozen=True)
class ShardPaths:
    """The files of one packed dataset."""

    root: Path

    @property
    def manifest(self) -> Path:
        """Counts, sizes, hashes, classes, fingerprint; written last, so it marks completeness."""
        return self.root / "manifest.json"

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
