"""A claim, measured: two things side by side, in turn, and what their ratio says of the bar.

Each pair is one measurement of ours and one of the other, next to each other in time and in
changing order, so that both share the machine's weather. The median of the pairs' ratios counts;
the least and the greatest are its spread.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import describe
from cardamage.system.processes import count_cores

ROOT = Path(__file__).parents[1]
PAIRS = 5
WIDEST = 0.1
"""A spread wider than this share of the median claims nothing where the bar lies within it."""
MARK = "RESULT "
"""What a line of standard output begins with that ``benchmarks.table`` reads."""


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    claim: str
    against: str
    sign: str
    """``>=`` or ``<=``."""
    bar: float
    unit: str
    """Of the bar: ``x`` for a ratio, else as in ``s``."""
    values: list[float]
    """Of the bar's unit: one a pair."""
    ours: float | None
    """Median of what was measured of ours, in ``measured_in``."""
    other: float | None
    measured_in: str
    note: str
    """What limits the figure, or why the bar is missed."""
    machine: str = ""
    when: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    load: float = field(default_factory=lambda: round(os.getloadavg()[0], 1))
    """Processes that ran or waited for a core, mean of the last minute."""

    cores: int = field(default_factory=count_cores)

    @property
    def median(self) -> float:
        """The value that counts."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, or why nothing can be claimed.

        That is where the bar lies within a wide spread, and where seconds were measured by
        themselves while other programs had the cores.
        """
        low, high = min(self.values), max(self.values)
        if low < self.bar < high and high - low > WIDEST * self.median:
            return "too noisy to claim"
        if self.unit == "s" and self.load > self.cores + 1:
            return "machine too busy to claim"
        reached = self.median >= self.bar if self.sign == ">=" else self.median <= self.bar
        return "met" if reached else "missed"

    def tell(self) -> None:
        """Print it, for people and for the table."""
        low, high = min(self.values), max(self.values)
        figures = "".join(
            f", {name} {value:.4g} {self.measured_in}"
            for name, value in (("ours", self.ours), ("other", self.other))
            if value is not None
        )
        print(
            f"{self.claim}, against {self.against}: {self.median:.3g} {self.unit} "
            f"({low:.3g} to {high:.3g}, {len(self.values)} measurements), "
            f"bar {self.sign} {self.bar:g}: {self.verdict}{figures}",
            flush=True,
        )
        print(MARK + json.dumps(asdict(self)), flush=True)


def compare(
    claim: str,
    against: str,
    bar: str,
    ours: Callable[[], float],
    other: Callable[[], float],
    *,
    measured_in: str,
    pairs: int = PAIRS,
    packages: Sequence[str] = (),
    note: str = "",
) -> Result:
    """Measure in pairs, and tell.

    Args:
        bar: ``>= 0.9`` or ``<= 1.5``: what ours, divided by the other, has to keep.
        ours: one measurement of ours; ``other`` of the other, in the same unit.
        measured_in: that unit, as in ``images/s``.
        packages: whose versions matter.
    """
    ratios, mine, theirs = [], [], []
    for number in range(pairs):
        both = [(mine, ours), (theirs, other)]
        for kept, measure in both if number % 2 == 0 else reversed(both):
            kept.append(measure())
        ratios.append(mine[-1] / theirs[-1])
    return _told(claim, against, bar, "x", ratios, mine, theirs, measured_in, packages, note)


def hold(
    claim: str,
    bar: str,
    ours: Callable[[], float],
    *,
    unit: str,
    repeats: int = PAIRS,
    packages: Sequence[str] = (),
    note: str = "",
) -> Result:
    """Measure ours alone, against a bar in ``unit``, and tell."""
    values = [ours() for _ in range(repeats)]
    return _told(claim, "-", bar, unit, values, values, [], unit, packages, note)


def seconds(action: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def program(*words: object, folder: Path = ROOT) -> float:
    """Seconds of a Python program that has to succeed; what it prints is kept for an error."""
    command = [sys.executable, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    taken = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return taken


def _told(  # noqa: PLR0917 - the fields of a result, in their order
    claim: str,
    against: str,
    bar: str,
    unit: str,
    values: list[float],
    mine: list[float],
    theirs: list[float],
    measured_in: str,
    packages: Sequence[str],
    note: str,
) -> Result:
    sign, number = bar.split()
    result = Result(
        claim=claim,
        against=against,
        sign=sign,
        bar=float(number),
        unit=unit,
        values=values,
        ours=statistics.median(mine),
        other=statistics.median(theirs) if theirs else None,
        measured_in=measured_in,
        note=note,
        machine=describe(*packages),
    )
    result.tell()
    return result
