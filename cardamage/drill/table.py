"""The drill's table: how many kills hit what, and after how many all files came out equal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from rich.table import Table

from cardamage.drill.kills import DRILLED, Kill

COLUMNS = (
    "stage",
    "processes",
    "kills",
    "of one of several",
    "cold starts",
    "starting",
    "working",
    "writing a file",
    "equal",
)


def rows(kills: Sequence[Kill]) -> list[list[str]]:
    """A row for each stage and number of processes that was killed, then their sum."""
    groups = [
        (stage, str(processes), [k for k in kills if (k.stage, k.processes) == (stage, processes)])
        for stage, processes in product(DRILLED, sorted({kill.processes for kill in kills}))
    ]
    groups = [group for group in groups if group[2]]
    return [[stage, on, *_counts(of)] for stage, on, of in [*groups, ("all", "", list(kills))]]


def screen(kills: Sequence[Kill]) -> Table:
    """The table for a terminal."""
    table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
    for row in rows(kills):
        table.add_row(*row)
    return table


def markdown(kills: Sequence[Kill]) -> str:
    """The table in Markdown."""
    aligned = ["---", *["---:"] * (len(COLUMNS) - 1)]
    lines = [COLUMNS, aligned, *rows(kills)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _counts(kills: Sequence[Kill]) -> list[str]:
    counts = [
        len(kills),
        sum(kill.alone for kill in kills),
        sum(kill.cold for kill in kills),
        *(
            sum(kill.moment == moment for kill in kills)
            for moment in ("starting", "working", "writing")
        ),
    ]
    return [*map(str, counts), f"{sum(kill.equal for kill in kills)} of {len(kills)}"]
