"""The local backend: the stages of each run one after another, and the runs one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.console import Console

from cardamage.errors import ExitStatus
from cardamage.paths import RunPaths
from cardamage.stages import StageRecord, now, read_stage, write_stage
from launch.commands import Command
from launch.display import StageDisplay
from launch.plan import RunPlan
from launch.record import LaunchRecord, claim, release
from launch.stage_process import StageProcess
from launch.stop import Request, StopSignals, requested


@dataclass(frozen=True)
class Launch:
    """One run, ready to be run here.

    Attributes:
        plan: the run and its stages.
        commands: what to start for each stage.
        record: what ``launch.json`` will say.
    """

    plan: RunPlan
    commands: Mapping[str, Command]
    record: LaunchRecord


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: the run.
        stage: the stage after which no other was started.
        exit_status: 0 when every stage is done.
        error: why it is not, one line.
    """

    run: RunPaths
    stage: str
    exit_status: ExitStatus
    error: str = ""


def run_here(
    launches: Sequence[Launch], console: Console, on_end: Callable[[Outcome], None]
) -> ExitStatus:
    """Run every launch to its end; a failed run does not keep the next from running.

    Args:
        launches: the runs, in order.
        console: where progress is shown.
        on_end: called with each run's outcome as soon as it is known.

    Returns:
        The first exit status that is not 0, if any.

    Raises:
        RunError: a run is at work already; then none is started.
    """
    claimed: list[Launch] = []
    cancelled: set[RunPaths] = set()
    status = ExitStatus.DONE
    with StopSignals() as signals:
        try:
            for launch in launches:
                claim(launch.plan.run, launch.record)
                claimed.append(launch)
            for launch in launches:
                _mark_waiting(launch.plan)
            while claimed:
                outcome = _run_one(claimed[0], claimed[1:], cancelled, signals, console)
                release(outcome.run, claimed.pop(0).record)
                on_end(outcome)
                status = status or outcome.exit_status
        finally:
            for launch in claimed:
                release(launch.plan.run, launch.record)
    return status


def cancel_waiting(run: RunPaths, stages: Sequence[str]) -> list[str]:
    """Mark those of ``stages`` that wait as cancelled; returns which."""
    waiting = [r for stage in stages if (r := read_stage(run, stage)).state == "waiting"]
    for record in waiting:
        write_stage(run, replace(record, state="cancelled", ended=now()))
    return [record.stage for record in waiting]


def _mark_waiting(plan: RunPlan) -> None:
    """Set the markers of the stages to come to ``waiting``; what is done stays done."""
    for job in plan.jobs:
        before = read_stage(plan.run, job.stage)
        if before.state != "done":
            write_stage(plan.run, StageRecord(job.stage, attempts=before.attempts))


def _run_one(
    launch: Launch,
    later: Sequence[Launch],
    cancelled: set[RunPaths],
    signals: StopSignals,
    console: Console,
) -> Outcome:
    """Run one launch to its end, and meanwhile cancel those that come later, if asked to."""
    plan, run = launch.plan, launch.plan.run
    stages = [job.stage for job in plan.jobs]
    display = StageDisplay(console, plan.experiment.name, plan.experiment.test.select_by)

    def asked() -> Request:
        for other in (other.plan for other in later):
            if other.run.cancel_request.is_file():
                cancelled.add(other.run)
                cancel_waiting(other.run, [job.stage for job in other.jobs])
                other.run.cancel_request.unlink(missing_ok=True)
        return Request.STOP if run in cancelled else requested(run, signals)

    for stage in stages:
        if asked():
            cancel_waiting(run, stages)
            return Outcome(run, stage, ExitStatus.STOPPED, "asked to stop before it began")
        process = StageProcess(
            run,
            stage,
            launch.commands[stage],
            tag=launch.record.tag,
            requested=asked,
            display=display,
        )
        record = process.run()
        if record.state != "done":
            if record.state == "stopped":
                cancel_waiting(run, stages)
            status = _exit_status(record)
            return Outcome(run, stage, status, record.error or record.state)
    return Outcome(run, stages[-1], ExitStatus.DONE)


def _exit_status(record: StageRecord) -> ExitStatus:
    if record.exit_status in (ExitStatus.USER_ERROR, ExitStatus.STOPPED):
        return ExitStatus(record.exit_status)
    return ExitStatus.FAILED
