"""How runs stand: `python launch/status.py [RUN...]`, all runs of the folder when none is named."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cardamage.command_line import add_runs_dir
from cardamage.errors import run_program
from cardamage.paths import STAGES
from cardamage.plain_text import plain
from launch.display import duration
from launch.job_queue import AFTER_ANOTHER
from launch.overview import RunOverview, StageOverview, all_runs, find_runs, overviews

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
_FILE_WIDTH = 200  # columns where the output is no terminal, so that nothing is cut


def main() -> None:
    """Parse the command line and print the table or the JSON."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a word in `status.py | head`
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "run", nargs="*", metavar="RUN", help="a run's or study's name or directory"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a run")
    add_runs_dir(parser)
    arguments = parser.parse_intermixed_args()
    runs_dir = arguments.runs_dir
    runs = find_runs(arguments.run, runs_dir)[0] if arguments.run else all_runs(runs_dir)
    found = overviews(runs)
    if arguments.json:
        print(json.dumps([as_json(of_run) for of_run in found], indent=2))
    elif found:
        _print(found)
    else:
        print(f"there are no runs in {runs_dir}/ yet")


def as_json(of_run: RunOverview) -> dict[str, Any]:
    """One run for a machine to read; times are UTC, durations seconds."""
    best, speed = of_run.best, of_run.speed
    return {
        "run": of_run.run.root.name,
        "directory": str(of_run.run.root),
        "stages": {
            stage: {
                "state": of_stage.state,
                "attempts": of_stage.record.attempts,
                "started": of_stage.record.started,
                "ended": of_stage.record.ended,
                "host": of_stage.record.host,
                "pid": of_stage.record.pid,
                "job_id": of_stage.job_id,
                "exit_status": of_stage.record.exit_status,
                "error": of_stage.error,
                "log": str(of_stage.log) if of_stage.log else None,
                "job": of_stage.job
                and {
                    "state": of_stage.job.state,
                    "reason": of_stage.job.reason or None,
                    "nodes": of_stage.job.nodes or None,
                    "restarts": of_stage.job.restarts,
                    "starts": of_stage.job.starts,
                },
            }
            for stage, of_stage in of_run.stages.items()
        },
        "epoch": of_run.epoch,
        "epochs": of_run.epochs,
        "best": best and {"epoch": best.epoch, "score": best.score, "value": best.value},
        "speed": speed and {"per_second": speed[0], "unit": speed[1]},
        "seconds_left": of_run.seconds_left,
        "launcher": of_run.launcher,
        "host": of_run.host,
        "cluster": of_run.cluster,
        "problem": of_run.problem,
        "queue_problem": of_run.queue_problem,
    }


def _print(overviews: list[RunOverview]) -> None:
    console = Console(width=None if sys.stdout.isatty() else _FILE_WIDTH, highlight=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    for name in (*STAGES, "epoch", "best", "speed", "left", "job", "where"):
        table.add_column(name, no_wrap=name in STAGES)
    for of_run in overviews:
        table.add_row(
            escape(plain(of_run.run.root.name)),
            *map(_state, of_run.stages.values()),
            *_rest(of_run),
        )
    console.print(table)
    for of_run in overviews:
        for line in _troubles(of_run):
            console.print(line, soft_wrap=True)
    for unheard in dict.fromkeys(o.queue_problem for o in overviews if o.queue_problem):
        text = f"{unheard}; jobs are shown as the runs' own files tell"
        console.print(f"[yellow]{escape(text)}[/yellow]", soft_wrap=True)


def _state(of_stage: StageOverview) -> str:
    style, text = _STYLES[of_stage.state], str(of_stage.state)
    if of_stage.state == "queued" and (job := of_stage.job):
        if job.reason == AFTER_ANOTHER:
            style = "dim"
        text += " again" if job.restarts else ""
        if job.reason not in ("", AFTER_ANOTHER):
            text += f" ({job.reason})"
    return f"[{style}]{escape(text)}[/{style}]"


def _rest(of_run: RunOverview) -> list[str]:
    best, speed, left = of_run.best, of_run.speed, of_run.seconds_left
    return [
        f"{of_run.epoch}/{of_run.epochs or '?'}",
        f"{best.score} {best.value:.3f} (epoch {best.epoch})" if best else "",
        f"{speed[0]:.1f} {escape(plain(speed[1]))}/s" if speed else "",
        duration(left) if left is not None else _expected_start(of_run),
        of_run.process or "",
        escape(plain(of_run.host or "")),
    ]


def _expected_start(of_run: RunOverview) -> str:
    """When SLURM expects to start what waits next, in the time of this machine."""
    for of_stage in of_run.stages.values():
        if of_stage.state == "queued" and of_stage.job and (starts := of_stage.job.starts):
            moment = datetime.fromisoformat(starts).astimezone()
            today = moment.date() == datetime.now().astimezone().date()
            return f"starts {moment:%H:%M}" if today else f"starts {moment:%d %b %H:%M}"
    return ""


def _troubles(of_run: RunOverview) -> list[str]:
    """A line for everything that needs a person's eye."""
    root = of_run.run.root
    lines = [f"[red]{escape(plain(of_run.problem))}[/red]"] if of_run.problem else []
    for stage, of_stage in of_run.stages.items():
        error = of_stage.error or "it did not say why"
        log = f"; log: {of_stage.log}" if of_stage.log else ""
        match of_stage.state:
            case "failed":
                text = f"{root}: {stage} failed: {error}{log}"
            case "lost" if of_stage.job_id and of_stage.error:
                text = f"{root}: {stage} is lost: {error}{log}"
            case "lost":
                pid = of_stage.record.pid
                text = f"{root}: {stage} is lost: its process {pid} ended without a word{log}"
            case _:
                continue
        lines.append(f"[red]{escape(plain(text))}[/red]")
    return lines


if __name__ == "__main__":
    run_program(main)
