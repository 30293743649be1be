"""The figures of a report, as PNG and SVG files in memory, with colours for every eye.

Each figure comes ``wide``, with its plots in two columns, and narrow for a phone, in one.
"""

from collections.abc import Sequence
from math import isfinite, nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cardamage.evaluation.intervals import Estimate, interval
from cardamage.evaluation.results import TestResult
from cardamage.report.cost import pareto_front
from cardamage.report.load import RunResults, Trained
from cardamage.report.pictures import Drawing
from cardamage.report.plots import (
    INK,
    finite,
    frame,
    label_ends,
    line,
    mark_best,
    render_matrix,
    render_plots,
    ring,
)
from cardamage.report.repeats import Group, Sweep
from cardamage.report.wording import shortened, title

TRAIN, VALID, TEST = "#b5500b", "#0067a5", "#00795a"
"""The colour of each split, in every figure and on the page."""

_RUNS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9", "#444444")
_OTHER_RUN = "#c4cad0"
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)))


def run_colour(number: int) -> str:
    """The colour of a run among several; numbers count from 0."""
    return _RUNS[number % len(_RUNS)]


def named_runs(runs: Sequence[RunResults]) -> set[int]:
    """The runs whose curves have a colour and a name: of many the best on the validation split."""
    select_by = runs[0].experiment.test.select_by
    sign = -1.0 if select_by == "loss" else 1.0
    values = [sign * _validation(run, select_by) for run in runs]
    return set(np.argsort([-value for value in values], kind="stable")[: len(_RUNS)].tolist())


def _validation(run: RunResults, column: str) -> float:
    return run.validation(column, run.best) if f"val_{column}" in run.metrics else nan


def curves(results: Trained, *, wide: bool) -> Drawing:
    """Training and validation scores over the epochs, the best epoch marked."""

    def draw(axes: Axes, column: str) -> None:
        epochs = results.metrics["epoch"]
        validation = results.metrics[f"val_{column}"]
        lines = [("validation", VALID, validation)]
        if (training := results.metrics.get(f"train_{column}")) is not None:
            lines.insert(0, ("training", TRAIN, training))
        for _, colour, values in lines:
            line(axes, epochs, values, colour)
        frame(axes, epochs, [values for _, _, values in lines], column)
        mark_best(axes, results.best, epochs, validation, VALID)
        label_ends(axes, lines)

    return render_plots(
        results.experiment.test.select_by,
        draw,
        wide=wide,
        on_validation=True,
        labels=["validation"],
    )


def tests(results: RunResults, *, wide: bool) -> Drawing:
    """Test scores of every checkpoint with their 95 % intervals, the best epoch marked."""

    def draw(axes: Axes, column: str) -> None:
        epochs, values = results.tested["epoch"], results.tested[column]
        bounds = [results.intervals[epoch][column] for epoch in results.tested_epochs]
        low, high = np.array([b.low for b in bounds]), np.array([b.high for b in bounds])
        axes.vlines(epochs, low, high, color=TEST, alpha=0.35, linewidth=2.2)
        line(axes, epochs, values, TEST)
        frame(axes, epochs, [values, low, high], column)
        mark_best(axes, results.best, epochs, values, TEST)
        label_ends(axes, [("test", TEST, values)])

    return render_plots(results.experiment.test.select_by, draw, wide=wide, labels=["test"])


def confusion(result: TestResult) -> Drawing:
    """The confusion matrix: shares of the true class as shades, and pixels as numbers."""
    total = result.counts.sum(axis=0, dtype=np.int64)
    pixels = total.sum(axis=1, keepdims=True)
    shares = np.divide(total, pixels, out=np.full(total.shape, np.nan), where=pixels > 0)
    return render_matrix(shares, total, [shortened(name, 18) for name in result.class_names])


