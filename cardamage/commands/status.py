"""How runs stand: all runs of the folder when none is named."""

import argparse
import json
import shlex
import signal
import sys
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cardamage.commands.arguments import add_runs
from cardamage.errors import plain
from cardamage.launch.watching.display import duration
from cardamage.launch.watching.overview import (
    RunOverview,
    StageOverview,
    all_runs,
    find_runs,
    overviews,
)
from cardamage.launch.watching.queue import AFTER_ANOTHER
from cardamage.runs.attempts import cost
from cardamage.runs.paths import STAGES

_STYLES = {
    "done": "green",
    "running": "bold cyan",
    "queued": "cyan",
    "failed": "bold red",
    "lost": "bold red",
    "stopped": "yellow",
    "cancelled": "yellow",
    "waiting": "dim",
}
_WIDE = 120  # columns that the table of all stages needs
_FILE_WIDTH = 200  # columns where the output is no terminal, so that nothing is cut


def configure(parser: argparse.ArgumentParser) -> None:
    add_runs(parser, "*")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a run")


def run(arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a word in `status | head`
    runs_dir = arguments.runs_dir
    runs = find_runs(arguments.run, runs_dir)[0] if arguments.run else all_runs(runs_dir)
    found = overviews(runs)
    if arguments.json:
        print(json.dumps([_as_json(of_run) for of_run in found], indent=2))
    elif found:
        _print(found)
    else:
        print(
            f"there are no runs in {runs_dir.absolute()}; go to the folder you submitted from, or "
            f"name theirs with --runs-dir"
        )


def _as_json(of_run: RunOverview) -> dict[str, Any]:
    """One run for a machine to read; times are UTC, durations seconds."""
    best, speed = of_run.best, of_run.speed
    as_they_are = ("seconds_left", "launcher", "host", "cluster", "problem", "queue_problem")
    return {
        "run": of_run.run.root.name,
        "directory": str(of_run.run.root),
        "stages": {name: _stage_as_json(stage) for name, stage in of_run.stages.items()},
        "attempts": [asdict(attempt) for attempt in of_run.attempts],
        "seconds": cost(of_run.attempts),
        "epoch": of_run.epoch,
        "epochs": of_run.epochs,
        "best": best and asdict(best),
        "speed": speed and {"per_second": speed[0], "unit": speed[1]},
        **{name: getattr(of_run, name) for name in as_they_are},
    }


def _stage_as_json(stage: StageOverview) -> dict[str, Any]:
    record, job = stage.record, stage.job
    of_record = ("attempts", "started", "ended", "host", "pid", "exit_status")
    return {
        "state": stage.state,
        **{name: getattr(record, name) for name in of_record},
        "job_id": stage.job_id,
        "error": stage.error,
        "log": str(stage.log) if stage.log else None,
        "job": job and {**asdict(job), "reason": job.reason or None, "nodes": job.nodes or None},
    }


def _print(overviews: list[RunOverview]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH, highlight=False)
    console.print(_table(overviews, is_wide=console.width >= _WIDE))
    for of_run in overviews:
        for line in _troubles(of_run):
            console.print(line, soft_wrap=True)
    for unheard in dict.fromkeys(o.queue_problem for o in overviews if o.queue_problem):
        text = f"{unheard}; jobs are shown as the runs' own files tell"
        console.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True)


def _table(overviews: list[RunOverview], *, is_wide: bool) -> Table:
    """One row a run; a terminal of 80 columns shows of the stages the one that tells most."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    stages = (*STAGES, "epoch", "best", "speed", "left", "job", "where")
    names = ("run", *(stages if is_wide else ("stage", "epoch", "best", "left", "job")))
    for name in names:
        folds = name == "run" or (name == "job" and not is_wide)
        table.add_column(
            name,
            overflow="fold" if folds else "ellipsis",
            no_wrap=name in STAGES or not (is_wide or folds),
            ratio=1 if name == "run" and not is_wide else None,
        )
    for of_run in overviews:
        cells = _cells(of_run)
        if not is_wide:
            cells["best"] = cells["best"].replace(" (epoch ", " (")
            cells["left"] = cells["left"] or cells["speed"]
            cells["job"] = (cells["job"] or cells["where"]) if of_run.launcher else ""
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(of_run: RunOverview) -> dict[str, str]:
    best, speed, left = of_run.best, of_run.speed, of_run.seconds_left
    stages = {name: _state(stage) for name, stage in of_run.stages.items()}
    to_do = (f"{n} {stages[n]}" for n, stage in of_run.stages.items() if stage.state != "done")
    return {
        "run": escape(plain(of_run.run.root.name)),
        **stages,
        "stage": next(to_do, "[green]done[/green]"),
        "epoch": f"{of_run.epoch}/{of_run.epochs or '?'}",
        "best": f"{best.score} {best.value:.3f} (epoch {best.epoch})" if best else "",
        "speed": f"{speed[0]:.1f} {escape(plain(speed[1]))}/s" if speed else "",
        "left": duration(left) if left is not None else _expected_start(of_run),
        "job": of_run.process or "",
        "where": escape(plain(of_run.host or "")),
    }


def _state(of_stage: StageOverview) -> str:
    style, text = _STYLES[of_stage.state], str(of_stage.state)
    if of_stage.state == "queued" and (job := of_stage.job):
        if job.reason == AFTER_ANOTHER:
            style = "dim"
        text += " again" if job.restarts else ""
        if job.reason not in ("", AFTER_ANOTHER):
            text += f" ({job.reason})"
    return f"[{style}]{escape(text)}[/{style}]"


def _expected_start(of_run: RunOverview) -> str:
    """When SLURM expects to start what waits next, in the time of this machine."""
    for of_stage in of_run.stages.values():
        if of_stage.state == "queued" and of_stage.job and (starts := of_stage.job.starts):
            moment = datetime.fromisoformat(starts).astimezone()
            today = moment.date() == datetime.now().astimezone().date()
            return f"starts {moment:%H:%M}" if today else f"starts {moment:%d %b %H:%M}"
    return ""


def _troubles(of_run: RunOverview) -> list[str]:
    """A line for everything that needs a person's eye, with the command that resumes the run."""
    lines = [of_run.problem] if of_run.problem else []
    root = of_run.run.root
    resume = "" if of_run.launcher else f"; resume: cardamage submit {shlex.quote(str(root))}"
    for name, stage in of_run.stages.items():
        log = f"; log: {stage.log}" if stage.log else ""
        if stage.state == "failed":
            again = "" if stage.record.error_class in ("user", "final") else resume
            why = stage.error or "it did not say why"
            lines.append(f"{root}: {name} failed: {why}{log}{again}")
        elif stage.state == "lost":
            why = stage.error or f"its process {stage.record.pid} ended without a word"
            lines.append(f"{root}: {name} is lost: {why}{log}{resume}")
        elif stage.state == "stopped" and resume:
            lines.append(f"{root}: {name} is stopped: {stage.error or 'it saved'}{resume}")
    return [f"[red]{escape(plain(line))}[/red]" for line in lines]
