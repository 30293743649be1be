"""What SLURM says of jobs: one ``squeue`` for all of them, then ``sacct`` for those it forgot.

Nothing here fails because SLURM or its accounting is down: a :class:`Queue` then knows less, and
says why. Signals and cancellations do fail, in one line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from cardamage.errors import CardamageError
from launch.environment import clean

_PING_S, _QUEUE_S, _ACCOUNTING_S = 10.0, 20.0, 5.0
_FIELDS = ("JobArrayID", "JobID", "State", "Reason", "NodeList", "RestartCnt", "StartTime")
_QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "RESIZING", "SUSPENDED", "STOPPED")
_LEAVING = "COMPLETING"
AFTER_ANOTHER = "Dependency"
"""SLURM's reason for a job that waits for another."""

_NEVER = "DependencyNeverSatisfied"
_OWN_VARIABLES = ("SQUEUE_", "SACCT_", "SCANCEL_")  # a person's taste in formats and filters


@dataclass(frozen=True)
class JobState:
    """What SLURM says of a job.

    Attributes:
        state: SLURM's word for it, such as ``PENDING``.
        reason: why it waits, in SLURM's word; empty when it does not.
        nodes: where it runs or ran, as SLURM abbreviates node names.
        restarts: how often it was queued again.
        starts: when it is expected to start, ISO 8601 in UTC; None when it does not wait, or when
            nobody knows.
    """

    state: str
    reason: str = ""
    nodes: str = ""
    restarts: int = 0
    starts: str | None = None

    @property
    def is_queued(self) -> bool:
        """Whether it waits, or waits again."""
        return self.state in _QUEUED and not self.never_starts

    @property
    def is_running(self) -> bool:
        """Whether it has nodes and goes on."""
        return self.state in _RUNNING

    @property
    def is_leaving(self) -> bool:
        """Whether its processes are being ended; it may be queued again next."""
        return self.state == _LEAVING

    @property
    def never_starts(self) -> bool:
        """Whether it waits for a job that has failed, on a site that keeps such jobs."""
        return self.state == "PENDING" and self.reason == _NEVER

    @property
    def is_there(self) -> bool:
        """Whether SLURM still has to do with it."""
        return self.state in _QUEUED or self.is_running or self.is_leaving


@dataclass(frozen=True)
class Queue:
    """What SLURM knew at one moment.

    Attributes:
        jobs: by id, elements of arrays as ``123_4``.
        problem: why SLURM did not answer, one line; None when it did.
        asked: the ids it was asked about.
    """

    jobs: Mapping[str, JobState] = field(default_factory=dict)
    problem: str | None = None
    asked: frozenset[str] = frozenset()

    def find(self, job: str) -> JobState | None:
        """A job's state; of a whole array that of the element that has the most to do yet."""
        if found := self.jobs.get(job):
            return found
        elements = [state for id_, state in self.jobs.items() if id_.startswith(f"{job}_")]
        return min(elements, key=_standing, default=None)

    def first(self, jobs: Sequence[str]) -> tuple[str, JobState | None]:
        """Of the jobs that share some work the one to look at: of those still there, else the last.

        Args:
            jobs: their ids, at least one; that which ends the work comes last.
        """
        states = [(job, state) for job in jobs if (state := self.find(job)) and state.is_there]
        return min(
            states, key=lambda pair: _standing(pair[1]), default=(jobs[-1], self.find(jobs[-1]))
        )


def ask_queue(jobs: Iterable[str]) -> Queue:
    """What the queue says of jobs: those that wait, that run, and that ended a short while ago."""
    wanted = list(dict.fromkeys(jobs))
    if not wanted:
        return Queue()
    try:
        ping()
        command = ("squeue", "--noheader", "--array", "--states=all")
        fields = ",".join(f"{name}:|" for name in _FIELDS)
        # By id and not by user: any user who sees the files may ask.
        numbers = ",".join(dict.fromkeys(job.partition("_")[0] for job in wanted))
        found = _run(*command, f"--Format={fields}", f"--jobs={numbers}", timeout_s=_QUEUE_S)
    except CardamageError as error:
        return Queue(problem=str(error), asked=frozenset(wanted))
    if found.returncode != 0 and "Invalid job id" not in found.stderr:
        problem = f"squeue failed: {_first_line(found.stderr)}"
        return Queue(problem=problem, asked=frozenset(wanted))
    return Queue(parse_queue(found.stdout), asked=frozenset(wanted))


