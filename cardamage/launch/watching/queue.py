"""What SLURM says of jobs: one ``squeue`` for all of them, then ``sacct`` for those it forgot.

Nothing here fails because SLURM or its accounting is down: a :class:`Queue` then knows less, and
says why. Signals and cancellations do fail, in one line.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache

from cardamage.errors import CardamageError, RunError
from cardamage.launch.watching.client import ask, gist

_PING_S, _QUEUE_S, _ACCOUNTING_S = 10.0, 20.0, 5.0
_FIELDS = (
    *("JobArrayID", "JobID", "State", "Reason", "NodeList", "RestartCnt", "StartTime"),
    *("Partition", "Comment"),
)
_QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "CONFIGURING", "SIGNALING", "STAGE_OUT", "RESIZING", "SUSPENDED", "STOPPED")
AFTER_ANOTHER = "Dependency"
"""SLURM's reason for a job that waits for another."""


@dataclass(frozen=True)
class JobState:
    """What SLURM says of a job, in its own words.

    Attributes:
        reason: why it waits; empty when it does not.
        starts: when it is expected to start, ISO 8601 in UTC, if it waits and anybody knows.
        partition: the one it was given; while it waits, all that may be.
        comment: what it was submitted with; None where nobody says.
    """

    state: str
    reason: str = ""
    nodes: str = ""
    restarts: int = 0
    starts: str | None = None
    partition: str = ""
    comment: str | None = None

    @property
    def is_queued(self) -> bool:
        """Whether it waits, or waits again."""
        return self.state in _QUEUED and not self.never_starts

    @property
    def is_running(self) -> bool:
        """Whether it has nodes and works."""
        return self.state in _RUNNING

    @property
    def is_leaving(self) -> bool:
        """Whether its processes are being ended; it may be queued again next."""
        return self.state == "COMPLETING"

    @property
    def never_starts(self) -> bool:
        """Whether it waits for a job that has failed, on a site that keeps such jobs."""
        return self.state == "PENDING" and self.reason == "DependencyNeverSatisfied"

    @property
    def is_there(self) -> bool:
        """Whether SLURM still has to do with it."""
        return self.state in _QUEUED or self.is_running or self.is_leaving


@dataclass(frozen=True)
class Queue:
    """What SLURM knew of the jobs it was ``asked`` about, by id, or why it did not answer.

    An element of an array is ``123_4``. ``cluster`` is the one that answered. A job whose comment
    lacks ``comment`` is another's: ids begin again where a cluster was set up anew.
    """

    jobs: Mapping[str, JobState] = field(default_factory=dict)
    problem: str | None = None
    asked: frozenset[str] = frozenset()
    cluster: str | None = None
    comment: str = ""

    def of(self, cluster: str | None, comment: str) -> "Queue":
        """The same as to a submission to ``cluster`` under ``comment``: ids alone prove nothing."""
        if self.problem is None and cluster and self.cluster and cluster != self.cluster:
            problem = f"its jobs are on the cluster {cluster}, and this one is {self.cluster}"
            return Queue(problem=problem, asked=self.asked)
        return replace(self, comment=comment)

    def find(self, job: str) -> JobState | None:
        """A job's state; of a whole array that of the element that has the most to do yet."""
        if found := self.jobs.get(job):
            return found if self._is_ours(found) else None
        elements = [state for id_, state in self.jobs.items() if id_.startswith(f"{job}_")]
        return min(filter(self._is_ours, elements), key=_standing, default=None)

    def _is_ours(self, state: JobState) -> bool:
        return state.comment is None or self.comment in state.comment

    def first(self, jobs: Sequence[str]) -> tuple[str, JobState | None]:
        """Of the jobs that share some work, that which ends it last, the one to look at now."""
        there = [(job, state) for job in jobs if (state := self.find(job)) and state.is_there]
        last = jobs[-1], self.find(jobs[-1])
        return min(there, key=lambda pair: _standing(pair[1]), default=last)


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
        found = ask(*command, f"--Format={fields}", f"--jobs={numbers}", timeout_s=_QUEUE_S)
    except CardamageError as error:
        return Queue(problem=str(error), asked=frozenset(wanted))
    if found.returncode != 0 and "Invalid job id" not in found.stderr:
        problem = f"squeue failed: {gist(found.stderr)}"
        return Queue(problem=problem, asked=frozenset(wanted))
    return Queue(parse_queue(found.stdout), asked=frozenset(wanted), cluster=cluster_name())


