"""The report that compares several runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

from cardamage.metrics import HEADLINES
from cardamage.report import figures, wording
from cardamage.report.notices import comparison_notices, run_notices
from cardamage.report.page import Illustration, Report, pngs, render
from cardamage.report.panels import drawn_scores
from cardamage.report.results import RunResults
from cardamage.report.run import optimiser
from cardamage.report.statistics import Estimate, comparable, paired_differences
from cardamage.selection import rule


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


def comparison_report(runs: Sequence[RunResults]) -> Report:
    """Render the comparison of several runs.

    Which run leads is decided as the epoch of each run is: by the validation score of the first
    run's rule, never by the test split.
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
    notices = comparison_notices(runs, labels)
    is_fair = all(notice.level != "warning" for notice in notices)
    splits = {results.experiment.test.split for results in runs}
    rivals, unpaired = _rivals(runs, labels, leader)
    names, differing = differing_keys(runs)
    context = {
        "title": f"Comparison of {listed}",
        "labels": labels,
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
                words=f"{results.experiment.model.name}, {optimiser(results)}; "
                f"epoch {results.best} of {len(results.epochs)}",
                validation=_validation(results, select_by),
                estimates=[results.intervals[results.best][column] for column in HEADLINES],
                is_leader=is_fair and number == leader,
            )
            for number, (label, results) in enumerate(zip(labels, runs, strict=True))
        ],
        "rivals": rivals,
        "unpaired": unpaired,
        "images": runs[leader].images,
        "keys": names,
        "differing": differing,
        "predict_command": (
            f"python jobs/predict.py {shlex.quote(str(runs[leader].run.root))} --images PHOTOS "
            f"--checkpoint {runs[leader].best} --out OUT"
        ),
        "scores": scores,
        "validation": validation,
        "tests": tests,
    }
    return render("comparison", context, pngs([scores, validation, tests]))


def labels_of(runs: Sequence[RunResults]) -> list[str]:
    """What each run is called: the name of its directory, or the whole path where two are equal."""
    names = [results.run.root.resolve().name for results in runs]
    return [
        name if names.count(name) == 1 else str(results.run.root)
        for name, results in zip(names, runs, strict=True)
    ]


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
        if isinstance(value, dict) and value and f"{prefix}{key}" != "data.classes":
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat


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
