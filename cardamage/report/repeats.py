"""Runs that differ in the seed or the fold alone, taken together as repeats of one setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, isnan, log, nan
from statistics import fmean, stdev
from typing import Any

from cardamage.config import yaml12
from cardamage.config.augmentation import Augmentation
from cardamage.config.experiment import Experiment
from cardamage.config.recipe import Loss
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
    configs = flat_configs([results.experiment for results in runs])
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


def flat_configs(experiments: Sequence[Experiment]) -> list[dict[str, str]]:
    """Each config by dotted key, without its name.

    Lists are written as in YAML, their sections without what is at its default. Where one has a
    list of losses, that of each is written so.
    """
    has_lists = any(isinstance(experiment.loss, list) for experiment in experiments)
    configs = []
    for experiment in experiments:
        values = experiment.model_dump(mode="json", exclude={"name"})
        values["augment"] = [_as_written(each) for each in experiment.augment]
        if has_lists:
            values["loss"] = [_as_written(each) for each in experiment.losses]
        configs.append(_flat(values))
    return configs


def _as_written(section: Augmentation | Loss) -> dict[str, Any]:
    others = section.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
    return {"name": section.name, **others}


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


@dataclass(frozen=True)
class Sweep:
    """A sweep over the numbers of one key.

    Attributes:
        values: ascending, of each group in :attr:`groups`.
        is_log: whether their ratios are more even than their distances.
    """

    key: str
    values: list[float]
    groups: list[Group]
    is_log: bool


def sweep_of(groups: Sequence[Group]) -> Sweep | None:
    """The sweep that the groups make; None unless one key alone varies, over numbers."""
    keys = list(groups[0].settings)
    if len(keys) != 1 or len(groups) < 2:
        return None
    try:
        pairs = sorted(
            ((float(group.settings[keys[0]]), group) for group in groups), key=lambda pair: pair[0]
        )
    except ValueError:
        return None
    values = [value for value, _ in pairs]
    if not all(map(isfinite, values)) or len(set(values)) < len(values):
        return None
    is_log = values[0] > 0 and _unevenness([log(value) for value in values]) < _unevenness(values)
    return Sweep(keys[0], values, [group for _, group in pairs], is_log)


def _unevenness(values: Sequence[float]) -> float:
    """How far ascending values are from equal distances: their spread over their mean."""
    gaps = [b - a for a, b in pairwise(values)]
    return _spread(gaps) / fmean(gaps) if len(gaps) > 1 and fmean(gaps) > 0 else 0.0


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


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if value is None:  # left out, such as continue_from
            continue
        if isinstance(value, dict) and value and f"{prefix}{key}" != "data.classes":
            found.update(_flat(value, f"{prefix}{key}."))
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, str) else yaml12.inline(value)
    return found
