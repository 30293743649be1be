"""``launch.json``: who launched a run last, and whether that launcher is still at work."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from cardamage.errors import RunError
from cardamage.files import naming, write_json
from cardamage.locks import hold
from cardamage.paths import STAGES, RunPaths
from cardamage.processes import birth, is_alive, with_environment
from cardamage.stages import is_lost, now, read_stage
from launch.job_queue import Queue, ask_queue

TAG = "CARDAMAGE_LAUNCH"
"""The environment variable that every process of a launch carries; its value is the tag."""


@dataclass(frozen=True)
class LaunchRecord:
    """A launch of one run.

    Attributes:
        backend: what runs the stages, such as ``local``.
        cluster: the profile's name.
        host: the launcher's machine.
        pid: the launcher's process.
        born: when that process began.
        tag: the value of :data:`TAG` around every process that was started for the run.
        directory: the folder the stages run in.
        command: what the user typed, as arguments.
        stages: the command of each stage, in order.
        started: when, ISO 8601 in UTC.
        ended: when the launcher was done with the run; None before, and when it was killed.
        jobs: the SLURM job of each stage, in order; an element of an array is ``123_4``. What
            shares the work of a stage is ``test.3``.
    """

    backend: str
    cluster: str
    host: str
    pid: int
    born: str | None
    tag: str
    directory: str
    command: list[str]
    stages: dict[str, list[str]]
    started: str
    ended: str | None = None
    jobs: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The cluster, and a machine from which it was reached."""
        return f"cluster {self.cluster}, such as {self.host}"

    def jobs_of(self, stage: str) -> list[str]:
        """The SLURM jobs of a stage, that which ends it last; none on another backend."""
        parts = [job for name, job in self.jobs.items() if name.startswith(f"{stage}.")]
        return [*parts, self.jobs[stage]] if stage in self.jobs else parts


def new_launch(
    backend: str, cluster: str, command: Sequence[str], stages: Mapping[str, Sequence[str]]
) -> LaunchRecord:
    """A launch by this process, from now on."""
    return LaunchRecord(
        backend=backend,
        cluster=cluster,
        host=socket.gethostname(),
        pid=os.getpid(),
        born=birth(os.getpid()),
        tag=uuid.uuid4().hex,
        directory=str(Path.cwd()),
        command=list(command),
        stages={stage: list(arguments) for stage, arguments in stages.items()},
        started=now(),
    )


