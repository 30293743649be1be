"""Watching runs that SLURM works for, from their files: ``submit --follow``."""

import time
from collections.abc import Sequence

from rich.console import Console

from cardamage.errors import ExitStatus, Stopped, plain
from cardamage.launch.planning.graph import RunPlan
from cardamage.launch.watching.display import Countdown, StageDisplay
from cardamage.launch.watching.overview import RunOverview, StageOverview, overviews
from cardamage.launch.watching.tail import EventTail, end_of
from cardamage.runs.paths import StudyPaths

_POLL_S = 2.0


def follow(plans: Sequence[RunPlan], console: Console) -> ExitStatus:
    """Show the progress of runs until no job of them waits or runs; Ctrl-C leaves them alone.

    Returns:
        The exit status of the first stage that is not done, if any.

    Raises:
        Stopped: Ctrl-C ended the watching.
    """
    if len(plans) > 1:  # bars of several runs would overwrite each other
        console = Console(file=console.file, force_terminal=False, width=console.width)
    watches = [_Watch(plan, console) for plan in plans]
    runs = [plan.run for plan in plans if not isinstance(plan.run, StudyPaths)]
    countdown = Countdown(console, len(runs))
    try:
        while True:
            found = overviews([plan.run for plan in plans])
            for watch, of_run in zip(watches, found, strict=True):
                watch.show(of_run)
            countdown.tell(sum(not each.launcher for each in found if each.run in runs))
            if not any(of_run.launcher for of_run in found):
                break
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        raise Stopped("no longer following; the jobs continue, see cardamage status") from None
    finally:
        for watch in watches:
            watch.end("no longer followed")
    for of_run in found:
        report = of_run.stages["report"]
        if report.state == "done" and (page := report.record.output.get("page")):
            print(f"report: {page}")
    launched = [stage for of_run in found for stage in of_run.stages.values() if stage.job_id]
    for status in (stage.record.exit_status for stage in launched if stage.state != "done"):
        told = status in (ExitStatus.USER_ERROR, ExitStatus.STOPPED)
        return ExitStatus(status) if status and told else ExitStatus.FAILED
    return ExitStatus.DONE


class _Watch:
    """What of one run has been shown."""

    def __init__(self, plan: RunPlan, console: Console) -> None:
        self._title, self._console = plan.experiment.name, console
        self._events = EventTail(plan.run.events, end_of(plan.run.events))
        self._states: dict[str, str] = {}
        self._display = StageDisplay(console, self._title, plan.experiment.test.select_by)
        self._running: str | None = None

    def show(self, of_run: RunOverview) -> None:
        """Show what is new."""
        events = self._events.read()
        for stage, of_stage in of_run.stages.items():
            state = _in_words(of_stage)
            if state == self._states.get(stage, "waiting"):
                continue
            self._states[stage] = state
            if of_stage.state == "running":
                self.end("started again")
                self._running = stage
                self._display.start(stage)
            elif self._running == stage:
                self._display.show(events)
                self.end(state)
            elif state != "waiting":
                text = plain(f"{self._title} {stage}: {state}")
                self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        if self._running:
            self._display.show(events)

    def end(self, outcome: str) -> None:
        """End the bar of the stage that was shown to run, if there is one."""
        if self._running:
            self._display.end(outcome)
            self._running = None


def _in_words(of_stage: StageOverview) -> str:
    if of_stage.state in ("queued", "running"):
        reason = f", {of_stage.job.reason}" if of_stage.job and of_stage.job.reason else ""
        return f"{of_stage.state} as job {of_stage.job_id}{reason}"
    if of_stage.state in ("done", "waiting", "cancelled"):
        return of_stage.state
    log = f"; log: {of_stage.log}" if of_stage.log else ""
    return f"{of_stage.state}: {of_stage.error or 'it did not say why'}{log}"