def ask_accounting(queue: Queue, jobs: Iterable[str]) -> Queue:
    """Add what accounting says of jobs that the queue has forgotten; nothing where it is off."""
    wanted = [job for job in dict.fromkeys(jobs) if not queue.find(job)]
    if not wanted or queue.problem or not shutil.which("sacct"):
        return queue
    numbers = ",".join(dict.fromkeys(job.partition("_")[0] for job in wanted))
    command = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State")
    try:
        found = _run(*command, f"--jobs={numbers}", timeout_s=_ACCOUNTING_S)
    except CardamageError:
        return queue
    return replace(queue, jobs={**parse_accounting(found.stdout), **queue.jobs})


def ping() -> None:
    """Make sure that SLURM answers; where it is down, its other commands take long to say so.

    Raises:
        CardamageError: it does not, or this machine knows no SLURM.
    """
    if not shutil.which("squeue") or not shutil.which("scontrol"):
        raise CardamageError("this machine has no squeue")
    found = _run("scontrol", "ping", timeout_s=_PING_S)
    if "UP" not in found.stdout.split():
        raise CardamageError("SLURM does not answer: scontrol ping finds no controller that is up")


def cancel_queued(jobs: Iterable[str]) -> None:
    """Take jobs out of the queue; one that has begun meanwhile goes on."""
    _end("scancel", "--state=PENDING", *jobs)


def cancel_now(jobs: Iterable[str]) -> None:
    """End jobs at once, and take those out of the queue that wait."""
    _end("scancel", *jobs)


def signal_jobs(jobs: Iterable[str]) -> None:
    """Ask the processes of jobs to save and stop, with SIGUSR2."""
    _end("scancel", "--signal=USR2", *jobs)


def parse_queue(text: str) -> dict[str, JobState]:
    """The jobs of what ``squeue`` printed; an element of an array also by its own job id."""
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        values = line.split("|")
        if len(values) <= len(_FIELDS) - 1:
            continue
        job, number, state, reason, nodes, restarts, starts = values[: len(_FIELDS)]
        waits = state in _QUEUED
        of_job = JobState(
            state,
            reason if reason != "None" and waits else "",
            nodes,
            int(restarts) if restarts.isdecimal() else 0,
            _in_utc(starts) if waits else None,
        )
        found[job] = of_job
        # A waiting array has no ids of its own yet: there the number is the array's.
        if not waits and "_" in job and number != job.partition("_")[0]:
            found[number] = of_job
    return found


def parse_accounting(text: str) -> dict[str, JobState]:
    """The jobs of what ``sacct`` printed that have ended.

    Accounting lags: what it takes for waiting or running, and the queue has forgotten, has ended.
    """
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        job, _, state = line.partition("|")
        of_job = JobState(state.partition(" ")[0])  # as in "CANCELLED by 1000"
        if of_job.state and not of_job.is_there:
            found[job] = of_job
    return found


def _standing(state: JobState) -> int:
    """What of an array stands for the whole: what runs, then what waits, then what failed."""
    waits_in_turn = state.is_queued and state.reason != AFTER_ANOTHER
    ranks = (
        state.is_running,
        state.is_leaving,
        waits_in_turn,
        state.is_queued,
        state.state != "COMPLETED",
    )
    return ranks.index(True) if any(ranks) else len(ranks)


def _in_utc(local: str) -> str | None:
    try:
        return datetime.fromisoformat(local).astimezone(UTC).isoformat(timespec="seconds")
    except ValueError:  # N/A
        return None


def _end(*command: str) -> None:
    """Run a ``scancel``; that a job has ended before is no failure."""
    _run(*command, timeout_s=_QUEUE_S)


def _run(*command: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in clean(os.environ).items()
        if not name.startswith(_OWN_VARIABLES)
    }
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=environment,
        )
    except FileNotFoundError:
        raise CardamageError(f"this machine has no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise CardamageError(
            f"SLURM does not answer: {command[0]} said nothing for {timeout_s:g} s"
        ) from None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "it did not say why"
