"""The figures of a report, as PNG files in memory: one shared style, colours for every eye.

Each figure comes ``wide``, with its panels in two columns, and narrow for a phone, in one.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cardamage.report.results import CURVES, RunResults
from cardamage.report.wording import TITLES, score, shortened

TRAIN, VALID, TEST = "#b5500b", "#0067a5", "#00795a"
"""The colour of each split, in every figure and on the page."""

_RUNS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#e69f00", "#56b4e9", "#444444")
_DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)))
_INK, _GREY, _FAINT = "#1f2328", "#6e7781", "#e3e6ea"
_STYLE: Any = {  # a mapping whose exact type differs between versions of matplotlib
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": "#afb8c1",
    "axes.labelcolor": _GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 15.0,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3.0,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.6,
    "lines.solid_capstyle": "round",
}
_LABEL_HEIGHT = 0.085  # of a panel's height, so that labels at line ends do not overlap


def drawn_scores(select_by: str) -> list[str]:
    """Which scores get a panel: the four of every report, after the one that chose the epoch."""
    return list(CURVES) if select_by in CURVES else [select_by, *CURVES]


def run_colour(number: int) -> str:
    """The colour of a run among several; numbers count from 0."""
    return _RUNS[number % len(_RUNS)]


def curves(results: RunResults, *, wide: bool) -> bytes:
    """Training and validation scores over the epochs, the best epoch marked."""

    def draw(axes: Axes, column: str) -> None:
        epochs = results.metrics["epoch"]
        validation = results.metrics[f"val_{column}"]
        lines = [("validation", VALID, validation)]
        if (training := results.metrics.get(f"train_{column}")) is not None:
            lines.insert(0, ("training", TRAIN, training))
        for _, colour, values in lines:
            _line(axes, epochs, values, colour)
        _frame(axes, epochs, [values for _, _, values in lines], column)
        _mark_best(axes, results.best, epochs, validation, VALID)
        _label_ends(axes, lines)

    return _panels(results.experiment.test.select_by, draw, wide=wide, on_validation=True)


def tests(results: RunResults, *, wide: bool) -> bytes:
    """Test scores of every checkpoint with their 95 % intervals, the best epoch marked."""

    def draw(axes: Axes, column: str) -> None:
        epochs, values = results.tested["epoch"], results.tested[column]
        bounds = [results.intervals[epoch][column] for epoch in results.tested_epochs]
        low, high = np.array([b.low for b in bounds]), np.array([b.high for b in bounds])
        axes.vlines(epochs, low, high, color=TEST, alpha=0.35, linewidth=2.2)
        _line(axes, epochs, values, TEST)
        _frame(axes, epochs, [values, low, high], column)
        _mark_best(axes, results.best, epochs, values, TEST)
        _label_ends(axes, [("test", TEST, values)])

    return _panels(results.experiment.test.select_by, draw, wide=wide)


def compared_curves(
    runs: Sequence[RunResults], labels: Sequence[str], *, test: bool, wide: bool
) -> bytes:
    """One score a panel, one line a run: on the validation split, or of every test."""

    def draw(axes: Axes, column: str) -> None:
        lines, epochs = [], []
        for number, (results, label) in enumerate(zip(runs, labels, strict=True)):
            table, name = (results.tested, column) if test else (results.metrics, f"val_{column}")
            if name not in table:
                continue
            colour, values = run_colour(number), table[name]
            dashes = _DASHES[number // len(_RUNS) % len(_DASHES)]
            _line(axes, table["epoch"], values, colour, dashes)
            chosen = table["epoch"] == results.best
            _ring(axes, table["epoch"][chosen], values[chosen], colour)
            lines.append((shortened(label, 18), colour, values))
            epochs.append(table["epoch"])
        _frame(axes, np.concatenate(epochs), [values for *_, values in lines], column)
        _label_ends(axes, lines)

    return _panels(runs[0].experiment.test.select_by, draw, wide=wide, on_validation=not test)


def compared_scores(runs: Sequence[RunResults], labels: Sequence[str], *, wide: bool) -> bytes:
    """The test scores of each run's chosen checkpoint with their intervals, one row a run."""

    def draw(axes: Axes, column: str) -> None:
        for number, results in enumerate(runs):
            estimate, colour = results.intervals[results.best][column], run_colour(number)
            axes.hlines(number, estimate.low, estimate.high, color=colour, alpha=0.4, linewidth=4)
            axes.plot(_finite([estimate.value]), [number], "o", color=colour, markersize=6)
        axes.set_yticks(range(len(runs)), [shortened(label, 22) for label in labels])
        axes.set_ylim(len(runs) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=_INK)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.margins(x=0.08)

    height = 0.75 + 0.26 * len(runs)
    return _panels(runs[0].experiment.test.select_by, draw, wide=wide, panel_height_in=height)


