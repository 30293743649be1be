"""Runs that differ in the seed or the fold alone, taken together as repeats of one setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan
from statistics import fmean, stdev
from typing import Any

from cardamage.evaluation.intervals import Resampled, pool, same_truth
from cardamage.report.load import RunResults
from cardamage.report.wording import UNDEFINED, shortened

REPEATED = ("seed", "data.folds.fold")
"""The keys whose values make repeats of one setting."""

_MOST_KEYS = 3  # in the name of a setting


@dataclass(frozen=True)
class Group:
    """The runs of one setting.

    Attributes:
        numbers: of its runs in the comparison, from 0.
        settings: what sets it apart from the other groups, by dotted key.
    """

    label: str
    numbers: tuple[int, ...]
    runs: tuple[RunResults, ...]
    settings: Mapping[str, str]

    def validations(self, column: str) -> list[float]:
        """The validation score of each run's chosen epoch; NaN where it has none."""
        return [
            run.validation(column, run.best) if f"val_{column}" in run.metrics else nan
            for run in self.runs
        ]

    def validation(self, column: str) -> float:
        """Their mean; NaN where a run has none."""
        return fmean(self.validations(column))

    def spread(self, column: str) -> float:
        """Their standard deviation; NaN of one run."""
        return _spread(self.validations(column))

    def tested_spread(self, column: str) -> float:
        """The standard deviation of the runs' test scores; NaN of one run."""
        return _spread([run.sampled.values[column] for run in self.runs])

    def sampled(self) -> Resampled | None:
        """The mean test scores, redrawn over images and runs; None where the images differ."""
        first = self.runs[0]
        if not all(same_images(first, run) for run in self.runs[1:]):
            return None
        return pool([run.sampled for run in self.runs], seed=self.numbers[0])

    def best(self, column: str) -> int:
        """Which of its runs has the best validation score; the first of equals.

        Never one whose score is undefined, where another's is not.
        """
        values = self.validations(column)
        sign = 1.0 if column == "loss" else -1.0
        ranks = [(isnan(v), 0.0 if isnan(v) else sign * v, i) for i, v in enumerate(values)]
        return min(ranks)[2]


def same_images(a: RunResults, b: RunResults) -> bool:
    """Whether two runs were tested on the same images, split and classes.

    The folds of one dataset are packed separately, so there the true pixels of each image decide.
    """
    if a.experiment.test.split != b.experiment.test.split or not same_truth(a.result, b.result):
        return False
    are_folds = a.experiment.data.folds is not None and b.experiment.data.folds is not None
    return are_folds or a.result.fingerprint == b.result.fingerprint


def group_runs(runs: Sequence[RunResults], labels: Sequence[str]) -> list[Group]:
    """The settings of a comparison, in the order of their first runs.

    Where a checkpoint was named, every entry stands for itself.
    """
    configs = [flat_config(results) for results in runs]
    is_picked = any(results.is_picked for results in runs)
    gathered: dict[object, list[int]] = {}
    for number, config in enumerate(configs):
        setting = frozenset(item for item in config.items() if item[0] not in REPEATED)
        again = configs[:number].count(config)  # the same run twice is no repeat
        gathered.setdefault(number if is_picked else (setting, again), []).append(number)
    firsts = [configs[numbers[0]] for numbers in gathered.values()]
    keys = [key for key in differing(firsts) if key not in REPEATED]
    return [
        Group(
            label=_label([labels[number] for number in numbers], first, keys),
            numbers=tuple(numbers),
            runs=tuple(runs[number] for number in numbers),
            settings={key: first.get(key, UNDEFINED) for key in keys},
        )
        for numbers, first in zip(gathered.values(), firsts, strict=True)
    ]


def flat_config(results: RunResults) -> dict[str, str]:
    """A run's config by dotted key, without its name."""
    return flat(results.experiment.model_dump(mode="json", exclude={"name"}))


def differing(configs: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """The keys that are not equal in all, with each one's value, a dash where it has none."""
    keys = dict.fromkeys(key for config in configs for key in config)
    table = {key: [config.get(key, UNDEFINED) for config in configs] for key in keys}
    return {key: row for key, row in table.items() if len(set(row)) > 1}


@dataclass(frozen=True)
class Grid:
    """A sweep over two keys.

    Attributes:
        cells: by row and column the number of the group there; None where there is none.
    """

    row_key: str
    column_key: str
    rows: list[str]
    columns: list[str]
    cells: list[list[int | None]]


def grid_of(groups: Sequence[Group]) -> Grid | None:
    """The grid that the groups fill; None unless exactly two keys vary, each over its values."""
    keys = list(groups[0].settings)
    if len(keys) != 2:
        return None
    rows, columns = (
        sorted({group.settings[key] for group in groups}, key=_numbers_first) for key in keys
    )
    if len(rows) < 2 or len(columns) < 2 or len(rows) + len(columns) > len(groups) + 1:
        return None
    row_key, column_key = keys
    there = {(g.settings[row_key], g.settings[column_key]): i for i, g in enumerate(groups)}
    cells = [[there.get((row, column)) for column in columns] for row in rows]
    return Grid(row_key, column_key, rows, columns, cells)


def _numbers_first(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _label(labels: Sequence[str], config: Mapping[str, str], keys: Sequence[str]) -> str:
    if len(labels) == 1:
        return labels[0]
    if not keys:
        return f"{labels[0]} and its repeats"
    if len(keys) > _MOST_KEYS:
        return f"{labels[0]} and {len(labels) - 1} more"
    return ", ".join(f"{key}={shortened(config.get(key, UNDEFINED))}" for key in keys)


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 and all(map(isfinite, values)) else nan


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
