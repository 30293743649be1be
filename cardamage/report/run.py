"""The report of one run."""

from collections.abc import Sequence
from datetime import datetime
from math import nan
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from cardamage.config.recipe import ConstantSchedule, SegNet, SmpModel
from cardamage.errors import counted
from cardamage.evaluation.metrics import OF_CLASS
from cardamage.labels import colour
from cardamage.report import figures, labels, panels, wording
from cardamage.report.answer import run_answer
from cardamage.report.damages import damage_section, damage_table
from cardamage.report.gallery import gallery_of_run
from cardamage.report.labels import shown_suspects, suspect_table, suspects_of
from cardamage.report.load import RunResults
from cardamage.report.notices import run_notices
from cardamage.report.page import Report, render
from cardamage.report.panels import illustrate
from cardamage.report.pictures import (
    ComparedPicture,
    file_names,
    picture_sheet,
    test_pictures,
)
from cardamage.report.plots import drawn_scores
from cardamage.report.tables import class_table, confusion_table, image_table
from cardamage.runs.attempts import cost, queued, total_usage
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import Row
from cardamage.runs.usage import usage_words


def run_report(results: RunResults, others: Sequence[tuple[str, str]] = ()) -> Report:
    """Render the report of one run.

    Args:
        others: name and address of the reports that compare it.

    Raises:
        DataError: a shard is damaged.
        RunError: the kept maps do not fit the shards.
    """
    experiment, best = results.experiment, results.best
    select_by, split = experiment.test.select_by, experiment.test.split
    images = counted(results.images, "image")
    illustrations = [
        illustrate(panel, results, select_by=select_by, split=split, images=images)
        for panel in panels.RUN
    ]
    pictures = test_pictures(results)
    files = {figure.name: figure.wide for figure in illustrations}
    if pictures:
        files["pictures"] = picture_sheet(
            [ComparedPicture(picture, (picture,)) for picture in pictures],
            ["prediction"],
            results.result.class_names,
        )
    files["confusion"] = figures.confusion(results.result)
    estimates = results.intervals[best]
    suspects, names = suspects_of(results), file_names(results)
    context = {
        "title": f"{experiment.name}: report",
        "run": experiment,
        "facts": facts(results),
        "classes": [
            (name, colour(i)) for i, name in enumerate(results.result.class_names) if i > 0
        ],
        "stages": [_stage(results, results.stages[name]) for name in ("pack", "train", "test")],
        "notices": run_notices(results),
        "best": best,
        "answer": run_answer(results),
        "rule": wording.rule_words(select_by),
        "split": split,
        "images_words": images,
        "tiles": [
            (column, wording.title(column), estimates[column]) for column in card_scores(results)
        ],
        "illustrations": illustrations,
        "select_by": select_by,
        "columns": results.columns,
        "class_columns": list(OF_CLASS),
        "rows": _epoch_rows(results),
        "class_rows": class_rows(results),
        "confusion": _confusion(results),
        "damages": damage_section(results.result),
        "agreement": results.manifest and results.manifest.label_agreement,
        "gallery": gallery_of_run(results),
        "suspects": suspects,
        "shown_suspects": shown_suspects(results, suspects, names),
        "sure": labels.SURE,
        "pictures": pictures,
        "provenance": _provenance(results),
        "others": others,
    }
    tables: dict[str, Sequence[Row]] = {
        "images": image_table(results.result, names),
        "labels_to_check": suspect_table(suspects, results.result.keys.tolist(), names),
        "classes": class_table(class_rows(results)),
        "damages": damage_table(results.result),
        "confusion": confusion_table(results.result),
    }
    return render("run", context, files, tables)


def card_scores(results: RunResults) -> list[str]:
    """The scores of the cards: with several classes their means first."""
    means = ["miou", "mdice"] if len(results.result.class_names) > 2 else []
    return list(dict.fromkeys([*means, *drawn_scores(results.experiment.test.select_by)]))


