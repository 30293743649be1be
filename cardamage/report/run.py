"""The report of one run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import datetime
from math import isnan, nan
from pathlib import PurePath

import numpy as np

from cardamage.config import SegNet
from cardamage.labels import colour
from cardamage.metrics import HEADLINES
from cardamage.report import figures, wording
from cardamage.report.notices import run_notices
from cardamage.report.page import Illustration, Report, pngs, render
from cardamage.report.panels import drawn_scores
from cardamage.report.pictures import contact_sheet_png, test_pictures
from cardamage.report.results import RunResults
from cardamage.report.statistics import Estimate
from cardamage.selection import rule
from cardamage.stages import StageRecord


@dataclass(frozen=True)
class EpochRow:
    """A row of the table of tests: the score that chooses, then the headline scores."""

    epoch: int
    validation: float
    scores: list[float]


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes: dice, iou, precision and recall with their intervals."""

    name: str
    rgb: tuple[int, int, int]
    estimates: list[Estimate]
    share: float


@dataclass(frozen=True)
class ConfusionRow:
    """A true class, and which share of its pixels was predicted as each class."""

    name: str
    shares: list[float]


def run_report(results: RunResults) -> Report:
    """Render the report of one run.

    Raises:
        DataError: a shard is damaged.
        RunError: the kept maps do not fit the shards.
    """
    experiment, best = results.experiment, results.best
    select_by, split = experiment.test.select_by, experiment.test.split
    images_words = "1 image" if results.images == 1 else f"{results.images} images"
    named = ", ".join(wording.TITLES[column] for column in drawn_scores(select_by))
    curves = Illustration(
        "curves",
        figures.curves(results, wide=True),
        figures.curves(results, wide=False),
        f"Curves of {named} on the training and validation split over {len(results.epochs)} "
        f"epochs; epoch {best} is marked as the best.",
    )
    tests = Illustration(
        "tests",
        figures.tests(results, wide=True),
        figures.tests(results, wide=False),
        f"Curves of {named} on the {split} split over {len(results.tested_epochs)} checkpoints; "
        f"epoch {best} is marked as the one to use.",
    )
    pictures = test_pictures(results)
    files = pngs([curves, tests])
    if pictures:
        files["pictures"] = contact_sheet_png(pictures, results.result.class_names)
    run = shlex.quote(str(results.run.root))
    estimates = results.intervals[best]
    context = {
        "title": f"{experiment.name}: report",
        "run": experiment,
        "facts": facts(results),
        "classes": [
            (name, colour(i)) for i, name in enumerate(results.result.class_names) if i > 0
        ],
        "stages": [_stage(results.stages[name]) for name in ("pack", "train", "test")],
        "notices": run_notices(results),
        "best": best,
        "rule": rule(select_by),
        "best_validation": results.validation(select_by, best),
        "epoch_count": _counted(len(results.epochs), "epoch"),
        "split": split,
        "images_words": images_words,
        "tiles": [
            (column, wording.TITLES[column], estimates[column])
            for column in drawn_scores(select_by)
        ],
        "predict_command": (
            f"python jobs/predict.py {run} --images PHOTOS --checkpoint {best} --out OUT"
        ),
        "curves": curves,
        "tests": tests,
        "select_by": select_by,
        "columns": list(HEADLINES),
        "rows": _epoch_rows(results),
        "class_rows": class_rows(results),
        "confusion": _confusion(results),
        "pictures": pictures,
        "provenance": _provenance(results),
    }
    return render("run", context, files)


def facts(results: RunResults) -> list[tuple[str, str]]:
    """What the run is, in label and value."""
    experiment = results.experiment
    data, train = experiment.data, experiment.train
    source = data.source
    if data.subset < 1:
        which = "first" if data.subset_by == "name" else "stratified"
        source += f", {which} {wording.percent(data.subset)} of each split"
    counts = f"{results.images} in {experiment.test.split}"
    if results.manifest:
        counts = ", ".join(
            f"{record.samples} in {split}" for split, record in results.manifest.splits.items()
        )
    epochs = str(results.epochs[-1])
    if results.epochs[-1] < train.epochs:
        epochs += f" of {train.epochs}"
    pairs = [
        ("Model", model_words(results)),
        ("Continues", continues(results)),
        ("Parameters", f"{results.parameters:,}" if results.parameters is not None else None),
        ("Dataset", source),
        ("Images", counts),
        ("Image size", wording.size(data.image_size)),
        ("Optimiser", optimiser(results)),
        ("Batch size", str(train.batch_size)),
        ("Epochs", epochs),
        ("Precision", None if train.mixed_precision == "no" else train.mixed_precision),
        ("Seed", str(experiment.seed)),
        ("Trained", _trained(results.stages["train"])),
        ("Speed", _speed(results)),
    ]
    return [(label, value) for label, value in pairs if value is not None]


