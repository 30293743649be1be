"""Which epoch is best: a named rule over the validation scores, never the test scores."""

import math
from collections.abc import Sequence
from pathlib import Path

from cardamage.config.choice import Choice, parse_choice
from cardamage.config.experiment import Experiment, KeepEvery
from cardamage.errors import CheckpointError, ConfigError, ranges
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import Row, read_table


def best_epoch(metrics: Sequence[Row], select_by: str) -> int | None:
    """The epoch whose validation score is best; the earliest of equals; None when none has one.

    ``loss`` is best when lowest, every other score when highest.
    """
    sign = 1.0 if select_by == "loss" else -1.0
    ranked = [
        (sign * value, int(row["epoch"]))
        for row in metrics
        if not math.isnan(value := float(row[f"val_{select_by}"]))
    ]
    return min(ranked)[1] if ranked else None


def kept_epochs(experiment: Experiment, rows: Sequence[Row]) -> set[int]:
    """The epochs whose checkpoints ``train.keep`` lets stay, of those that ``rows`` tell of."""
    keep, epochs = experiment.train.keep, range(1, len(rows) + 1)
    if keep == "all":
        return set(epochs)
    best = best_epoch(rows, experiment.test.select_by) or len(rows)
    every = keep.every if isinstance(keep, KeepEvery) else len(rows)
    return {epoch for epoch in epochs if epoch % every == 0} | {best, len(rows)}


def rule(select_by: str) -> str:
    """The rule in words, for tables and reports."""
    return f"{'lowest' if select_by == 'loss' else 'highest'} validation {select_by}"


def choose_checkpoint(run: RunPaths, choice: str, select_by: str) -> tuple[int, Path]:
    """As :func:`resolve`, for a choice as a person types it.

    Raises:
        ConfigError: ``choice`` is neither ``best`` nor ``last`` nor an epoch.
        CheckpointError: the run has no such checkpoint.
        RunError: ``best`` is asked for and ``metrics.csv`` is missing or damaged.
    """
    if (wanted := parse_choice(choice)) is None:
        raise ConfigError(
            f'--checkpoint "{choice}" is unknown; allowed: best, last, or an epoch from 1'
        )
    return resolve(run, wanted, select_by)


def resolve(run: RunPaths, wanted: Choice, select_by: str) -> tuple[int, Path]:
    """The epoch and file of a run's checkpoint; ``best`` goes by the score ``select_by``.

    Raises:
        CheckpointError: the run has no such checkpoint.
        RunError: ``best`` is asked for and ``metrics.csv`` is missing or damaged.
    """
    there = run.finished_checkpoints()
    if not there:
        raise CheckpointError(
            f"{run.root} has no checkpoints; train it first: cardamage train {run.root}"
        )
    match wanted:
        case "best":
            epoch = best_epoch(read_table(run.metrics), select_by)
            if epoch is None:
                raise CheckpointError(
                    f"no epoch of {run.root} has a validation {select_by}, so none is best; "
                    f"choose last, or the epoch: one of {ranges(there)}"
                )
        case "last":
            epoch = max(there)
        case _:
            epoch = wanted
    if epoch not in there:
        raise CheckpointError(
            f"{run.root} has no checkpoint of epoch {epoch}; choose one of {ranges(there)}"
        )
    return epoch, there[epoch]
