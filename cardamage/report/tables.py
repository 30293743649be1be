"""The tables that lie beside a report, as CSV: per image, per class, per run, and confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cardamage.evaluation.intervals import Estimate
from cardamage.evaluation.metrics import OF_CLASS, dice_of_foreground, scores_per_image
from cardamage.evaluation.results import TestResult
from cardamage.report.load import RunResults
from cardamage.runs.tables import Row


def image_table(
    result: TestResult, file_names: Sequence[str]
) -> list[dict[str, str | int | float]]:
    """The scores of each image, as rows of a table; ``file_names`` are in the order of the split.

    ``presence`` is how sure the model is that the photo shows damage at all.
    """
    counts = result.counts
    scored = scores_per_image(counts, result.loss)
    pixels = counts.sum(axis=(1, 2))
    truth = 1 - counts[:, 0, :].sum(axis=1) / pixels
    predicted = 1 - counts[:, :, 0].sum(axis=1) / pixels
    defined = ~np.isnan(dice_of_foreground(counts))
    rows: list[dict[str, str | int | float]] = []
    for number, (key, name) in enumerate(zip(result.keys.tolist(), file_names, strict=True)):
        row: dict[str, str | int | float] = {"key": key, "file_name": name}
        row |= {column: float(values[number]) for column, values in scored.items()}
        row |= {"true_share": float(truth[number]), "predicted_share": float(predicted[number])}
        row["is_empty"] = int(not defined[number])
        if found := result.damages:
            totals = found.counts[number, 0].sum(axis=0).tolist()
            row |= dict(zip(("damages", "found", "marks", "false"), totals, strict=True))
            row["presence"] = float(found.presence[number])
        rows.append(row)
    return rows


def confusion_table(result: TestResult) -> list[dict[str, str | int | float]]:
    """Pixels by true and predicted class: counts, and shares of the true and predicted class."""
    total = result.counts.sum(axis=0, dtype=np.int64)
    rows, columns = total.sum(axis=1), total.sum(axis=0)
    return [
        {
            "truth": true_name,
            "predicted": predicted_name,
            "pixels": int(total[t, p]),
            "share_of_truth": float(total[t, p] / rows[t]) if rows[t] else float("nan"),
            "share_of_predicted": float(total[t, p] / columns[p]) if columns[p] else float("nan"),
        }
        for t, true_name in enumerate(result.class_names)
        for p, predicted_name in enumerate(result.class_names)
    ]


def class_table(classes: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The scores of each class with their intervals, from the rows that the page shows."""
    return [
        {
            "class": row["name"],
            **_with_bounds(dict(zip(OF_CLASS, row["estimates"], strict=True))),
            "share_of_pixels": row["share"],
        }
        for row in classes
    ]


def run_table(
    runs: Sequence[RunResults], labels: Sequence[str], columns: Sequence[str]
) -> list[Row]:
    """The test scores of each chosen checkpoint with their intervals, and what it cost."""
    rows: list[Row] = []
    for label, results in zip(labels, runs, strict=True):
        estimates = results.intervals[results.best]
        rows.append(
            {
                "run": label,
                "epoch": results.best,
                **_with_bounds({column: estimates[column] for column in columns}),
                **{
                    key: "" if value is None else value for key, value in vars(results.cost).items()
                },
            }
        )
    return rows


def _with_bounds(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Each estimate as three columns: its value and the ends of its interval."""
    return {
        f"{column}{end}": value
        for column, estimate in estimates.items()
        for end, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high))
    }