def read_launch(run: RunPaths) -> LaunchRecord | None:
    """The last launch of a run; None when nothing launched it.

    Raises:
        RunError: the file is damaged.
    """
    try:
        with naming(run.launch):
            launch = LaunchRecord(**json.loads(run.launch.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (IsADirectoryError, ValueError, TypeError):
        raise RunError(f"{run.launch} is damaged; delete it") from None
    return _with_present_jobs(run, launch) if launch.jobs else launch


def _with_present_jobs(run: RunPaths, launch: LaunchRecord) -> LaunchRecord:
    """A launch with the jobs that took the place of those it began with."""
    try:
        lines = run.resubmitted.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return launch
    jobs = launch.jobs
    for line in lines:
        old, _, new = line.partition(" ")
        jobs = {stage: new if job == old else job for stage, job in jobs.items()}
    return replace(launch, jobs=jobs)


def is_here(launch: LaunchRecord | None) -> bool:
    """Whether the launcher still runs, on this machine."""
    if launch is None or launch.ended or launch.host != socket.gethostname():
        return False
    return is_alive(launch.pid, launch.born)


def is_elsewhere(launch: LaunchRecord | None) -> bool:
    """Whether the launcher may still run, on another machine: nobody can tell from here."""
    return launch is not None and not launch.ended and launch.host != socket.gethostname()


def unfinished_jobs(run: RunPaths) -> dict[str, str]:
    """The SLURM jobs that may still work for a run, and the stage of each.

    Raises:
        RunError: a file that tells is damaged.
    """
    launch = read_launch(run)
    if launch is None or not launch.jobs:
        return {}
    return {
        job: stage
        for stage in STAGES
        if read_stage(run, stage).state not in ("done", "cancelled")
        for job in launch.jobs_of(stage)
    }


def check_free(run: RunPaths, queue: Queue | None = None) -> None:
    """Make sure that nobody else is at work on a run.

    Args:
        run: the run.
        queue: what SLURM said of :func:`unfinished_jobs` a moment ago; it is asked where needed.

    Raises:
        RunError: a launcher, a stage or a job of it runs or waits.
    """
    launch = read_launch(run)
    cancel = f"wait for it, or stop it: python launch/cancel.py {run.root}"
    if launch and is_here(launch):
        raise RunError(
            f"{run.root} is being run already, by process {launch.pid} on {launch.host}, since "
            f"{launch.started}; {cancel}"
        )
    if launch and is_elsewhere(launch):
        raise RunError(
            f"{run.root} is being run already, by process {launch.pid} on {launch.host}, since "
            f"{launch.started}; wait for it, or cancel it there; if that machine is gone, delete "
            f"{run.launch}"
        )
    if launch and launch.jobs:
        _check_jobs(run, launch, queue, cancel)
    for stage in STAGES:
        record = read_stage(run, stage)
        if record.state != "running" or is_lost(record) or (launch and launch.jobs_of(stage)):
            continue
        where = f"stage {stage} of {run.root} is running already, as process {record.pid}"
        if record.host == socket.gethostname():
            raise RunError(f"{where} on {record.host}; {cancel}")
        raise RunError(
            f"{where} on {record.host}; wait for it, or cancel it there; if that machine is gone, "
            f"delete {run.stage(stage)}"
        )
    if launch and launch.host == socket.gethostname() and (left := tagged(launch.tag)):
        raise RunError(
            f"{run.root}: its launcher is gone, but process {left[0]} on {launch.host} still works "
            f"for it; {cancel}"
        )


def _check_jobs(run: RunPaths, launch: LaunchRecord, queue: Queue | None, cancel: str) -> None:
    jobs = unfinished_jobs(run)
    if queue is None or not queue.asked.issuperset(jobs):
        queue = ask_queue(jobs)
    for job, stage in jobs.items():
        state = queue.find(job)
        if state and state.is_there:
            how = "queued" if state.is_queued else "running"
            raise RunError(
                f"{run.root} is being run already: stage {stage} is {how} as job {job}; {cancel}"
            )
        if queue.problem and read_stage(run, stage).state != "failed":
            raise RunError(
                f"{run.root}: nobody can tell whether job {job} still works for stage {stage}: "
                f"{queue.problem}; try again on a machine of {launch.where}, or if its jobs are "
                f"gone, delete {run.launch}"
            )


def tagged(tag: str) -> list[int]:
    """The processes of this machine that were started by the launch with that tag."""
    return with_environment(TAG, tag)


def claim(run: RunPaths, launch: LaunchRecord, queue: Queue | None = None) -> None:
    """Take a run for this launch, unless somebody else has it.

    Of two launchers that come at the same moment one is refused.

    Args:
        run: the run.
        launch: the launch.
        queue: as for :func:`check_free`.

    Raises:
        RunError: a launcher or a stage of it runs.
    """
    lock = run.lock("launch")
    lock.parent.mkdir(exist_ok=True)
    with hold(lock, f"{run.root} is being launched", "wait for it", wait=True):
        check_free(run, queue)
        run.cancel_request.unlink(missing_ok=True)
        # Should the machine crash now, there is no launcher either; and of 200 runs it is a second.
        write_json(run.launch, asdict(launch), flushed=False, makes_folder=False)


def release(run: RunPaths, launch: LaunchRecord) -> None:
    """Say that a launch is done with a run."""
    write_json(run.launch, asdict(replace(launch, ended=now())), makes_folder=False)
    run.cancel_request.unlink(missing_ok=True)
