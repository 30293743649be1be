"""The local backend: the stages of each run one after another, and the runs one after another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from cardamage.errors import ExitStatus
from cardamage.launch.local.commands import Command
from cardamage.launch.local.process import StageProcess
from cardamage.launch.planning.graph import RunPlan
from cardamage.launch.watching.display import Countdown, StageDisplay
from cardamage.launch.watching.notify import tell
from cardamage.launch.watching.record import LaunchRecord, claim, release
from cardamage.launch.watching.stopping import StopRequest, StopSignals, requested
from cardamage.runs.missing import missing_stages
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import cancel_waiting, read_stage, wait


@dataclass(frozen=True)
class Launch:
    """One run, what to start for each of its stages, and what ``launch.json`` will say."""

    plan: RunPlan
    commands: Mapping[str, Command]
    record: LaunchRecord


Ending = tuple[str, ExitStatus, str]
"""How a run ended: the stage after which no other was started, and the error in one line."""


def run_here(
    launches: Sequence[Launch], console: Console, on_end: Callable[[RunPaths, Ending], None]
) -> ExitStatus:
    """Run every launch to its end, in order; a failed run does not keep the next from running.

    ``on_end`` is told how each run ended as soon as it is known.

    Returns:
        The first exit status that is not 0, if any.

    Raises:
        RunError: a run is at work already; then none is started.
    """
    claimed: list[Launch] = []
    cancelled: set[RunPaths] = set()
    status = ExitStatus.DONE
    runs = sum(not isinstance(launch.plan.run, StudyPaths) for launch in launches)
    countdown = Countdown(console, runs)
    with StopSignals() as signals:
        try:
            for launch in launches:
                claim(launch.plan.run, launch.record)
                claimed.append(launch)
            for plan in (launch.plan for launch in launches):
                for stage in plan.stages:
                    if read_stage(plan.run, stage).state != "done":
                        wait(plan.run, stage)
            while claimed:
                plan = claimed[0].plan
                display = StageDisplay(
                    console, plan.experiment.name, plan.experiment.test.select_by, countdown.place()
                )
                ending = _run_one(claimed[0], claimed[1:], cancelled, signals, display)
                launch = claimed.pop(0)
                release(launch.plan.run, launch.record)
                on_end(launch.plan.run, ending)
                _tell(launch.plan.run, ending)
                is_stopped = ending[1] is ExitStatus.STOPPED
                countdown.tell(min(runs, len(launches) - len(claimed)), is_stopped=is_stopped)
                status = status or ending[1]
        finally:
            for launch in claimed:
                release(launch.plan.run, launch.record)
    return status


def _tell(run: RunPaths, ending: Ending) -> None:
    """Tell people of a run that is over: not of one that was stopped, or not to report yet."""
    stage, status, error = ending
    if status is ExitStatus.DONE and stage == STAGES[-1]:
        tell(run, "done", stage)
    elif status not in (ExitStatus.DONE, ExitStatus.STOPPED):
        tell(run, "failed", stage, error)


def _run_one(
    launch: Launch,
    later: Sequence[Launch],
    cancelled: set[RunPaths],
    signals: StopSignals,
    display: StageDisplay,
) -> Ending:
    """Run one launch to its end, and meanwhile cancel those that come later, if asked to."""
    plan, run = launch.plan, launch.plan.run

    def asked() -> StopRequest:
        for other in (other.plan for other in later):
            if other.run.cancel_request.is_file():
                cancelled.add(other.run)
                cancel_waiting(other.run, other.stages)
                other.run.cancel_request.unlink(missing_ok=True)
        return StopRequest.STOP if run in cancelled else requested(run, signals)

    for stage in plan.stages:
        if asked():
            cancel_waiting(run, plan.stages)
            return stage, ExitStatus.STOPPED, "asked to stop before it began"
        if _has_nothing_to_do(plan, stage):
            continue
        command, tag = launch.commands[stage], launch.record.tag
        record = StageProcess(run, stage, command, tag, requested=asked, display=display).run()
        if record.state == "stopped":
            cancel_waiting(run, plan.stages)
        if record.state != "done":
            told = record.exit_status in (ExitStatus.USER_ERROR, ExitStatus.STOPPED)
            status = record.exit_status if told and record.exit_status else ExitStatus.FAILED
            return stage, ExitStatus(status), record.error or record.state
    return plan.stages[-1], ExitStatus.DONE, ""


def _has_nothing_to_do(plan: RunPlan, stage: str) -> bool:
    """Whether a stage need not even be started; packing looks itself whether the data changed."""
    if stage == "pack" or isinstance(plan.run, StudyPaths):
        return False
    return stage not in missing_stages(plan.run, plan.experiment)
