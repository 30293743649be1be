"""Which epoch is best: a named rule over the validation scores, never the test scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cardamage.tables import Row


def best_epoch(metrics: Sequence[Row], select_by: str) -> int | None:
    """The epoch whose validation score is best; the earliest of equals; None when none has one.

    Args:
        metrics: the rows of ``metrics.csv``.
        select_by: a score's name; ``loss`` is best when lowest, every other when highest.
    """
    sign = 1.0 if select_by == "loss" else -1.0
    ranked = [
        (sign * value, int(row["epoch"]))
        for row in metrics
        if not math.isnan(value := float(row[f"val_{select_by}"]))
    ]
    return min(ranked)[1] if ranked else None


def rule(select_by: str) -> str:
    """The rule in words, for tables and reports."""
    return f"{'lowest' if select_by == 'loss' else 'highest'} validation {select_by}"
