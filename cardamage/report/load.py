"""Reading what a run left behind: everything a report shows, checked, in one object."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardamage.config.choice import Choice
from cardamage.config.experiment import Experiment
from cardamage.data.shards.manifest import Manifest, read_manifest
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import DataError, RunError
from cardamage.evaluation.intervals import Estimate, Resampled, estimates, resample
from cardamage.evaluation.metrics import HEADLINES
from cardamage.evaluation.results import TestResult, read_result
from cardamage.report.cost import Cost, read_cost
from cardamage.runs.attempts import Attempt, read_attempts
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.continued import Origin, Pretrained, read_origin, read_pretrained
from cardamage.runs.directory import as_tested
from cardamage.runs.paths import STAGES, RunPaths, ShardPaths
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.runs.tables import Row, read_table
from cardamage.system.console import log

CURVES = ("loss", "dice", "iou", "accuracy")
"""The scores that are drawn over the epochs."""

Columns = dict[str, NDArray[np.float64]]
"""A table by column: float64 of shape (rows,) each, NaN where undefined."""


@dataclass(frozen=True)
class Course:
    """The score that chooses, of each epoch on one split, redrawn with the same draws.

    Attributes:
        split: ``valid`` where training kept each image's counts there, else the tested split.
        epochs: by epoch, the scores by the one column of ``test.select_by``.
    """

    split: str
    epochs: dict[int, Resampled]


@dataclass(frozen=True)
class Trained:
    """What training has left behind so far.

    Attributes:
        metrics: ``metrics.csv``, one row per epoch.
        best: the epoch that is best on the validation split by ``test.select_by``.
    """

    run: RunPaths
    experiment: Experiment
    metrics: Columns
    best: int
    stages: dict[str, StageRecord]

    @property
    def epochs(self) -> list[int]:
        """The trained epochs."""
        return [int(epoch) for epoch in self.metrics["epoch"]]

    def validation(self, column: str, epoch: int) -> float:
        """A validation score of an epoch."""
        return float(self.metrics[f"val_{column}"][self.epochs.index(epoch)])


@dataclass(frozen=True)
class RunResults(Trained):
    """Everything a report shows of one run.

    Attributes:
        tested: the test table, one row per checkpoint, columns of numbers only.
        intervals: by epoch, every score on the test split with its 95 % interval.
        best: after :meth:`at`, the epoch asked for.
        sampled: the headline scores of the best epoch on the test split, redrawn.
        shards: the folder of the packed dataset; None when it is not on this machine.
        provenance: ``provenance.json``; empty when there is none.
        origin: the checkpoint of another run that training began with, if it was one.
        pretrained: the pretrained weights that it began with, if it did.
        attempts: every start that had something to do; none in a run of before they were kept.
    """

    tested: Columns
    intervals: dict[int, dict[str, Estimate]]
    result: TestResult
    shards: Path | None
    manifest: Manifest | None
    provenance: dict[str, Any]
    cost: Cost
    course: Course
    sampled: Resampled
    origin: Origin | None = None
    pretrained: Pretrained | None = None
    is_picked: bool = False
    attempts: Sequence[Attempt] = ()

    @property
    def tested_epochs(self) -> list[int]:
        """The epochs whose checkpoints are tested."""
        return [int(epoch) for epoch in self.tested["epoch"]]

    @property
    def columns(self) -> list[str]:
        """The headline scores: the one that chooses, means over several classes, the others."""
        means = ["miou", "mdice"] if len(self.result.class_names) > 2 else []
        return list(dict.fromkeys([self.experiment.test.select_by, *means, *HEADLINES]))

    @property
    def images(self) -> int:
        """How many images the test split has."""
        return len(self.result.counts)

    def tested_split(self) -> ShardReader:
        """The images that were tested.

        Raises:
            DataError: the shards are not here, or damaged.
        """
        if self.shards is None:
            raise DataError(f"the shards of {self.run.root} are not on this machine; pack it again")
        data, split = self.experiment.data, self.experiment.test.split
        return ShardReader(self.shards, split, storage=data.storage)

    def at(self, checkpoint: Choice | None) -> RunResults:
        """The same run with another checkpoint in the place of its best.

        Raises:
            RunError: it has no such checkpoint, or that is not tested.
        """
        if checkpoint is None:
            return self
        named = {"best": self.best, "last": self.epochs[-1]}
        epoch = checkpoint if isinstance(checkpoint, int) else named[checkpoint]
        if epoch not in self.tested_epochs:
            listed = ", ".join(map(str, self.tested_epochs))
            raise RunError(
                f"{self.run.root} has no tested checkpoint of epoch {epoch}; tested are: {listed}; "
                f"name one of them, or train and test it further"
            )
        path = self.run.test_counts(self.experiment.test.split, epoch)
        result = read_result(path)
        return replace(
            self,
            is_picked=True,
            best=epoch,
            result=result,
            sampled=resample(result).only(HEADLINES),
            cost=read_cost(self.run, epoch),
        )


def load_run(run: RunPaths, experiment: Experiment) -> RunResults:
    """Everything a report shows of ``run``.

    Args:
        experiment: its config; its ``test`` section says which split's tests are read and by
            which rule the best epoch is chosen.

    Raises:
        RunError: the run is not trained or not tested, or a file of it is damaged.
        CheckpointError: the chosen checkpoint is damaged.
        DataError: the shards are there and their manifest is damaged.
    """
    where = shlex.quote(str(run.root))
    experiment = as_tested(run, experiment)
    split, select_by = experiment.test.split, experiment.test.select_by
    metrics = _read_metrics(run, select_by)
    table = run.test_table(split)
    test_command = f"cardamage test {where}"
    if not table.is_file():
        raise RunError(
            f'{run.root} is not tested on the split "{split}": it has no {table.name}; '
            f"run {test_command}"
        )
    tested = _read_columns(table, ["epoch"])
    if missing := [name for name in HEADLINES if name not in tested]:
        raise RunError(
            f"{table} has no column {missing[0]}: it was tested before that score was there, or "
            f"is damaged; run {test_command}, which writes it again"
        )
    best = _best(run, _usable(run, metrics, tested, f"val_{select_by}"), select_by)
    if best not in tested["epoch"]:
        raise RunError(
            f"{table}: epoch {best}, the best on the validation split, is not tested yet; "
            f"run {test_command}"
        )
    tests = _read_tests(run, split, table, best, select_by)
    kept = _read_validations(run, tested["epoch"], metrics, split, select_by)
    shards, manifest = _find_shards(run)
    return RunResults(
        run=run,
        experiment=experiment,
        metrics=metrics,
        tested=tested,
        intervals=tests.intervals,
        best=best,
        result=tests.chosen,
        shards=shards,
        manifest=manifest,
        stages={stage: read_stage(run, stage) for stage in STAGES},
        provenance=_read_provenance(run.provenance),
        attempts=read_attempts(run),
        cost=read_cost(run, best),
        course=Course("valid", kept) if kept else Course(split, tests.course),
        sampled=tests.sampled,
        origin=read_origin(run),
        pretrained=read_pretrained(run),
    )


def load_trained(run: RunPaths, experiment: Experiment) -> Trained:
    """What training has left behind so far, tested or not.

    Raises:
        RunError: no epoch is trained, or a file is damaged.
    """
    select_by = experiment.test.select_by
    metrics = _read_metrics(run, select_by)
    score = f"val_{select_by}"
    pairs = zip(metrics["epoch"].tolist(), metrics[score].tolist(), strict=True)
    rows: list[Row] = [{"epoch": epoch, score: value} for epoch, value in pairs]
    return Trained(
        run=run,
        experiment=experiment,
        metrics=metrics,
        best=_best(run, rows, select_by),
        stages={stage: read_stage(run, stage) for stage in STAGES},
    )


def _read_metrics(run: RunPaths, select_by: str) -> Columns:
    if not run.metrics.is_file():
        record = read_stage(run, "train")
        if record.state == "failed" and record.error:
            raise RunError(f"{run.root} is not trained, as training failed: {record.error}")
        raise RunError(
            f"{run.root} is not trained: it has no {run.metrics.name}; run cardamage train "
            f"{shlex.quote(str(run.root))}"
        )
    needed = [f"{part}_{score}" for score in CURVES for part in ("train", "val")]
    return _read_columns(run.metrics, ["epoch", *needed, f"val_{select_by}"])


def _best(run: RunPaths, rows: Sequence[Row], select_by: str) -> int:
    best = best_epoch(rows, select_by)
    if best is None:
        raise RunError(
            f"{run.metrics}: no epoch has a validation {select_by}; "
            f"choose another rule, as in test.select_by=loss"
        )
    return best


def _read_columns(path: Path, needed: Sequence[str]) -> Columns:
    """The columns of a table that hold numbers, of which ``needed`` must be there."""
    rows = read_table(path)
    if not rows:
        raise RunError(f"{path} has no rows yet; run the stage that writes it to its end")
    if missing := [name for name in needed if name not in rows[0]]:
        raise RunError(
            f"{path} is damaged: it has no column {missing[0]}; "
            f"delete it and run the stage that writes it again"
        )
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        numbers = [value for value in values if not isinstance(value, str)]
        if len(numbers) == len(values):
            columns[name] = np.array(numbers, dtype=np.float64)
        elif name in needed:
            text = next(value for value in values if isinstance(value, str))
            raise RunError(
                f'{path} is damaged: column {name} holds "{text}", which is no number; '
                f"delete it and run the stage that writes it again"
            )
    if not all(epoch >= 1 and epoch.is_integer() for epoch in columns["epoch"].tolist()):
        raise RunError(f"{path} is damaged: an epoch is no whole number from 1; delete it")
    return columns


def _usable(run: RunPaths, metrics: Columns, tested: Columns, score: str) -> list[Row]:
    """The epochs to choose from: none whose checkpoint was deleted before it was tested."""
    usable: list[Row] = []
    for epoch, value in zip(metrics["epoch"].tolist(), metrics[score].tolist(), strict=True):
        path = run.checkpoint(int(epoch))
        if epoch in tested["epoch"] or path.is_file():
            usable.append({"epoch": epoch, score: value})
        else:
            log.warning("%s is gone and was never tested: left out", path)
    return usable


@dataclass(frozen=True)
class _Tests:
    """What the tests of all epochs give, and of the best one its counts."""

    chosen: TestResult
    sampled: Resampled
    intervals: dict[int, dict[str, Estimate]]
    course: dict[int, Resampled]


def _read_tests(run: RunPaths, split: str, table: Path, best: int, select_by: str) -> _Tests:
    """The tests of all epochs; one result is held at a time."""
    intervals, course = {}, {}
    chosen = None
    for row in read_table(table):
        epoch = int(row["epoch"])
        path = run.test_counts(split, epoch)
        result = read_result(path)
        if result.epoch != epoch or result.weights_sha256 != row.get("weights_sha256"):
            raise RunError(
                f"{path} is the test of other weights than {table} lists for epoch {epoch}; "
                f"delete both and run cardamage test {shlex.quote(str(run.root))}"
            )
        if not len(result.counts):
            raise RunError(f"{path} holds no images; delete it and test again")
        sampled = resample(result)
        intervals[epoch] = estimates(sampled)
        course[epoch] = sampled.only([select_by])
        if epoch == best:
            chosen = result, sampled.only(HEADLINES)
    assert chosen is not None, "the best epoch is in the table"  # noqa: S101 - checked before
    return _Tests(*chosen, intervals, course)


def _read_validations(
    run: RunPaths, epochs: NDArray[np.float64], metrics: Columns, split: str, select_by: str
) -> dict[int, Resampled]:
    """The score that chooses of each tested epoch on valid; empty unless all epochs have theirs.

    Counts that do not give the score in ``metrics.csv`` are of another training.
    """
    if split == "valid":
        return {}
    course = {}
    for epoch in map(int, epochs):
        try:
            result = read_result(run.validation_counts(epoch))
        except RunError:  # of a run from before they were kept, or damaged
            return {}
        sampled = resample(result).only([select_by])
        noted = metrics[f"val_{select_by}"][metrics["epoch"] == epoch]
        if not noted.size or not np.allclose(noted, sampled.values[select_by], equal_nan=True):
            return {}
        course[epoch] = sampled
    return course


def _find_shards(run: RunPaths) -> tuple[Path | None, Manifest | None]:
    """The packed dataset, or None when the run was brought here without it."""
    folder = read_stage(run, "pack").output.get("shards")
    if not isinstance(folder, str) or not ShardPaths(Path(folder)).manifest.is_file():
        return None, None
    return Path(folder), read_manifest(ShardPaths(Path(folder)))


def _read_provenance(path: Path) -> dict[str, Any]:
    try:
        return {**json.loads(path.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error}); delete it") from None
