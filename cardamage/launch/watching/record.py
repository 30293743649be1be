"""``launch.json``: who launched a run last, and whether that launcher is still at work."""

import json
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cardamage.errors import RunError
from cardamage.launch.watching.queue import Queue, ask_queue
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import cancel_waiting, is_lost, now, read_stage
from cardamage.system.files import naming, write_json
from cardamage.system.locks import hold
from cardamage.system.processes import birth, is_alive, with_environment

TAG = "CARDAMAGE_LAUNCH"
"""The environment variable that every process of a launch carries; its value is the tag."""


@dataclass(frozen=True)
class LaunchRecord:
    """A launch of one run.

    Attributes:
        host: the launcher's machine; ``pid`` is its process there, which began at ``born``.
        tag: the value of :data:`TAG` around every process that was started for the run.
        stages: the command of each stage, in order.
        started: when, ISO 8601 in UTC.
        ended: when the launcher was done with the run; None before, and when it was killed.
        jobs: the SLURM job of each stage, in order; an element of an array is ``123_4``. What
            shares the work of a stage is ``test.3``.
        slurm_cluster, comment: what SLURM calls the cluster, and what all jobs of this submission
            carry as their comment: by its id alone a job may be another's.
        submission: the file that has the jobs of all its runs from the moment that all of them are
            queued until each run's record has its own.
        in_turn: the stages whose job does other runs as well, one after another.
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
    in_turn: list[str] = field(default_factory=list)
    slurm_cluster: str | None = None
    comment: str = ""
    submission: str | None = None

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
    """The last launch of a run, with its present jobs; None when nothing launched it."""
    try:
        with naming(run.launch):
            launch = LaunchRecord(**json.loads(run.launch.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (IsADirectoryError, ValueError, TypeError):
        raise RunError(f"{run.launch} is damaged; delete it") from None
    if launch.submission and not launch.ended:
        launch = _as_submitted(run, launch, Path(launch.submission))
    jobs = launch.jobs
    if jobs and run.resubmitted.is_file():
        for line in run.resubmitted.read_text(encoding="utf-8").splitlines():
            old, _, new = line.partition(" ")
            jobs = {stage: new if job == old else job for stage, job in jobs.items()}
    return replace(launch, jobs=jobs)


def _as_submitted(run: RunPaths, launch: LaunchRecord, submission: Path) -> LaunchRecord:
    """A launch whose launcher was killed when all its jobs were queued, but not all noted."""
    with suppress(OSError, ValueError, StopIteration):
        submitted = json.loads(submission.read_text(encoding="utf-8"))
        here = run.root.resolve()
        jobs = next(of_run for root, of_run in submitted.items() if Path(root).resolve() == here)
        moment = datetime.fromtimestamp(submission.stat().st_mtime, UTC)
        return replace(launch, jobs=jobs, ended=moment.isoformat(timespec="seconds"))
    return launch


def was_cut_off(launch: LaunchRecord | None) -> bool:
    """Whether a submission to SLURM was ended before all of it was queued, as far as one can tell.

    Its jobs, if there are any, find that out and end.
    """
    if launch is None or launch.ended or not launch.comment:
        return False
    return not is_here(launch) and not is_elsewhere(launch)


def is_here(launch: LaunchRecord | None) -> bool:
    """Whether the launcher still runs, on this machine."""
    if launch is None or launch.ended or launch.host != socket.gethostname():
        return False
    return is_alive(launch.pid, launch.born)


def is_elsewhere(launch: LaunchRecord | None) -> bool:
    """Whether the launcher may still run, on another machine: nobody can tell from here."""
    return launch is not None and not launch.ended and launch.host != socket.gethostname()


def unfinished_jobs(run: RunPaths) -> dict[str, str]:
    """The SLURM jobs that may still work for a run, and the stage of each."""
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
    """Raise RunError where a launcher, a stage or a job of a run is at work or waits.

    ``queue`` is what SLURM said of :func:`unfinished_jobs` a moment ago; it is asked where needed.
    """
    launch, here = read_launch(run), socket.gethostname()
    if launch and (is_here(launch) or is_elsewhere(launch)):
        raise RunError(
            f"{run.root} is being run already, by process {launch.pid} on {launch.host}, since "
            f"{launch.started}; {_remedy(run, launch.host, run.launch)}"
        )
    if launch and launch.jobs:
        _check_jobs(run, launch, queue)
    for stage in STAGES:
        record = read_stage(run, stage)
        if record.state != "running" or is_lost(record) or (launch and launch.jobs_of(stage)):
            continue
        raise RunError(
            f"stage {stage} of {run.root} is running already, as process {record.pid} on "
            f"{record.host}; {_remedy(run, record.host, run.stage(stage))}"
        )
    if launch and launch.host == here and (left := tagged(launch.tag)):
        raise RunError(
            f"{run.root}: its launcher is gone, but process {left[0]} on {here} still works for "
            f"it; {_remedy(run, here, run.launch)}"
        )


def _remedy(run: RunPaths, host: str | None, record: Path) -> str:
    """What to do about something that works for a run on ``host``, as ``record`` says."""
    if host == socket.gethostname():
        return f"wait for it, or stop it: cardamage cancel {run.root}"
    return f"wait for it, or cancel it there; if that machine is gone, delete {record}"


def _check_jobs(run: RunPaths, launch: LaunchRecord, queue: Queue | None) -> None:
    jobs = unfinished_jobs(run)
    if queue is None or not queue.asked.issuperset(jobs):
        queue = ask_queue(jobs)
    queue = queue.of(launch.slurm_cluster, launch.comment)
    for job, stage in jobs.items():
        state = queue.find(job)
        if state and state.is_there:
            how = "queued" if state.is_queued else "running"
            raise RunError(
                f"{run.root} is being run already: stage {stage} is {how} as job {job}; wait for "
                f"it, or stop it: cardamage cancel {run.root}"
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
    """Take a free run for this launch; of two that come at the same moment one is refused."""
    lock = run.lock("launch")
    lock.parent.mkdir(exist_ok=True)
    with hold(lock, f"{run.root} is being launched", "wait for it", wait=True):
        check_free(run, queue)
        run.cancel_request.unlink(missing_ok=True)
        # Should the machine crash now, there is no launcher either; and of 200 runs it is a second.
        write_json(run.launch, asdict(launch), flushed=False, makes_folder=False)


def give_up(run: RunPaths, launch: LaunchRecord) -> None:
    """End a submission that was cut off, unless the run has another by now."""
    with hold(run.lock("launch"), f"{run.root} is being launched", "wait for it", wait=True):
        now_there = read_launch(run)
        if now_there and now_there.tag == launch.tag and not now_there.ended:
            cancel_waiting(run, list(launch.stages))
            release(run, launch)


def release(run: RunPaths, launch: LaunchRecord) -> None:
    """Say that a launch is done with a run."""
    write_json(run.launch, asdict(replace(launch, ended=now())), makes_folder=False)
    run.cancel_request.unlink(missing_ok=True)
