"""Stopping runs on SLURM, from any machine that sees their files and SLURM.

The request to cancel lies in the run directory while this works: by it the batch script knows
that what saves and stops is not to be queued again.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from cardamage.errors import CardamageError, RunError
from cardamage.launch.slurm.attempt import is_at_work
from cardamage.launch.watching import queue as slurm
from cardamage.launch.watching.overview import all_runs
from cardamage.launch.watching.record import LaunchRecord, unfinished_jobs
from cardamage.launch.watching.stopping import NOTHING, StopRequest, ask, stage_states
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import cancel_waiting, read_stage, stop

_POLL_S = 0.5
_AGAIN_S = 3.0  # a signal that came before the stage's processes reached nobody


def cancel_on_slurm(
    wanted: Mapping[RunPaths, LaunchRecord], request: StopRequest, timeout_s: float
) -> dict[RunPaths, str]:
    """Stop runs together and wait until SLURM has nothing of them; what was done, in words.

    ``wanted`` maps each to its last launch. A job that also works for another run continues; one
    that takes runs in turn goes on with the next, and leaves out those that have not begun.

    Raises:
        RunError: SLURM does not answer, so that nothing was cancelled, or it refuses.
        CardamageError: jobs had not ended after ``timeout_s`` seconds.
    """
    jobs, shared = _own_jobs(wanted)
    all_jobs = (*jobs.values(), *(of_run.values() for of_run in shared.values()))
    queue = slurm.ask_queue(job for of_run in all_jobs for job in of_run)
    for launch in wanted.values():
        queue = queue if queue.problem else queue.of(launch.slurm_cluster, "")
    if queue.problem:
        places = " or ".join(dict.fromkeys(launch.where for launch in wanted.values()))
        raise RunError(
            f"{queue.problem}; nothing was cancelled: try again on a machine of {places}"
        )
    ours = {run: queue.of(None, launch.comment) for run, launch in wanted.items()}
    jobs = {run: [*_there(ours[run], of_run)] for run, of_run in jobs.items()}
    turns = {run: _there(ours[run], [*of_run.values()]) for run, of_run in shared.items()}
    at_work = [run for run, of_run in jobs.items() if of_run or turns[run]]
    for run in at_work:
        ask(run, request)
    try:
        _end([job for run in at_work for job in jobs[run]], request, timeout_s)
        _end_turns({run: shared[run] for run in at_work if turns[run]}, request, timeout_s)
    except RunError:  # refused: the owner's run is not to stop by it later
        for run in at_work:
            run.cancel_request.unlink(missing_ok=True)
        raise
    done: dict[RunPaths, str] = {}
    for run, launch in wanted.items():
        stages = list(dict.fromkeys([*launch.stages, *launch.jobs]))
        markers = [read_stage(run, stage) for stage in stages]
        killed = [record for record in markers if record.state == "running"]
        for record in killed:
            stop(run, record, "ended at once")
        waited = cancel_waiting(run, stages)
        if not turns[run]:  # a job that has other runs to do reads it when it comes to this one
            run.cancel_request.unlink(missing_ok=True)
        was_over = not (run in at_work or killed or waited)
        done[run] = NOTHING if was_over else stage_states(run, launch.stages)
    return done


def _own_jobs(
    wanted: Mapping[RunPaths, LaunchRecord],
) -> tuple[dict[RunPaths, list[str]], dict[RunPaths, dict[str, str]]]:
    """The jobs of each run, downstream first, without those that other runs need too.

    And of those others, by stage, the ones that take runs in turn.
    """
    named = {run.root.resolve() for run in wanted}
    needed: set[str] = set()
    for folder in {root.parent for root in named}:
        for other in all_runs(folder):
            if other.root.resolve() not in named:
                with suppress(RunError):
                    needed.update(unfinished_jobs(other))
    own = {
        run: [job for job in reversed(launch.jobs.values()) if job not in needed]
        for run, launch in wanted.items()
    }
    shared = {
        run: {
            stage: job
            for stage, job in launch.jobs.items()
            if stage in launch.in_turn and job in needed
        }
        for run, launch in wanted.items()
    }
    return own, shared


def _end(jobs: Sequence[str], request: StopRequest, timeout_s: float) -> None:
    """Have SLURM end jobs, and wait until it has."""
    deadline, again = time.monotonic() + timeout_s, 0.0
    while True:
        queue = slurm.ask_queue(jobs)
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
        queued = [id_ for id_, job in there.items() if job.is_queued]
        running = [id_ for id_, job in there.items() if job.is_running]
        if queued:
            slurm.scancel(queued)  # without filters: with one, an element stands for its array
        if running and time.monotonic() >= again:
            again = time.monotonic() + _AGAIN_S
            slurm.scancel(running, *([] if request is StopRequest.KILL else ["--signal=USR2"]))
        time.sleep(_POLL_S)


def _end_turns(
    shared: Mapping[RunPaths, Mapping[str, str]], request: StopRequest, timeout_s: float
) -> None:
    """Have jobs that take runs in turn stop those that they are at, and wait until they have."""
    deadline, again = time.monotonic() + timeout_s, 0.0
    while True:
        queue = slurm.ask_queue(job for of_run in shared.values() for job in of_run.values())
        at = [
            job
            for run, of_run in shared.items()
            for stage, job in of_run.items()
            if is_at_work(run, stage) and (state := queue.find(job)) and state.is_running
        ]
        if not at and not queue.problem:
            return
        if time.monotonic() > deadline:
            raise CardamageError(
                f"job {', '.join(at)} was asked to stop, but has not after {timeout_s:g} s; wait, "
                f"or end it at once with --kill"
            )
        if at and time.monotonic() >= again:
            again = time.monotonic() + _AGAIN_S
            name = "KILL" if request is StopRequest.KILL else "USR2"
            slurm.scancel(at, f"--signal={name}")  # reaches the stage, not the batch script
        time.sleep(_POLL_S)


def _there(queue: slurm.Queue, jobs: Sequence[str]) -> dict[str, slurm.JobState]:
    return {id_: job for id_ in jobs if (job := queue.find(id_)) and job.is_there}
