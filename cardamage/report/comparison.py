"""The report that compares several runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

from cardamage.metrics import HEADLINES
from cardamage.report import figures, wording
from cardamage.report.notices import Notice, comparison_notices, run_notices
from cardamage.report.page import Illustration, Report, pngs, render
from cardamage.report.panels import drawn_scores
from cardamage.report.results import RunResults
from cardamage.report.run import ClassRow, class_rows, continues, model_words, optimiser
from cardamage.report.side_by_side import compared_pictures, compared_sheet_png
from cardamage.report.statistics import Estimate, comparable, paired_differences
from cardamage.selection import rule

_CHOSEN = "Each run enters with the epoch that is best by its own rule on the validation split."
_PICKED = "The checkpoints were named; each label ends in its epoch."


@dataclass(frozen=True)
class RunRow:
    """A run's row in the table: its chosen checkpoint and the headline scores of its test."""

    label: str
    colour: str
    words: str
    validation: float
    estimates: list[Estimate]
    is_leader: bool


@dataclass(frozen=True)
class Rival:
    """How far the leading run is ahead of another on the same images, by score."""

    label: str
    differences: list[Estimate]


@dataclass(frozen=True)
class ClassLines:
    """A class and, for each run, the scores of that class in its chosen checkpoint."""

    name: str
    rgb: tuple[int, int, int]
    lines: list[ClassRow]


def comparison_report(runs: Sequence[RunResults], notes: Sequence[Notice] = ()) -> Report:
    """Render the comparison of several runs, each with its chosen checkpoint.

    Which run leads is decided as the epoch of each run is: by the validation score of the first
    run's rule, never by the test split. Where a checkpoint was named (:meth:`RunResults.at`), the
    curves over the epochs are left out: a run may then be there several times.

    Args:
        runs: what is compared.
        notes: what else has to be said.

    Raises:
        DataError: a shard is damaged.
        RunError: kept maps do not fit the shards.
    """
    labels = labels_of(runs)
    select_by = runs[0].experiment.test.select_by
    leader = leading(runs, select_by)
    named = ", ".join(wording.TITLES[column] for column in drawn_scores(select_by))
    listed = ", ".join(labels)
    scores = Illustration(
        "scores",
        figures.compared_scores(runs, labels, wide=True),
        figures.compared_scores(runs, labels, wide=False),
        f"Test scores with their intervals, {named}, of {listed}.",
    )
    validation = Illustration(
        "validation",
        figures.compared_curves(runs, labels, test=False, wide=True),
        figures.compared_curves(runs, labels, test=False, wide=False),
        f"Validation curves of {named} for {listed}.",
    )
    tests = Illustration(
        "tests",
        figures.compared_curves(runs, labels, test=True, wide=True),
        figures.compared_curves(runs, labels, test=True, wide=False),
        f"Test curves of {named} for {listed}.",
    )
    is_picked = any(results.is_picked for results in runs)
    illustrations = [scores] if is_picked else [scores, validation, tests]
    pictures = compared_pictures(runs)
    files = pngs(illustrations)
    if pictures:
        files["pictures"] = compared_sheet_png(pictures, labels, runs[0].result.class_names)
    notices = [*comparison_notices(runs, labels), *notes]
    is_fair = all(notice.level != "warning" for notice in notices)
    splits = {results.experiment.test.split for results in runs}
    rivals, unpaired = _rivals(runs, labels, leader)
    names, differing = differing_keys(runs)
    context = {
        "title": f"Comparison of {listed}",
        "labels": labels,
        "is_picked": is_picked,
        "entering": _PICKED if is_picked else _CHOSEN,
        "leader": labels[leader],
        "rule": rule(select_by),
        "select_by": select_by,
        "notices": notices,
        "is_fair": is_fair,
        "split": splits.pop() if len(splits) == 1 else "tested",
        "best_validation": _validation(runs[leader], select_by),
        "run_notices": [
            (label, notice)
            for label, results in zip(labels, runs, strict=True)
            for notice in run_notices(results)
            if notice.level == "warning"
        ],
        "columns": list(HEADLINES),
        "rows": [
            RunRow(
                label=label,
                colour=figures.run_colour(number),
                words=_words(results),
                validation=_validation(results, select_by),
                estimates=[results.intervals[results.best][column] for column in HEADLINES],
                is_leader=is_fair and number == leader,
            )
            for number, (label, results) in enumerate(zip(labels, runs, strict=True))
        ],
        "classes": _class_lines(runs),
        "pictures": pictures,
        "rivals": rivals,
        "unpaired": unpaired,
        "images": runs[leader].images,
        "keys": names,
        "differing": differing,
        "predict_command": (
            f"python jobs/predict.py {shlex.quote(str(runs[leader].run.root))} --images PHOTOS "
            f"--checkpoint {runs[leader].best} --out OUT"
        ),
        "illustrations": {illustration.name: illustration for illustration in illustrations},
    }
    return render("comparison", context, files)