def model_words(results: RunResults) -> str:
    """The model, and whether it ends in the study's softmax."""
    model = results.experiment.model
    is_softmax = isinstance(model, SegNet) and model.softmax_output
    return f"{model.name} with softmax output" if is_softmax else model.name


def optimiser(results: RunResults) -> str:
    """The optimiser with what is not left at its default, and always its learning rate."""
    section = results.experiment.optim
    given = [f"lr {section.lr:g}"]
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        if key not in ("name", "lr") and value != field.default:
            given.append(f"{key.replace('_', ' ')} {value}")
    return f"{section.name}, {', '.join(given)}"


def continues(results: RunResults) -> str | None:
    """The checkpoint of another run that training began with, as in ``e2@5``."""
    origin = results.origin
    return f"{PurePath(origin.run).name}@{origin.epoch}" if origin else None


def _epoch_rows(results: RunResults) -> list[EpochRow]:
    select_by = results.experiment.test.select_by
    trained = set(results.epochs)
    return [
        EpochRow(
            epoch,
            results.validation(select_by, epoch) if epoch in trained else nan,
            [float(results.tested[column][number]) for column in HEADLINES],
        )
        for number, epoch in enumerate(results.tested_epochs)
    ]


def class_rows(results: RunResults) -> list[ClassRow]:
    """The scores of each class but the background, of the chosen checkpoint."""
    total = results.result.counts.sum(axis=0)
    shares = total.sum(axis=1) / total.sum()
    estimates = results.intervals[results.best]
    return [
        ClassRow(
            name,
            colour(i),
            [estimates[f"{score}[{name}]"] for score in ("dice", "iou", "precision", "recall")],
            float(shares[i]),
        )
        for i, name in enumerate(results.result.class_names)
        if i > 0
    ]


def _confusion(results: RunResults) -> list[ConfusionRow]:
    total = results.result.counts.sum(axis=0)
    rows = []
    for name, counts in zip(results.result.class_names, total, strict=True):
        whole = int(counts.sum())
        shares = counts / whole if whole else np.full(len(counts), nan)
        rows.append(ConfusionRow(name, shares.tolist()))
    return rows


def _stage(record: StageRecord) -> tuple[str, str, str]:
    details = []
    if record.started and record.ended:
        elapsed = datetime.fromisoformat(record.ended) - datetime.fromisoformat(record.started)
        details.append(wording.duration(elapsed.total_seconds()))
    if record.attempts > 1:
        details.append(f"attempt {record.attempts}")
    return record.stage, record.state, ", ".join(details)


def _trained(record: StageRecord) -> str | None:
    if record.ended is None:
        return None
    where = f", on {record.host}" if record.host else ""
    return f"{record.ended.replace('T', ' ')[:16]} UTC{where}"


def _speed(results: RunResults) -> str | None:
    speed = results.speed
    words = []
    if speed.images_per_second is not None:
        words.append(f"{speed.images_per_second:.1f} images/s in training")
    if speed.data_wait_share is not None and not isnan(speed.data_wait_share):
        words.append(f"{wording.percent(speed.data_wait_share)} of the time waiting for data")
    if speed.seconds is not None:
        words.append(f"{wording.duration(speed.seconds)} in all")
    return ", ".join(words) or None


def _provenance(results: RunResults) -> list[tuple[str, str]]:
    known, origin = results.provenance, results.origin
    git = known.get("git")
    git = git if isinstance(git, dict) else {}
    commit = git.get("commit")
    if commit and git.get("dirty"):
        commit = f"{commit}, with uncommitted changes (kept in {results.run.provenance.name})"
    packages = known.get("packages")
    versions = packages if isinstance(packages, dict) else {}
    pairs = [
        ("Commit", commit),
        ("Branch", git.get("branch")),
        ("Command", known.get("command")),
        ("Host", known.get("host")),
        ("Platform", known.get("platform")),
        ("Python", known.get("python")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in versions.items()) or None),
        ("Started", known.get("time")),
        ("Config", f"{results.run.config} (hash {results.experiment.hash()})"),
        (
            "Continued from",
            origin
            and f"epoch {origin.epoch} of {origin.run} (hash "
            f"{origin.config_hash}), weights {origin.weights_sha256}",
        ),
        ("Dataset fingerprint", results.result.fingerprint),
        ("Weights, SHA-256", results.result.weights_sha256),
    ]
    return [(label, str(value)) for label, value in pairs if value is not None]


def _counted(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"
