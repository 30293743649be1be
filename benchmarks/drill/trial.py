"""A trial: pack, train and test in a folder of its own, killed on the way as often as is asked."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from benchmarks.drill.comparison import Results, difference, parts, results
from benchmarks.drill.kills import DRILLED, Budget, Draw, Kill
from benchmarks.drill.starts import ColdStart, Order, Start, WarmStart, send_kill, tagged
from cardamage.config.experiment import Experiment
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage

_POLL_S = 0.002
_PATIENCE, _PATIENCE_S = 20.0, 120.0  # a start has hung after so many times its time and so long
_ORPHANS_S = 20.0
_LEFTOVERS_S = 10.0  # so long may the children of a killed process live on


@dataclass(frozen=True)
class Subject:
    """What is drilled.

    Attributes:
        scripts: the folder of ``pack.py``, ``train.py`` and ``test.py``.
        config: a YAML file.
        overrides: ``key=value``, laid over it.
        experiment: what they come to.
    """

    scripts: Path
    config: Path
    overrides: tuple[str, ...]
    experiment: Experiment


@dataclass(frozen=True)
class Reference:
    """An undisturbed run.

    Attributes:
        results: by stage.
        seconds: how long each stage took.
    """

    results: Mapping[str, Results]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        kills: what was done to it.
        problem: None when its files are those of the undisturbed run, else what differs.
        left: names of the half-written files and folders that lie about in the end, which harm
            nothing and take room.
    """

    kills: list[Kill]
    problem: str | None
    left: list[str]