def labels_of(runs: Sequence[RunResults]) -> list[str]:
    """What each run is called: the name of its directory, or the whole path where two are equal.

    The epoch follows where the checkpoint was named, as in ``e6@2``.
    """
    roots = {results.run.root.resolve() for results in runs}
    names = [root.name for root in roots]
    labels = []
    for results in runs:
        name = results.run.root.resolve().name
        label = name if names.count(name) == 1 else str(results.run.root)
        labels.append(f"{label}@{results.best}" if results.is_picked else label)
    return labels


def leading(runs: Sequence[RunResults], select_by: str) -> int:
    """Which run is best on its validation split; the first of equals, and never an undefined one.

    Args:
        runs: the runs.
        select_by: a score; ``loss`` is best when lowest, the others when highest.
    """
    sign = 1.0 if select_by == "loss" else -1.0

    def rank(number: int) -> tuple[bool, float]:
        value = _validation(runs[number], select_by)
        return isnan(value), 0.0 if isnan(value) else sign * value

    return min(range(len(runs)), key=rank)


def differing_keys(runs: Sequence[RunResults]) -> tuple[list[str], list[list[str]]]:
    """The keys of the configs that are not equal in all runs.

    Returns:
        Dotted keys, and for each key what each run has there, a dash where it has no such key.
    """
    configs = [
        _flat(results.experiment.model_dump(mode="json", exclude={"name"})) for results in runs
    ]
    keys = dict.fromkeys(key for config in configs for key in config)
    table = {key: [config.get(key, wording.UNDEFINED) for config in configs] for key in keys}
    differing = {key: row for key, row in table.items() if len(set(row)) > 1}
    return list(differing), list(differing.values())


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if value is None:  # left out, such as continue_from
            continue
        if isinstance(value, dict) and value and f"{prefix}{key}" != "data.classes":
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


def _words(results: RunResults) -> str:
    """What a run is, in small print."""
    words = f"{model_words(results)}, {optimiser(results)}; epoch {results.best} of "
    words += str(len(results.epochs))
    return f"{words}, continues {source}" if (source := continues(results)) else words


def _class_lines(runs: Sequence[RunResults]) -> list[ClassLines]:
    """Each class with the scores of every run; none where the runs have other classes."""
    names = runs[0].result.class_names
    if any(results.result.class_names != names for results in runs):
        return []
    tables = [class_rows(results) for results in runs]
    return [
        ClassLines(lines[0].name, lines[0].rgb, list(lines)) for lines in zip(*tables, strict=True)
    ]


def _validation(results: RunResults, select_by: str) -> float:
    column = f"val_{select_by}"
    return results.validation(select_by, results.best) if column in results.metrics else nan


def _rivals(
    runs: Sequence[RunResults], labels: Sequence[str], leader: int
) -> tuple[list[Rival], list[str]]:
    """The leader's lead over each other run, and the runs that were tested on other images."""
    rivals, unpaired = [], []
    first = runs[leader]
    for number, (label, results) in enumerate(zip(labels, runs, strict=True)):
        if number == leader:
            continue
        same_split = results.experiment.test.split == first.experiment.test.split
        if not same_split or not comparable(first.result, results.result):
            unpaired.append(label)
            continue
        differences = paired_differences(first.result, results.result)
        rivals.append(Rival(label, [differences[column] for column in HEADLINES]))
    return rivals, unpaired