def cluster_name() -> str | None:
    """What the cluster calls itself; None where nobody says."""
    with suppress(CardamageError):
        return _name_by(os.environ.get("SLURM_CONF"))
    return None


@cache
def _name_by(conf: str | None) -> str:  # noqa: ARG001 - another file, another cluster
    """The name, asked for once: a failure is not remembered."""
    shown = ask("scontrol", "show", "config", timeout_s=_PING_S).stdout
    found = re.search(r"^ClusterName\s*=\s*(\S+)", shown, re.MULTILINE)
    if not found:
        raise CardamageError("scontrol show config names no cluster")
    return found[1]


def commented(comment: str) -> list[str]:
    """The jobs that wait or run under a comment; of an array every element.

    Raises:
        CardamageError: SLURM does not answer.
    """
    ping()
    found = ask(
        "squeue", "--noheader", "--array", "--Format=JobArrayID:|,Comment:|", timeout_s=_QUEUE_S
    )
    lines = (line.split("|", 1) for line in found.stdout.splitlines())
    return [line[0] for line in lines if comment in line[-1]]


def ask_accounting(queue: Queue, jobs: Iterable[str]) -> Queue:
    """Add what accounting says of jobs that the queue has forgotten; nothing where it is off."""
    wanted = [job for job in dict.fromkeys(jobs) if not queue.find(job)]
    if not wanted or queue.problem or not shutil.which("sacct"):
        return queue
    numbers = ",".join(dict.fromkeys(job.partition("_")[0] for job in wanted))
    command = ("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State")
    try:
        found = ask(*command, f"--jobs={numbers}", timeout_s=_ACCOUNTING_S)
    except CardamageError:
        return queue
    return replace(queue, jobs={**parse_accounting(found.stdout), **queue.jobs})


def ping() -> None:
    """Raise CardamageError unless SLURM answers: its other commands take long to say so."""
    if not shutil.which("squeue") or not shutil.which("scontrol"):
        raise CardamageError("this machine has no squeue")
    found = ask("scontrol", "ping", timeout_s=_PING_S)
    if "UP" not in found.stdout.split():
        raise CardamageError("SLURM does not answer: scontrol ping finds no controller that is up")


def scancel(jobs: Iterable[str], *options: str) -> None:
    """End jobs, or as the options of ``scancel`` say; that one has ended before is no failure.

    Raises:
        RunError: they are somebody else's.
    """
    wanted = list(jobs)
    found = ask("scancel", *options, *wanted, timeout_s=_QUEUE_S)
    if found.returncode and "permission denied" in found.stderr.lower():
        raise RunError(
            f"SLURM refuses to cancel job {', '.join(wanted)}: {gist(found.stderr)}; ask their "
            f"owner to cancel them"
        )


def parse_queue(text: str) -> dict[str, JobState]:
    """The jobs of what ``squeue`` printed; an element of an array also by its own job id."""
    found: dict[str, JobState] = {}
    for line in text.splitlines():
        values = line.split("|", len(_FIELDS) - 1)
        if len(values) < len(_FIELDS):
            continue
        job, number, state, reason, nodes, restarts, starts, partition, comment = values
        waits = state in _QUEUED
        of_job = JobState(
            state,
            reason if reason != "None" and waits else "",
            nodes,
            int(restarts) if restarts.isdecimal() else 0,
            _in_utc(starts) if waits else None,
            partition,
            comment.removesuffix("|").replace("(null)", ""),
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
    ranks = (
        state.is_running,
        state.is_leaving,
        state.is_queued and state.reason != AFTER_ANOTHER,
        state.is_queued,
        state.state != "COMPLETED",
        True,
    )
    return ranks.index(True)


def _in_utc(local: str) -> str | None:
    try:
        return datetime.fromisoformat(local).astimezone(UTC).isoformat(timespec="seconds")
    except ValueError:  # N/A
        return None
