"""Stopping runs on SLURM, from any machine that sees their files and SLURM.

The request to cancel lies in the run directory while this goes on: by it the batch script knows
that what saves and stops is not to be queued again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from cardamage.errors import CardamageError, ExitStatus, RunError
from cardamage.paths import STAGES, RunPaths
from cardamage.stages import now, read_stage, write_stage
from launch.job_queue import (
    JobState,
    Queue,
    ask_queue,
    cancel_now,
    cancel_queued,
    signal_jobs,
)
from launch.local import cancel_waiting
from launch.overview import all_runs
from launch.record import LaunchRecord, unfinished_jobs
from launch.stop import Request, ask

_POLL_S = 0.5
_AGAIN_S = 3.0  # a signal that came before the stage's processes reached nobody


@dataclass(frozen=True)
class SlurmRun:
    """A run whose stages are jobs.

    Attributes:
        run: the run.
        launch: its last launch.
    """

    run: RunPaths
    launch: LaunchRecord


def cancel_on_slurm(
    wanted: Sequence[SlurmRun], request: Request, timeout_s: float
) -> dict[RunPaths, str]:
    """Stop runs together and wait until SLURM has nothing of them; what was done, in words.

    A job that also works for a run that is not named goes on.

    Raises:
        RunError: SLURM does not answer, so that nothing was cancelled.
        CardamageError: jobs had not ended after ``timeout_s`` seconds.
    """
    jobs = _own_jobs(wanted)
    queue = ask_queue(job for of_run in jobs.values() for job in of_run)
    if queue.problem:
        places = " or ".join(dict.fromkeys(one.launch.where for one in wanted))
        raise RunError(
            f"{queue.problem}; nothing was cancelled: try again on a machine of {places}"
        )
    at_work = [run for run, of_run in jobs.items() if _there(queue, of_run)]
    for run in at_work:
        ask(run, request)
    _end([job for run in at_work for job in jobs[run]], request, timeout_s)
    done: dict[RunPaths, str] = {}
    for one in wanted:
        settled = _settle(one)
        one.run.cancel_request.unlink(missing_ok=True)
        if one.run in at_work or settled:
            stages = [stage for stage in STAGES if stage in one.launch.stages]
            states = {stage: read_stage(one.run, stage).state for stage in stages}
            done[one.run] = ", ".join(f"{stage} {state}" for stage, state in states.items())
        else:
            done[one.run] = "nothing of it runs or waits"
    return done


def _own_jobs(wanted: Sequence[SlurmRun]) -> dict[RunPaths, list[str]]:
    """The jobs of each run, downstream first, without those that other runs need too."""
    named = {one.run.root.resolve() for one in wanted}
    needed: set[str] = set()
    for folder in {root.parent for root in named}:
        for other in all_runs(folder):
            if other.root.resolve() not in named:
                with suppress(RunError):
                    needed.update(unfinished_jobs(other))
    return {
        one.run: [job for job in reversed(one.launch.jobs.values()) if job not in needed]
        for one in wanted
    }


def _end(jobs: Sequence[str], request: Request, timeout_s: float) -> None:
    """Have SLURM end jobs, and wait until it has."""
    deadline = time.monotonic() + timeout_s
    told: dict[str, float] = {}
    while True:
        queue = ask_queue(jobs)
        there = _there(queue, jobs)
        if not there and not queue.problem:
            return
        if time.monotonic() > deadline:
            if there and all(job.is_leaving for job in there.values()):
                return  # a node that is gone keeps a job that has ended for long
            raise CardamageError(
                f"job {', '.join(there) or ', '.join(jobs)} was asked to end, but has not after "
                f"{timeout_s:g} s; wait, or end it at once with --kill"
            )
        _tell(there, request, told)
        time.sleep(_POLL_S)


def _tell(there: Mapping[str, JobState], request: Request, told: dict[str, float]) -> None:
    """Cancel what waits, and signal or end what runs; ``told`` says when each was last told."""
    moment = time.monotonic()
    running = [
        id_
        for id_, job in there.items()
        if job.is_running and moment - told.get(id_, -_AGAIN_S) >= _AGAIN_S
    ]
    if waiting := [id_ for id_, job in there.items() if job.state == "PENDING"]:
        cancel_queued(waiting)
    if held := [id_ for id_, job in there.items() if job.is_queued and id_ not in waiting]:
        cancel_now(held)
    if running:
        told.update(dict.fromkeys(running, moment))
        (cancel_now if request is Request.KILL else signal_jobs)(running)


def _there(queue: Queue, jobs: Sequence[str]) -> dict[str, JobState]:
    return {id_: job for id_ in jobs if (job := queue.find(id_)) and job.is_there}


def _settle(one: SlurmRun) -> bool:
    """Put on record what ended without a word, or never began; whether there was any."""
    stages = list(dict.fromkeys([*one.launch.stages, *one.launch.jobs]))
    lost = [record for stage in stages if (record := read_stage(one.run, stage)).state == "running"]
    for record in lost:
        stopped = replace(record, state="stopped", exit_status=ExitStatus.STOPPED, ended=now())
        write_stage(one.run, replace(stopped, error="ended at once", error_class="stopped"))
    return bool([*lost, *cancel_waiting(one.run, stages)])