def facts(results: RunResults) -> list[tuple[str, str]]:
    """What the run is, in label and value."""
    experiment = results.experiment
    data, train = experiment.data, experiment.train
    source = Path(data.source).name  # where it lies is in the config
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
    precision = results.stages["train"].output.get("precision", train.mixed_precision)
    pairs = [
        ("Model", model_words(results)),
        ("Continues", continues(results)),
        ("Size", size_words(results)),
        ("Dataset", source),
        ("Images", counts),
        ("Image size", wording.size(data.image_size)),
        ("Pretrained", pretrained(results)),
        ("Loss", " + ".join(_section(loss) for loss in experiment.losses)),
        ("Optimiser", optimiser(results)),
        ("Averaged", f"over steps, decay {experiment.ema.decay:g}" if experiment.ema else None),
        ("Augmentation", ", ".join(s.name.replace("_", " ") for s in experiment.augment) or None),
        ("Batch size", str(train.batch_size)),
        ("Epochs", epochs),
        ("Precision", precision if precision != "no" else None),
        ("Seed", str(experiment.seed)),
        ("Trained", _trained(results.stages["train"])),
        ("Speed", _speed(results)),
        ("Peak memory", memory_words(results)),
        ("Cost", cost_words(results)),
    ]
    return [(label, value) for label, value in pairs if value is not None]


def model_words(results: RunResults) -> str:
    """The model, and whether it ends in the study's softmax."""
    model = results.experiment.model
    if isinstance(model, SmpModel):
        return f"{model.architecture} on {model.encoder}"
    is_softmax = isinstance(model, SegNet) and model.softmax_output
    return f"{model.name} with softmax output" if is_softmax else model.name


def optimiser(results: RunResults) -> str:
    """The optimiser, always with its learning rate, and the schedule unless it is constant."""
    optim, schedule = results.experiment.optim, results.experiment.schedule
    words = _section(optim, f"lr {optim.lr:g}")
    return words if schedule == ConstantSchedule() else f"{words}; {_section(schedule)}"


def _section(section: Any, *given: str) -> str:
    """A section of the config by its name, what is given, and what is not at its default."""
    others = section.model_dump(exclude={"name", "lr"}, exclude_defaults=True).items()
    words = [
        f"no {key}" if value is False else key if value is True else f"{key} {value}"
        for key, value in others
    ]
    return ", ".join([section.name, *given, *(word.replace("_", " ") for word in words)])


def pretrained(results: RunResults) -> str | None:
    """The pretrained weights that training began with, and where they came from."""
    found = results.pretrained
    return f"{found.weights} ({found.source}, sha256 {found.sha256[:12]})" if found else None


def continues(results: RunResults) -> str | None:
    """The checkpoint of another run that training began with, as in ``e2@5``."""
    origin = results.origin
    return f"{PurePath(origin.run).name}@{origin.epoch}" if origin else None


def _epoch_rows(results: RunResults) -> list[dict[str, Any]]:
    """The table of tests: of each checkpoint the score that chooses, then the headline scores."""
    select_by = results.experiment.test.select_by
    trained = set(results.epochs)
    return [
        {
            "epoch": epoch,
            "validation": results.validation(select_by, epoch) if epoch in trained else nan,
            "scores": [float(results.tested[column][number]) for column in results.columns],
        }
        for number, epoch in enumerate(results.tested_epochs)
    ]


def class_rows(results: RunResults) -> list[dict[str, Any]]:
    """The scores of each class but the background, of the chosen checkpoint."""
    total = results.result.counts.sum(axis=0)
    shares = total.sum(axis=1) / total.sum()
    estimates = results.intervals[results.best]
    return [
        {
            "name": name,
            "rgb": colour(i),
            "estimates": [estimates[f"{score}[{name}]"] for score in OF_CLASS],
            "share": float(shares[i]),
        }
        for i, name in enumerate(results.result.class_names)
        if i > 0
    ]


def _confusion(results: RunResults) -> list[dict[str, Any]]:
    """Each true class, and its pixels by predicted class: counts, and shares by row and column."""
    total = results.result.counts.sum(axis=0).astype(np.float64)
    by_row, by_column = (
        np.divide(total, sums, out=np.full_like(total, nan), where=sums > 0)
        for sums in (total.sum(axis=1, keepdims=True), total.sum(axis=0, keepdims=True))
    )
    cells = np.stack([by_row, by_column, total], axis=-1).tolist()
    names = results.result.class_names
    return [{"name": name, "cells": row} for name, row in zip(names, cells, strict=True)]