class Trial:
    """One run of the three stages.

    Args:
        subject: what is run.
        processes: with how many processes.
        root: the trial's folder, which is made.
    """

    def __init__(self, subject: Subject, processes: int, root: Path) -> None:
        self._subject, self._processes, self._root = subject, processes, root
        self._run = RunPaths(root / "runs" / subject.experiment.name)
        self._shards = root / "shards"
        self._tags: list[str] = []
        root.mkdir(parents=True)

    def undisturbed(self, *, cold: bool) -> Reference:
        """Run all stages and let them be.

        Raises:
            Broken: a stage failed.
        """
        found, seconds = {}, {}
        for stage in DRILLED:
            began = time.monotonic()
            with self._started(stage, cold=cold) as start:
                status = _wait(start, _PATIENCE_S)
            if status:
                raise Broken(self._last_words(stage, status))
            seconds[stage] = time.monotonic() - began
            found[stage] = self._results(stage)
        return Reference(found, seconds)

    def disturbed(self, budget: Budget, random: Random, pace: Mapping[bool, Reference]) -> Outcome:
        """Run all stages, killing them until the budget is used up or they end before a kill.

        Args:
            budget: taken from.
            random: where the moments come from.
            pace: how cold (True) and warm (False) starts went undisturbed.
        """
        kills: list[Kill] = []
        for stage in DRILLED:
            struck, problem = self._disturb(stage, budget, random, pace)
            problem = problem or difference(self._results(stage), pace[True].results[stage])
            kills += [replace(kill, equal=problem is None) for kill in struck]
            if problem:
                problem = f"{stage} on {self._processes} processes: {problem}"
                return self._outcome(kills, problem)
        return self._outcome(kills, self._await_leftovers())

    def _outcome(self, kills: list[Kill], problem: str | None) -> Outcome:
        left = sorted(str(path.relative_to(self._root)) for path in parts(self._root))
        return Outcome(kills, problem, left)

    def _disturb(
        self, stage: str, budget: Budget, random: Random, pace: Mapping[bool, Reference]
    ) -> tuple[list[Kill], str | None]:
        """Start one stage until it has ended well; what was done to it, and what went wrong."""
        kills: list[Kill] = []
        while True:
            draw = Draw.by(random)
            took_s = pace[draw.cold].seconds[stage]
            kill = None
            try:
                with self._started(stage, cold=draw.cold) as start:
                    if budget[stage, self._processes]:
                        kill = self._strike(start, stage, draw, took_s)
                    if kill:
                        budget[stage, self._processes] -= 1
                        kills.append(kill)
                    limit_s = _PATIENCE * took_s + _PATIENCE_S
                    status = _wait(start, limit_s)
                    if kill and stage != "pack":
                        _end_ranks(start)
            except Broken as broken:
                return kills, str(broken)
            if status == 0:
                return kills, None
            if not kill:
                return kills, self._last_words(stage, status)

    def _strike(self, start: Start, stage: str, draw: Draw, took_s: float) -> Kill | None:
        """Kill a stage at its moment; None when it ended before."""
        attempts = read_stage(self._run, stage).attempts  # of starts before: this one just began
        old = parts(self._root)
        moment = time.monotonic() + draw.moment * took_s
        while time.monotonic() < moment:
            if start.poll() is not None:
                return None
            time.sleep(_POLL_S)
        processes = start.processes()
        if not processes:
            return None
        one = processes[int(draw.which * len(processes))]
        victims = processes if draw.everyone else [one]
        while draw.writing and not parts(self._root) - old:
            if start.poll() is not None:
                return None
        time.sleep(draw.delay_s if draw.writing else 0)
        if not send_kill(victims):
            return None
        if draw.everyone:
            send_kill(start.processes())  # also those that have come since
        is_started = read_stage(self._run, stage).attempts > attempts
        torn = {path.name.split(".")[-2] for path in parts(self._root) - old}
        is_torn = not torn.isdisjoint(map(str, victims))
        return Kill(
            stage,
            self._processes,
            draw.cold,
            "writing" if is_torn else "working" if is_started else "starting",
            alone=not draw.everyone and len(processes) > 1,
        )

    @contextmanager
    def _started(self, stage: str, *, cold: bool) -> Iterator[Start]:
        """A stage that was started, and does not outlive an exception."""
        ranks = 1 if stage == "pack" else self._processes
        workers = [f"--workers={self._processes}"] if stage == "pack" else []
        self._tags.append(f"{self._root}#{len(self._tags)}")
        order = Order(
            script=self._subject.scripts / f"{stage}.py",
            arguments=(
                str(self._subject.config),
                *self._subject.overrides,
                f"data.shards_dir={json.dumps(str(self._shards))}",
                f"--runs-dir={self._run.root.parent}",
                *workers,
            ),
            ranks=ranks,
            log=self._log(stage),
            tag=self._tags[-1],
        )
        start = ColdStart(order) if cold else WarmStart(order)
        try:
            yield start
        except BaseException:
            start.kill()
            raise

    def _results(self, stage: str) -> Results:
        split = self._subject.experiment.test.split
        return results(self._root, self._run, self._shards, stage, split)

    def _log(self, stage: str) -> Path:
        return self._root / f"{stage}.log"

    def _last_words(self, stage: str, status: int) -> str:
        text = self._log(stage).read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        last = [*lines, *errors][-1] if lines else "nothing"
        return f"{stage} ended with status {status}, left alone, and said: {last}"

    def _await_leftovers(self) -> str | None:
        """What is wrong when a process outlives the trial; such a one is ended."""
        deadline = time.monotonic() + _LEFTOVERS_S
        while left := tagged(self._tags):
            if time.monotonic() > deadline:
                send_kill(left)
                return f"{len(left)} processes outlived the kill of their parent"
            time.sleep(0.1)
        return None


class Broken(Exception):  # noqa: N818 - what is broken is the run
    """A stage failed or hung without being killed."""


def _wait(start: Start, limit_s: float) -> int:
    """The exit status of a start.

    Raises:
        Broken: it has not ended within ``limit_s`` seconds.
    """
    deadline = time.monotonic() + limit_s
    while (status := start.poll()) is None:
        if time.monotonic() > deadline:
            raise Broken(f"it hung: no end within {limit_s:.0f} s")
        time.sleep(_POLL_S)
    return status


def _end_ranks(start: Start) -> None:
    """Return when no rank of a start is left whose launcher was killed.

    They work on and keep another start away; or, if they had not met yet, they wait for minutes
    for a launcher that is gone. After a while they are killed as well, as a person would do.
    """
    deadline = time.monotonic() + _ORPHANS_S
    while left := start.processes():
        if time.monotonic() > deadline:
            send_kill(left)
        time.sleep(_POLL_S)
