"""The report that compares several runs."""

import shlex
from collections.abc import Mapping, Sequence
from itertools import compress
from math import isnan, nan
from typing import Any

from cardamage.evaluation.intervals import paired_differences
from cardamage.evaluation.metrics import HEADLINES, OF_CLASS
from cardamage.report import figures, wording
from cardamage.report.gallery import gallery_of_runs
from cardamage.report.load import RunResults
from cardamage.report.notices import Notice, comparison_notices, is_usable, run_notices
from cardamage.report.page import Report, render
from cardamage.report.panels import COMPARISON, SCORES, illustrate
from cardamage.report.pictures import compared_pictures, contact_sheet_png, tested_alike
from cardamage.report.run import class_rows, continues, model_words, optimiser
from cardamage.runs.checkpoints import rule

_CHOSEN = "Each run enters with the epoch that is best by its own rule on the validation split."
_PICKED = "The checkpoints were named; each label ends in its epoch."


def comparison_report(runs: Sequence[RunResults], notes: Sequence[Notice] = ()) -> Report:
    """Render the comparison of several runs, each with its chosen checkpoint.

    Which run leads is decided as the epoch of each run is: by the validation score of the first
    run's rule, never by the test split. Where a checkpoint was named (:meth:`RunResults.at`), the
    curves over the epochs are left out: a run may then be there several times.

    Raises:
        DataError: a shard is damaged.
        RunError: kept maps do not fit the shards.
    """
    labels = labels_of(runs)
    select_by = runs[0].experiment.test.select_by
    leader = leading(runs, select_by)
    splits = {results.experiment.test.split for results in runs}
    split = splits.pop() if len(splits) == 1 else "tested"
    is_picked = any(results.is_picked for results in runs)
    illustrations = [
        illustrate(panel, runs, labels, select_by=select_by, split=split)
        for panel in (SCORES, *(() if is_picked else COMPARISON))
    ]
    pictures = compared_pictures(runs)
    files = {figure.name: figure.wide for figure in illustrations}
    if pictures:
        files["pictures"] = contact_sheet_png(pictures, labels, runs[0].result.class_names)
    notices = [*comparison_notices(runs, labels), *notes]
    is_fair = all(notice.level != "warning" for notice in notices)
    rivals, unpaired = _rivals(runs, labels, leader)
    names, differing = differing_keys(runs)
    alike = [tested_alike(runs[leader], results) for results in runs]
    context = {
        "title": f"Comparison of {', '.join(labels)}",
        "labels": labels,
        "is_picked": is_picked,
        "entering": _PICKED if is_picked else _CHOSEN,
        "leader": labels[leader],
        "leads": "leads" if is_usable(runs[leader]) else "is the best so far, and not usable yet",
        "rule": rule(select_by),
        "select_by": select_by,
        "notices": notices,
        "is_fair": is_fair,
        "split": split,
        "best_validation": _validation(runs[leader], select_by),
        "run_notices": [
            (label, notice)
            for label, results in zip(labels, runs, strict=True)
            for notice in run_notices(results)
            if notice.level == "warning"
        ],
        "columns": list(HEADLINES),
        "class_columns": list(OF_CLASS),
        "rows": [
            {
                "label": label,
                "colour": figures.run_colour(number),
                "words": _words(results),
                "validation": _validation(results, select_by),
                "estimates": [results.intervals[results.best][column] for column in HEADLINES],
                "is_leader": is_fair and number == leader,
            }
            for number, (label, results) in enumerate(zip(labels, runs, strict=True))
        ],
        "classes": _class_lines(runs),
        "pictures": pictures,
        "gallery": gallery_of_runs(
            list(compress(runs, alike)), list(compress(labels, alike)), sum(alike[:leader])
        ),
        "rivals": rivals,
        "unpaired": unpaired,
        "images": runs[leader].images,
        "keys": names,
        "differing": differing,
        "predict_command": (
            f"cardamage predict {shlex.quote(str(runs[leader].run.root))} --images PHOTOS "
            f"--checkpoint {runs[leader].best} --out OUT"
        ),
        "illustrations": illustrations,
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
        flat(results.experiment.model_dump(mode="json", exclude={"name"})) for results in runs
    ]
    keys = dict.fromkeys(key for config in configs for key in config)
    table = {key: [config.get(key, wording.UNDEFINED) for config in configs] for key in keys}
    differing = {key: row for key, row in table.items() if len(set(row)) > 1}
    return list(differing), list(differing.values())


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The settings of a config, as texts by dotted key."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if value is None:  # left out, such as continue_from
            continue
        if isinstance(value, dict) and value and f"{prefix}{key}" != "data.classes":
            found.update(flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def _words(results: RunResults) -> str:
    """What a run is, in small print."""
    words = f"{model_words(results)}, {optimiser(results)}; epoch {results.best} of "
    words += str(len(results.epochs))
    return f"{words}, continues {source}" if (source := continues(results)) else words


def _class_lines(runs: Sequence[RunResults]) -> list[list[dict[str, Any]]]:
    """Of each class the scores in every run; none where the runs have other classes."""
    if len({results.result.class_names for results in runs}) > 1:
        return []
    return [list(lines) for lines in zip(*map(class_rows, runs), strict=True)]


def _validation(results: RunResults, select_by: str) -> float:
    column = f"val_{select_by}"
    return results.validation(select_by, results.best) if column in results.metrics else nan


def _rivals(
    runs: Sequence[RunResults], labels: Sequence[str], leader: int
) -> tuple[list[dict[str, Any]], list[str]]:
    """The leader's lead over each other run, and the runs that were tested on other images."""
    rivals, unpaired = [], []
    first = runs[leader]
    for label, results in zip(labels, runs, strict=True):
        if results is first:
            continue
        if not tested_alike(first, results):
            unpaired.append(label)
            continue
        found = paired_differences(first.result, results.result)
        rivals.append({"label": label, "differences": [found[column] for column in HEADLINES]})
    return rivals, unpaired