def _panels(
    select_by: str,
    draw: Callable[[Axes, str], None],
    *,
    wide: bool,
    on_validation: bool = False,
    panel_height_in: float = 2.5,
) -> bytes:
    """A figure with one panel a score, drawn by ``draw``."""
    columns = drawn_scores(select_by)
    across, width_in, dots_per_inch = (2, 9.8, 150) if wide else (1, 4.3, 170)
    alone = len(columns) % across  # an odd panel gets the whole first row
    down = alone + len(columns) // across
    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # drawn as boxes
        figure = Figure(
            figsize=(width_in, panel_height_in * down),
            layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.02, hspace=0.03),
        )
        grid = figure.add_gridspec(down, across)
        for number, column in enumerate(columns):
            row, place = divmod(number + alone, across)
            axes = figure.add_subplot(grid[0, :] if number < alone else grid[row, place])
            chooses = on_validation and column == select_by
            axes.set_title(TITLES[column] + (", which chooses the epoch" if chooses else ""))
            draw(axes, column)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return stream.getvalue()


def _style() -> AbstractContextManager[None]:
    context: AbstractContextManager[None] = mpl.rc_context(_STYLE)
    return context


def _finite(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def _line(
    axes: Axes,
    epochs: NDArray[np.float64],
    values: NDArray[np.float64],
    colour: str,
    dashes: str | tuple[float, tuple[float, ...]] = "solid",
) -> None:
    """One curve; what is undefined is a gap."""
    marker = "o" if len(epochs) <= 40 else ""
    axes.plot(epochs, _finite(values), marker=marker, color=colour, linestyle=dashes)


def _frame(
    axes: Axes, epochs: NDArray[np.float64], drawn: Sequence[NDArray[np.float64]], column: str
) -> None:
    """Limits and ticks: whole epochs, and never so close that noise looks like a trend."""
    axes.set_xlim(epochs.min() - 0.35, epochs.max() + 0.35)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("epoch", loc="right", labelpad=1)
    finite = np.concatenate([values[np.isfinite(values)] for values in drawn])
    if not len(finite):
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", color=_GREY)
        return
    low, high = float(finite.min()), float(finite.max())
    pad = max(0.1 * (high - low), 0.025)
    low, high = low - pad, high + pad
    if column != "loss":
        low, high = max(low, -0.02), min(high, 1.02)
    axes.set_ylim(low, high)


def _mark_best(
    axes: Axes,
    best: int,
    epochs: NDArray[np.float64],
    values: NDArray[np.float64],
    colour: str,
) -> None:
    """A line through the best epoch, named above, and its value beside a ring."""
    axes.axvline(best, color=_GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        f"best: epoch {best}",
        (best, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=8,
        color=_GREY,
    )
    at = int(np.flatnonzero(epochs == best)[0])
    value = float(values[at])
    if not np.isfinite(value):
        return
    _ring(axes, epochs[at : at + 1], values[at : at + 1], colour)
    leans_left = best > sum(axes.get_xlim()) / 2  # to the middle, off the labels at the edge
    beside = min(max(at + (-1 if leans_left else 1), 0), len(values) - 1)
    hangs = bool(values[beside] > value)  # on the side where the curve is not
    axes.annotate(
        score(value),
        (best, value),
        xytext=(-7 if leans_left else 7, -8 if hangs else 8),
        textcoords="offset points",
        ha="right" if leans_left else "left",
        va="top" if hangs else "bottom",
        fontweight="bold",
        color=colour,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def _ring(
    axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], colour: str
) -> None:
    axes.plot(
        epochs,
        values,
        marker="o",
        markersize=8,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=2,
    )


def _label_ends(axes: Axes, lines: Sequence[tuple[str, str, NDArray[np.float64]]]) -> None:
    """Name each line where it ends, at the panel's right edge."""
    low, high = axes.get_ylim()
    ends = []
    for name, colour, values in lines:
        finite = values[np.isfinite(values)]
        if len(finite):
            ends.append(((float(finite[-1]) - low) / (high - low), name, colour))
    ends.sort()
    for height, (_, name, colour) in zip(_apart([e[0] for e in ends]), ends, strict=True):
        axes.annotate(
            name,
            (1, height),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=colour,
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], gap: float = _LABEL_HEIGHT) -> list[float]:
    """Ascending heights, moved as little as makes neighbours at least ``gap`` apart.

    Heights that meet become a group that is spread evenly around its mean, as often as groups meet.
    """
    groups = [[height] for height in heights]
    at = 0
    while at + 1 < len(groups):
        below, above = groups[at], groups[at + 1]
        top = sum(below) / len(below) + gap * (len(below) - 1) / 2
        bottom = sum(above) / len(above) - gap * (len(above) - 1) / 2
        if bottom - top < gap:
            groups[at : at + 2] = [below + above]
            at = max(0, at - 1)
        else:
            at += 1
    return [
        sum(group) / len(group) + gap * (i - (len(group) - 1) / 2)
        for group in groups
        for i in range(len(group))
    ]
