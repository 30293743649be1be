"""How firm the choice of an epoch is: its rivals, other rules, and what the test split promises."""

from dataclasses import dataclass
from math import isnan, nan

import numpy as np

from cardamage.evaluation.intervals import difference, holm, p_value
from cardamage.evaluation.metrics import scores
from cardamage.report.load import RunResults
from cardamage.runs.checkpoints import best_epoch

ALPHA = 0.05
"""Differences with a corrected p-value below this are more than chance."""

RULES = ("miou", "mdice", "dice_fg", "dice", "loss")
"""The rules beside which a choice is set, and the last epoch."""


@dataclass(frozen=True)
class OtherChoice:
    """What other rules would have picked.

    Attributes:
        epoch: the one that all of ``rules`` pick.
        score: its test score by the run's own rule; NaN where it is not tested.
        gain: that minus the test score of the chosen epoch.
    """

    rules: tuple[str, ...]
    epoch: int
    score: float
    gain: float


def other_choices(results: RunResults) -> list[OtherChoice]:
    """The epochs that other rules on the validation split would have picked, by epoch."""
    column = results.experiment.test.select_by
    picked: dict[int, list[str]] = {}
    for rule in RULES:
        if rule == column or f"val_{rule}" not in results.metrics:
            continue
        values = results.metrics[f"val_{rule}"].tolist()
        rows = [
            {"epoch": epoch, f"val_{rule}": value}
            for epoch, value in zip(results.epochs, values, strict=True)
        ]
        if (epoch := best_epoch(rows, rule)) is not None:
            picked.setdefault(epoch, []).append(rule)
    picked.setdefault(results.epochs[-1], []).append("last epoch")
    tested = dict(zip(results.tested_epochs, results.tested[column].tolist(), strict=True))
    return [
        OtherChoice(tuple(rules), epoch, s := tested.get(epoch, nan), s - tested[results.best])
        for epoch, rules in sorted(picked.items())
    ]


def alike_epochs(results: RunResults) -> list[int]:
    """The tested epochs whose score cannot be told from that of the chosen one.

    By the paired bootstrap on the images of :attr:`RunResults.course`, with Holm's correction for
    the number of epochs.
    """
    column, course = results.experiment.test.select_by, results.course.epochs
    others = [epoch for epoch in course if epoch != results.best]
    found = [p_value(difference(course[results.best], course[epoch]), column) for epoch in others]
    return [e for e, p in zip(others, holm(found), strict=True) if p >= ALPHA]


def promised_too_much(results: RunResults) -> tuple[int, float]:
    """The epoch that tests best, and by how much its test score is above that of the chosen one.

    That much choosing on the test split would have flattered the score, at the least.
    """
    column = results.experiment.test.select_by
    sign = -1.0 if column == "loss" else 1.0
    values = sign * results.tested[column]
    best = int(np.nanargmax(values)) if not np.isnan(values).all() else 0
    chosen = values[results.tested_epochs.index(results.best)]
    return results.tested_epochs[best], float(values[best] - chosen)


@dataclass(frozen=True)
class Influence:
    """A score without its most influential image, which ``image`` numbers from 0."""

    image: int
    without: float


def most_influential(results: RunResults, column: str) -> Influence | None:
    """The image without which a score changes most; None with one image, or none defined."""
    without, value = results.sampled.without[column], results.sampled.values[column]
    change = np.abs(without - value)
    if isnan(value) or np.isnan(change).all():
        return None
    image = int(np.nanargmax(change))
    return Influence(image, float(without[image]))


def best_constant(results: RunResults, column: str) -> tuple[str, float]:
    """The class that, predicted for every pixel, scores best on these images, and its score.

    NaN where no constant answer has a score.
    """
    names = results.result.class_names
    true = results.result.counts.sum(axis=2)
    found = {}
    for i, name in enumerate(names):
        constant = np.zeros_like(results.result.counts)
        constant[:, :, i] = true
        found[name] = scores(constant, np.zeros(len(true)), names)[column]
    defined = {name: value for name, value in found.items() if not isnan(value)}
    if not defined:
        return names[0], nan
    best = max(defined, key=lambda name: defined[name])
    return best, defined[best]