def _stage(results: RunResults, record: StageRecord) -> tuple[str, str, str]:
    """A stage, its state, and its time: the sum over its starts, without queueing."""
    seconds, details = cost(results.attempts, record.stage), []
    if seconds is None and results.attempts and record.stage == "pack":
        return record.stage, record.state, "shared: packed before or for another run"
    if seconds is None and record.started and record.ended:
        elapsed = datetime.fromisoformat(record.ended) - datetime.fromisoformat(record.started)
        seconds = elapsed.total_seconds()
    if seconds is not None:
        details.append(wording.duration(seconds))
    if record.attempts > 1:
        details.append(f"attempt {record.attempts}")
    return record.stage, record.state, ", ".join(details)


def _trained(record: StageRecord) -> str | None:
    if record.ended is None:
        return None
    where = f", on {record.host}" if record.host else ""
    return f"{record.ended.replace('T', ' ')[:16]} UTC{where}"


def size_words(results: RunResults) -> str | None:
    """Trained weights and bytes of the chosen checkpoint."""
    cost, words = results.cost, []
    if cost.parameters is not None:
        words.append(f"{cost.parameters:,} parameters")
    if cost.checkpoint_bytes is not None:
        words.append(wording.bytes_of(cost.checkpoint_bytes))
    return ", ".join(words) or None


def memory_words(results: RunResults) -> str | None:
    """The most memory that training held, where its events tell."""
    held = results.cost.peak_memory_bytes
    return None if held is None else wording.bytes_of(held)


def cost_words(results: RunResults) -> str | None:
    """What all starts of all stages took together, where it was measured."""
    seconds, waited = cost(results.attempts), queued(results.attempts)
    if seconds is None:
        return None
    words = [f"{wording.duration(seconds)} at work in {counted(len(results.attempts), 'start')}"]
    if waited is not None:
        words.append(f"{wording.duration(waited)} queued")
    return ", ".join([*words, *usage_words(total_usage(results.attempts))])


def _speed(results: RunResults) -> str | None:
    cost, words = results.cost, []
    if cost.images_per_second is not None:
        words.append(f"{cost.images_per_second:.1f} images/s in training")
    if cost.data_wait_share is not None:
        words.append(f"{wording.percent(cost.data_wait_share)} of the time waiting for data")
    if cost.seconds is not None:
        words.append(f"{wording.duration(cost.seconds)} in all")
    if cost.tested_per_second is not None:
        words.append(f"{cost.tested_per_second:.1f} images/s in testing")
    return ", ".join(words) or None


def _trained_by(results: RunResults) -> str | None:
    """Every start that trained: commit, steps, time, where; None where one did it all."""
    trained, words = [a for a in results.attempts if a.stage == "train"], []
    if len(trained) < 2:
        return None
    codes = results.provenance.get("codes", [])
    for attempt in trained:
        git = (codes[attempt.code].get("git") if attempt.code < len(codes) else None) or {}
        code = f"{str(git.get('commit'))[:10]}{' with changes' if git.get('dirty') else ''}"
        seconds = "" if attempt.seconds is None else f", {wording.duration(attempt.seconds)}"
        job = f", job {attempt.job}" if attempt.job else ""
        steps = f"steps {attempt.begun_at} to {attempt.ended_at}"
        words.append(f"{code}: {steps}{seconds} on {attempt.host}{job}")
    return "; ".join(words)


def _provenance(results: RunResults) -> list[tuple[str, str]]:
    known, origin = results.provenance, results.origin
    git, packages = (
        part if isinstance(part := known.get(key), dict) else {} for key in ("git", "packages")
    )
    commit = git.get("commit")
    if commit and git.get("dirty"):
        commit = f"{commit}, with uncommitted changes (kept in {results.run.provenance.name})"
    pairs = [
        ("Commit", commit),
        ("Branch", git.get("branch")),
        *((key.capitalize(), known.get(key)) for key in ("command", "host", "platform", "python")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in packages.items()) or None),
        ("Started", known.get("time")),
        ("Trained by", _trained_by(results)),
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
