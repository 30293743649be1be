"""Small plots, one per score and all in one style: the parts every figure is put together from."""

import io
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from cardamage.report.load import CURVES
from cardamage.report.pictures import Drawing
from cardamage.report.wording import score, title

INK, _GREY, _FAINT = "#1f2328", "#6e7781", "#e3e6ea"
_STYLE: Any = {  # a mapping whose exact type differs between versions of matplotlib
    "svg.hashsalt": "cardamage",  # ids inside an SVG, else random
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": "#afb8c1",
    "axes.labelcolor": _GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # where it is anyway: looking for a free place takes time
    "axes.titlepad": 17.0,
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
_LABEL_HEIGHT = 0.085  # of a plot's height, so that labels at line ends do not overlap


def drawn_scores(select_by: str) -> list[str]:
    """Which scores get a plot: the four of every report, after the one that chose the epoch."""
    return list(CURVES) if select_by in CURVES else [select_by, *CURVES]


def render_plots(
    select_by: str,
    draw: Callable[[Axes, str], None],
    *,
    wide: bool,
    on_validation: bool = False,
    axes_height_in: float = 1.7,
    ticks: Sequence[str] = ("0.000",),
    labels: Sequence[str] = (),
    columns: Sequence[str] | None = None,
) -> Drawing:
    """A figure with one plot per score, drawn by ``draw``.

    The margins are computed and not found by a layout engine, which would draw everything twice.

    Args:
        on_validation: the scores are those by which the epoch was chosen.
        columns: the scores that get a plot; left out, those of :func:`drawn_scores`.
    """
    columns = columns or drawn_scores(select_by)
    across, width_in, dots_per_inch = (2, 9.8, 150) if wide else (1, 4.3, 170)
    alone = len(columns) % across  # an odd plot gets the whole first row
    down = alone + len(columns) // across
    left_in, right_in = _width_in(ticks) + 0.12, _width_in(labels) + 0.12
    top_in, bottom_in = 0.48, 0.42
    height_in = down * (top_in + axes_height_in + bottom_in)
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # drawn as boxes
        figure = Figure(figsize=(width_in, height_in))
        grid = figure.add_gridspec(
            down,
            across,
            left=left_in / width_in,
            right=1 - right_in / width_in,
            bottom=bottom_in / height_in,
            top=1 - top_in / height_in,
            wspace=(left_in + right_in) / (width_in / across - left_in - right_in),
            hspace=(top_in + bottom_in) / axes_height_in,
        )
        for number, column in enumerate(columns):
            row, place = divmod(number + alone, across)
            axes = figure.add_subplot(grid[0, :] if number < alone else grid[row, place])
            chooses = on_validation and column == select_by
            axes.set_title(title(column) + (", which chooses the epoch" if chooses else ""))
            draw(axes, column)
        return _saved(figure, dots_per_inch, has_svg=wide)


def render_matrix(
    shares: NDArray[np.float64], counts: NDArray[np.int64], names: Sequence[str]
) -> Drawing:
    """A confusion matrix of C classes: shares (C, C) as shades, with counts below them."""
    side_in = max(2.2, 0.85 * len(names))
    margin_in = max(0.9, _width_in(names) + 0.3)
    width_in, height_in = side_in + margin_in + 0.2, side_in + margin_in + 0.3
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # drawn as boxes
        figure = Figure(figsize=(width_in, height_in))
        left, bottom = margin_in / width_in, margin_in / height_in
        axes = figure.add_axes((left, bottom, side_in / width_in, side_in / height_in))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.grid(visible=False)
        for row, column in np.ndindex(shares.shape):
            if np.isnan(shares[row, column]):
                continue
            axes.text(
                column,
                row,
                f"{100 * shares[row, column]:.1f} %\n{counts[row, column]:,}",
                ha="center",
                va="center",
                fontsize=7.5,
                color="white" if shares[row, column] > 0.55 else INK,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_xlabel("predicted")
        axes.set_ylabel("truth")
        return _saved(figure, 150, has_svg=True)


def _saved(figure: Figure, dots_per_inch: int, *, has_svg: bool) -> Drawing:
    """The same bytes for the same figure."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=dots_per_inch, metadata={"Software": None})
    if has_svg:
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return Drawing(png.getvalue(), svg.getvalue())


def _width_in(texts: Sequence[str]) -> float:
    """About how wide the longest of some small labels is, in inches."""
    return 0.075 * max((len(text) for text in texts), default=0)


def finite(values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, NaN where they are infinite; what is NaN is not drawn."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def line(
    axes: Axes,
    epochs: NDArray[np.float64],
    values: NDArray[np.float64],
    colour: str,
    dashes: str | tuple[float, tuple[float, ...]] = "solid",
) -> None:
    """One curve; what is undefined is a gap."""
    marker = "o" if len(epochs) <= 40 else ""
    axes.plot(epochs, finite(values), marker=marker, color=colour, linestyle=dashes)


def frame(
    axes: Axes, epochs: NDArray[np.float64], drawn: Sequence[NDArray[np.float64]], column: str
) -> None:
    """Limits and ticks: whole epochs, and never so close that noise looks like a trend."""
    axes.set_xlim(epochs.min() - 0.35, epochs.max() + 0.35)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("epoch", loc="right", labelpad=1)
    finite = np.concatenate([values[np.isfinite(values)] for values in drawn])
    if not len(finite):
        axes.set_ylim(0, 1)
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", color=_GREY)
        return
    low, high = float(finite.min()), float(finite.max())
    pad = max(0.1 * (high - low), 0.02)
    low, high = low - pad, high + pad
    if column != "loss":
        low, high = max(low, -0.02), min(high, 1.06)
        axes.set_yticks([t for t in MaxNLocator(5).tick_values(low, high) if 0 <= t <= 1])
    axes.set_ylim(low, high)


def mark_best(
    axes: Axes,
    best: int,
    epochs: NDArray[np.float64],
    values: NDArray[np.float64],
    colour: str,
) -> None:
    """A ring at the chosen epoch, and a line through it to its score above the plot."""
    first, last = axes.get_xlim()
    place = (best - first) / (last - first)  # 0 at the left edge, 1 at the right
    at = int(np.flatnonzero(epochs == best)[0])
    axes.axvline(best, color=_GREY, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    axes.annotate(
        f"epoch {best}: {score(float(values[at]))}",
        (best, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="left" if place < 0.15 else "right" if place > 0.85 else "center",
        fontsize=8.5,
        fontweight="bold",
        color=colour,
    )
    ring(axes, epochs[at : at + 1], values[at : at + 1], colour)


def ring(axes: Axes, epochs: NDArray[np.float64], values: NDArray[np.float64], colour: str) -> None:
    """A ring around a point that was chosen."""
    axes.plot(
        epochs,
        values,
        marker="o",
        markersize=8,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=2,
        clip_on=False,  # the first and the last epoch lie close to the edge
    )


def label_ends(axes: Axes, lines: Sequence[tuple[str, str, NDArray[np.float64]]]) -> None:
    """Name each line where it ends, at the plot's right edge."""
    low, high = axes.get_ylim()
    ends = []
    for name, colour, values in lines:
        finite = values[np.isfinite(values)]
        if len(finite):
            ends.append(((float(finite[-1]) - low) / (high - low), name, colour))
    ends.sort()
    for height, (_, name, colour) in zip(apart([e[0] for e in ends]), ends, strict=True):
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


def apart(heights: Sequence[float], gap: float = _LABEL_HEIGHT) -> list[float]:
    """Ascending heights, moved as little as makes neighbours at least ``gap`` apart.

    Heights that meet become a group that is spread evenly around its mean, as often as groups meet;
    a group stays between 0 and 1 where it fits.
    """

    def middle(group: Sequence[float]) -> float:
        half = gap * (len(group) - 1) / 2
        mean = sum(group) / len(group)
        return mean if len(group) == 1 else max(half, min(mean, 1 - half))

    groups = [[height] for height in heights]
    at = 0
    while at + 1 < len(groups):
        below, above = groups[at], groups[at + 1]
        top = middle(below) + gap * (len(below) - 1) / 2
        bottom = middle(above) - gap * (len(above) - 1) / 2
        if bottom - top < gap:
            groups[at : at + 2] = [below + above]
            at = max(0, at - 1)
        else:
            at += 1
    return [
        middle(group) + gap * (i - (len(group) - 1) / 2)
        for group in groups
        for i in range(len(group))
    ]
