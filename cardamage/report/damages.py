"""The section on damages: found, missed and falsely marked, by class and size, and how sure.

Definitions are those of :mod:`cardamage.evaluation.damages`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardamage.evaluation.damages import (
    BOUNDS,
    SHARE,
    SIZES,
    UNIT,
    Damages,
    calibration_error,
    presence_curve,
)
from cardamage.evaluation.intervals import Estimate, ratio
from cardamage.evaluation.results import TestResult
from cardamage.labels import colour
from cardamage.report import wording

_POINTS = 200  # of a drawn curve, at most


@dataclass(frozen=True)
class Cell:
    """Damages of one class and size: ``found`` of ``damages``, and ``false`` of ``marks``."""

    damages: int
    found: int
    marks: int
    false: int

    @property
    def found_share(self) -> float:
        """Share of the damages that are found; NaN without any."""
        return self.found / self.damages if self.damages else float("nan")

    @property
    def false_share(self) -> float:
        """Share of the marks that are false; NaN without any."""
        return self.false / self.marks if self.marks else float("nan")


@dataclass(frozen=True)
class Line:
    """A curve of a plot from 0 to 1 on both axes; NaN is not drawn.

    Attributes:
        points: x and y of each point.
    """

    name: str
    points: list[tuple[float, float]]


def damage_words(result: TestResult) -> str | None:
    """What a checkpoint does in one sentence, such as "finds about 7 of 10 damages; ..."."""
    if result.damages is None:
        return None
    total = _cell(result.damages.counts[:, 0].sum(axis=(0, 1)))
    if not total.damages:
        found = "there is no damage to find"
    elif total.damages > 1 and total.found in (0, total.damages):
        found = f"finds {'all' if total.found else 'none of the'} {total.damages} damages"
    else:
        found = f"finds {_of_ten(total.found, total.damages)} damages"
    if not total.marks:
        return f"{found}; it marks nothing"
    if total.marks > 1 and total.false in (0, total.marks):
        return f"{found}; {'all' if total.false else 'none'} of its {total.marks} marks are false"
    return f"{found}; {_of_ten(total.false, total.marks)} marks are false"


def found_and_false(result: TestResult) -> tuple[Estimate, Estimate] | None:
    """Share of damages found and of marks that are false; None where they were not counted."""
    if result.damages is None:
        return None
    by_image = result.damages.counts[:, 0].sum(axis=1, dtype=np.int64)
    return ratio(by_image[:, 1], by_image[:, 0]), ratio(by_image[:, 3], by_image[:, 2])


def damage_section(result: TestResult) -> dict[str, Any] | None:
    """What the page tells of damages; None for a result of before they were counted."""
    found, shares = result.damages, found_and_false(result)
    if found is None or shares is None:
        return None
    is_damaged = found.counts[:, 0, :, 0].sum(axis=1) > 0
    totals = found.counts.sum(axis=0, dtype=np.int64)
    curve = presence_curve(found.presence, is_damaged)
    every = max(1, len(curve.thresholds) // _POINTS)
    by_image = found.counts[:, 0].sum(axis=1, dtype=np.int64)
    at_half = presence_at(found.presence, is_damaged, 0.5)
    return {
        "words": damage_words(result),
        "share": SHARE,
        "bounds": [wording.percent(bound) for bound in BOUNDS],
        "sizes": [*SIZES, "all sizes"],
        "rows": _rows(totals, result.class_names),
        "found": shares[0],
        "false": shares[1],
        "false_on_sound": int(by_image[~is_damaged, 2].sum()),
        "damaged": int(is_damaged.sum()),
        "sound": int((~is_damaged).sum()),
        "at_half": at_half,
        "presence_lines": [
            Line("sensitivity", _points(curve.thresholds, curve.sensitivity, every)),
            Line("specificity", _points(curve.thresholds, curve.specificity, every)),
        ],
        "calibration_error": calibration_error(found.reliability),
        "reliability_lines": [Line("model", _reliability(found))],
    }


def presence_at(
    presence: NDArray[np.float32], is_damaged: NDArray[np.bool_], threshold: float
) -> tuple[Estimate, Estimate]:
    """Sensitivity and specificity at one threshold, with their intervals over the photos."""
    called = presence >= threshold
    return (
        ratio((called & is_damaged).astype(np.int64), is_damaged.astype(np.int64)),
        ratio((~called & ~is_damaged).astype(np.int64), (~is_damaged).astype(np.int64)),
    )


def damage_table(result: TestResult) -> list[dict[str, str | int | float]]:
    """The counts by class and size, as rows of a table."""
    if result.damages is None:
        return []
    totals = result.damages.counts.sum(axis=0, dtype=np.int64)
    return [
        {
            "class": row["name"],
            "size": size,
            "damages": cell.damages,
            "found": cell.found,
            "marks": cell.marks,
            "false": cell.false,
        }
        for row in _rows(totals, result.class_names)
        for size, cell in zip((*SIZES, "all"), row["cells"], strict=True)
    ]


def _rows(totals: NDArray[np.int64], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class, and one of all damage as one class where there are several."""
    numbers = range(1 if len(class_names) == 2 else 0, len(class_names))
    return [
        {
            "name": class_names[number] if number else "any damage",
            "rgb": colour(number) if number else None,
            "cells": [_cell(size) for size in (*totals[number], totals[number].sum(axis=0))],
        }
        for number in numbers
    ]


def _cell(outcomes: NDArray[np.int64]) -> Cell:
    return Cell(*map(int, outcomes))


def _of_ten(part: int, whole: int) -> str:
    """A share in tenths, which people grasp; small numbers as they are."""
    tenths = round(10 * part / whole)
    is_rare = tenths in (0, 10) and part not in (0, whole)
    if whole <= 10 or (is_rare and whole < 100):
        return f"{part} of {whole}"
    if is_rare:
        return f"{round(100 * part / whole) or 'less than 1'} of 100"
    return f"about {tenths} of 10"


def _points(
    x: NDArray[np.float64], y: NDArray[np.float64], every: int
) -> list[tuple[float, float]]:
    kept = sorted({*range(0, len(x), every), len(x) - 1})
    return [(float(x[i]), float(y[i])) for i in kept if not isnan(y[i])]


def _reliability(found: Damages) -> list[tuple[float, float]]:
    """Mean probability and share of foreground of each bin that has pixels."""
    return [
        (total / UNIT / pixels, foreground / pixels)
        for pixels, foreground, total in found.reliability.tolist()
        if pixels
    ]
