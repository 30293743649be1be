"""Curves in a terminal: a line of blocks for many runs, a chart of Braille dots for one."""

import math
from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

_BLOCKS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""The bits of the dots of a Braille cell, by column and by row from the top."""

Series = tuple[Sequence[float], str]
"""Values in order, and the style of their line."""


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a line of at most ``width`` blocks, the lowest as the smallest; gaps for NaN.

    Of more values than that each block has the last of its share.
    """
    shown = _thinned(values, width)
    known = [value for value in shown if math.isfinite(value)]
    if not known:
        return ""
    low, high = min(known), max(known)
    steps = len(_BLOCKS) - 1
    return "".join(
        " "
        if not math.isfinite(value)
        else _BLOCKS[round((value - low) / (high - low) * steps) if high > low else steps // 2]
        for value in shown
    )


def chart(title: str, series: Sequence[Series], width: int, height: int) -> list[Text]:
    """A line chart of ``height`` rows under its title, ``width`` columns wide; later lines on top.

    All series begin with epoch 1. The title names the last value of the last one.
    """
    known = [value for values, _ in series for value in values if math.isfinite(value)]
    if not known:
        return [Text(f"{title}: no epoch yet", style="dim")]
    low, high = min(known), max(known)
    labels = [f"{high:.3g}", f"{low:.3g}"]
    margin = max(map(len, labels)) + 1
    columns = width - margin
    cells = [[0] * columns for _ in range(height)]
    styles = [[""] * columns for _ in range(height)]
    for values, style in series:
        for x, y in _dots(values, low, high, columns * 2, height * 4):
            cells[y // 4][x // 2] |= _DOTS[x % 2][y % 4]
            styles[y // 4][x // 2] = style
    last = [value for value in series[-1][0] if math.isfinite(value)]
    head = f"{title} {last[-1]:.4g}" if last else title
    lines = [Text(head[:width], style="bold")]
    for row in range(height):
        label = labels[0] if row == 0 else labels[1] if row == height - 1 else ""
        line = Text(f"{label:>{margin - 1}} ", style="dim")
        for cell, style in zip(cells[row], styles[row], strict=True):
            line.append(chr(0x2800 + cell) if cell else " ", style=style)
        lines.append(line)
    epochs = str(max(len(values) for values, _ in series))
    lines.append(Text(f"{' ' * margin}1{epochs:>{columns - 1}}", style="dim"))
    return lines


def _dots(
    values: Sequence[float], low: float, high: float, width: int, height: int
) -> list[tuple[int, int]]:
    """Column and row, from the top, of the dots of a line through all finite values."""
    points = [
        (
            round(number / max(1, len(values) - 1) * (width - 1)),
            round((high - value) / (high - low) * (height - 1)) if high > low else height // 2,
        )
        for number, value in enumerate(values)
        if math.isfinite(value)
    ]
    dots = points[:1]
    for (x0, y0), (x1, y1) in pairwise(points):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for step in range(1, steps + 1):
            share = step / steps
            dots.append((round(x0 + share * (x1 - x0)), round(y0 + share * (y1 - y0))))
    return dots


def _thinned(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    return [values[(place + 1) * len(values) // width - 1] for place in range(width)]