def compared_curves(
    runs: Sequence[RunResults], labels: Sequence[str], *, test: bool, wide: bool
) -> Drawing:
    """One plot per score, one line per run: on the validation split, or of every test."""
    named = named_runs(runs)

    def draw(axes: Axes, column: str) -> None:
        lines, epochs, drawn = [], [], []
        for number, (results, label) in enumerate(zip(runs, labels, strict=True)):
            table, name = (results.tested, column) if test else (results.metrics, f"val_{column}")
            if name not in table:
                continue
            colour, values = run_colour(number), table[name]
            epochs.append(table["epoch"])
            drawn.append(values)
            if number not in named:
                axes.plot(table["epoch"], finite(values), color=_OTHER_RUN, linewidth=1, zorder=1.5)
                continue
            dashes = _DASHES[number // len(_RUNS) % len(_DASHES)]
            line(axes, table["epoch"], values, colour, dashes)
            chosen = table["epoch"] == results.best
            ring(axes, table["epoch"][chosen], values[chosen], colour)
            lines.append((shortened(label, 18), colour, values))
        frame(axes, np.concatenate(epochs), drawn, column)
        label_ends(axes, lines)

    short = [shortened(label, 18) for label in labels]
    select_by = runs[0].experiment.test.select_by
    return render_plots(select_by, draw, wide=wide, on_validation=not test, labels=short)


def compared_scores(runs: Sequence[RunResults], labels: Sequence[str], *, wide: bool) -> Drawing:
    """The test scores of each run's chosen checkpoint with their intervals, one row per run."""

    def draw(axes: Axes, column: str) -> None:
        for number, results in enumerate(runs):
            estimate, colour = results.intervals[results.best][column], run_colour(number)
            axes.hlines(number, estimate.low, estimate.high, color=colour, alpha=0.4, linewidth=4)
            axes.plot(finite([estimate.value]), [number], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(runs)), [shortened(label, 22) for label in labels])
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.08)

    short = [shortened(label, 22) for label in labels]
    height_in = 0.1 + 0.26 * len(runs)
    select_by = runs[0].experiment.test.select_by
    return render_plots(select_by, draw, wide=wide, axes_height_in=height_in, ticks=short)


def compared_costs(runs: Sequence[RunResults], labels: Sequence[str], *, wide: bool) -> Drawing:
    """The validation score that chooses against training time, the Pareto front as a line."""
    select_by = runs[0].experiment.test.select_by
    seconds = [nan if (s := results.cost.seconds) is None else s for results in runs]
    unit, length = ("minutes", 60) if max(filter(isfinite, seconds), default=0) > 300 else ("s", 1)
    times = [each / length for each in seconds]
    values = [_validation(run, select_by) for run in runs]

    def draw(axes: Axes, column: str) -> None:
        axes.set_title(f"Validation {title(column)}")
        sign = -1.0 if column == "loss" else 1.0
        front = pareto_front(times, [sign * value for value in values])
        steps = sorted((times[i], values[i]) for i in front)
        if steps:
            axes.step(*zip(*steps, strict=True), where="post", color=INK, alpha=0.45, linewidth=1.2)
        named = []
        for number, label in enumerate(short):
            if not (isfinite(times[number]) and isfinite(values[number])):
                continue
            colour = run_colour(number)
            axes.plot(times[number], values[number], "o", color=colour, markersize=6)
            if number in front:
                ring(axes, np.array(times[number]), np.array(values[number]), colour)
            if len(runs) <= len(_RUNS) or number in front:
                named.append((label, colour, np.array([values[number]])))
        axes.margins(x=0.05, y=0.18)
        axes.set_xlim(left=0)
        label_ends(axes, named)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(f"training, {unit}", loc="right", labelpad=1)

    short = [shortened(label, 18) for label in labels]
    return render_plots(
        select_by, draw, wide=wide, axes_height_in=2.6, columns=[select_by], labels=short
    )


def sweep(found: Sweep, leader: Group, *, select_by: str, wide: bool) -> Drawing:
    """The score that chooses over the values of a sweep, with error bars."""
    values = np.array(found.values)
    valid = np.array([group.validation(select_by) for group in found.groups])
    spread = np.nan_to_num([group.spread(select_by) for group in found.groups])
    tested = [
        interval(sampled, select_by) if (sampled := group.sampled()) else Estimate(nan, nan, nan)
        for group in found.groups
    ]
    test, low, high = (
        np.array([getattr(estimate, name) for estimate in tested])
        for name in ("value", "low", "high")
    )

    def draw(axes: Axes, column: str) -> None:
        axes.set_title(f"{title(column)} over {shortened(found.key)}")
        if found.is_log:
            axes.set_xscale("log")
        for drawn, least, most, colour, width, alpha in (
            (test, low, high, TEST, 9, 0.18),  # around the narrower bars of validation
            (valid, valid - spread, valid + spread, VALID, 3, 0.6),
        ):
            axes.vlines(values, least, most, color=colour, alpha=alpha, linewidth=width)
            line(axes, values, drawn, colour)
        at = found.groups.index(leader)
        ring(axes, values[at : at + 1], valid[at : at + 1], VALID)
        axes.set_xticks(values, [f"{value:g}" for value in found.values])
        axes.minorticks_off()
        axes.margins(x=0.08, y=0.15)
        axes.set_xlabel(shortened(found.key), loc="right", labelpad=1)
        label_ends(axes, [("test", TEST, test), ("validation", VALID, valid)])

    return render_plots(
        select_by, draw, wide=wide, axes_height_in=2.4, columns=[select_by], labels=["validation"]
    )
