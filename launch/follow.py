"""Watching runs that SLURM works for, from their files: ``submit --follow``."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console

from cardamage.errors import ExitStatus, Stopped
from cardamage.plain_text import plain
from launch.display import StageDisplay
from launch.events import EventTail, end_of
from launch.overview import RunOverview, StageOverview, overviews
from launch.plan import RunPlan

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
    try:
        while True:
            shown = overviews([plan.run for plan in plans])
            for watch, of_run in zip(watches, shown, strict=True):
                watch.show(of_run)
            if not any(of_run.launcher for of_run in shown):
                for of_run in shown:
                    _say_page(of_run)
                return next((s for of_run in shown if (s := _status(of_run))), ExitStatus.DONE)
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        raise Stopped("no longer following; the jobs go on, see python launch/status.py") from None
    finally:
        for watch in watches:
            watch.close()


class _Watch:
    """What of one run has been shown."""

    def __init__(self, plan: RunPlan, console: Console) -> None:
        self._run, self._console = plan.run, console
        self._title, self._select_by = plan.experiment.name, plan.experiment.test.select_by
        self._events = EventTail(plan.run.events, end_of(plan.run.events))
        self._states: dict[str, str] = {}
        self._display: StageDisplay | None = None

    def show(self, of_run: RunOverview) -> None:
        """Show what is new."""
        events = self._events.read()
        for stage, of_stage in of_run.stages.items():
            state, before = _in_words(of_stage), self._states.get(stage, "waiting")
            if state == before:
                continue
            self._states[stage] = state
            if of_stage.state == "running":
                self._display = StageDisplay(self._console, self._title, self._select_by)
                self._display.start(stage)
            elif self._display and before.startswith("running"):
                self._display.show(events)
                self._display.end(state)
                self._display = None
            elif of_stage.state != "waiting":
                self._console.print(
                    plain(f"{self._title} {stage}: {state}"),
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
        if self._display:
            self._display.show(events)

    def close(self) -> None:
        """End the bar, if there is one."""
        if self._display:
            self._display.end("no longer followed")
            self._display = None


def _in_words(of_stage: StageOverview) -> str:
    match of_stage.state:
        case "queued":
            reason = f", {of_stage.job.reason}" if of_stage.job and of_stage.job.reason else ""
            return f"queued as job {of_stage.job_id}{reason}"
        case "running":
            return f"running as job {of_stage.job_id}"
        case "done" | "waiting" | "cancelled":
            return of_stage.state
        case state:
            log = f"; log: {of_stage.log}" if of_stage.log else ""
            return f"{state}: {of_stage.error or 'it did not say why'}{log}"


def _say_page(of_run: RunOverview) -> None:
    report = of_run.stages["report"]
    if report.state == "done" and (page := report.record.output.get("page")):
        print(f"report: {page}")


def _status(of_run: RunOverview) -> ExitStatus:
    """0 when every stage that was launched is done; else how the first that is not ended."""
    for of_stage in of_run.stages.values():
        if of_stage.state == "done" or not of_stage.job_id:
            continue
        known = (ExitStatus.USER_ERROR, ExitStatus.STOPPED)
        status = of_stage.record.exit_status
        return ExitStatus(status) if status in known else ExitStatus.FAILED
    return ExitStatus.DONE
