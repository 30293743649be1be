"""Kills: how many of which stage, when each of them comes, and what it hit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Literal

from rich.table import Table

from cardamage.runs.paths import STAGES

DRILLED = STAGES[:3]
"""The stages that are killed: pack, train and test."""

Budget = Counter[tuple[str, int]]
"""How many kills are still to be made, by stage and number of processes."""

_WEIGHTS = {"pack": 2, "train": 5, "test": 3}
_COLD_SHARE = 0.2
_WRITING_SHARE = 0.4  # left to chance alone, few would hit a file while it is written
_DELAY_S = 0.002  # about as long as writing a small file takes


def allot(kills: int, processes: Sequence[int]) -> Budget:
    """Spread ``kills``: alike over ``processes``, by weight over the stages of each.

    Whole numbers by the largest remainder, ties in the order given.
    """
    weights = {(stage, on): weight for on in processes for stage, weight in _WEIGHTS.items()}
    whole = sum(weights.values())
    budget = Budget({key: kills * weight // whole for key, weight in weights.items()})
    by_remainder = sorted(weights, key=lambda key: -(kills * weights[key] % whole))
    budget.update(by_remainder[: kills - budget.total()])
    return budget


@dataclass(frozen=True)
class Draw:
    """What chance decides about one start, all of it beforehand.

    Attributes:
        cold: start the command itself.
        moment: when to kill, as a share of the time the stage takes undisturbed.
        everyone: kill all processes of the stage at once, not one of them.
        which: which one, as a share of their number.
        writing: from that moment on, wait until a file is being written.
        delay_s: and so long after it has appeared.
    """

    cold: bool
    moment: float
    everyone: bool
    which: float
    writing: bool
    delay_s: float

    @classmethod
    def by(cls, random: Random) -> Draw:
        """The next draw."""
        return cls(
            cold=random.random() < _COLD_SHARE,
            moment=random.random(),
            everyone=random.random() < 0.4,
            which=random.random(),
            writing=random.random() < _WRITING_SHARE,
            delay_s=random.uniform(0, _DELAY_S),
        )


@dataclass(frozen=True)
class Kill:
    """SIGKILL to one process of a stage, or to all of them at once.

    Attributes:
        stage: the stage that was killed.
        processes: with how many it worked.
        cold: whether the command itself was started.
        moment: before the stage's marker said that it runs; while a killed process wrote a file,
            which stays behind half written; or at another time.
        alone: whether other processes of the stage were left alive.
        equal: whether the stage, started again, ended with the files of the undisturbed run.
    """

    stage: str
    processes: int
    cold: bool
    moment: Literal["starting", "working", "writing"]
    alone: bool
    equal: bool = False


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
