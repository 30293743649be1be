"""How runs stand: all runs of the folder when none is named."""

import argparse
import json
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cardamage.commands.arguments import add_runs
from cardamage.errors import ConfigError, did_you_mean, plain
from cardamage.launch.watching.curves import Series, chart, sparkline
from cardamage.launch.watching.display import duration
from cardamage.launch.watching.overview import (
    RunOverview,
    StageOverview,
    all_runs,
    find_runs,
    overviews,
)
from cardamage.launch.watching.queue import AFTER_ANOTHER
from cardamage.runs.attempts import cost, queued, total_usage
from cardamage.runs.lookup import run_names
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import StudyRecord, is_study, read_study
from cardamage.runs.tables import read_table
from cardamage.runs.usage import usage_words

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
_WAITS = {
    "BadConstraints": "no node fits: too many are excluded, or none has what is asked for; see "
    "`scontrol show job JOB`, then cancel and submit with another profile",
    "ReqNodeNotAvail": "the nodes that fit are down, drained or reserved; it waits for them",
    "Resources": "the nodes that fit are busy",
    "Priority": "other jobs come first",
    "QOSMaxJobsPerUserLimit": "so many of your jobs may run at once; it starts when one ends",
    "QOSMaxSubmitJobPerUserLimit": "so many of your jobs may be queued at once",
    "AssocGrpGRES": "your account's GPUs are all in use",
    "AssocMaxJobsLimit": "so many of your jobs may run at once; it starts when one ends",
    "PartitionTimeLimit": "it asks for more time than its partition allows; ask for less",
    "JobHeldUser": "it is held; let it go: scontrol release JOB",
    "JobHeldAdmin": "an administrator holds it",
    "BeginTime": "SLURM lets a requeued job wait for about two minutes",
}
"""SLURM's reasons for letting a job wait, in words."""
_SORTS = ("name", "state", "best", "epoch", "left")
_CHART_ROWS = 6
_EVERY_S = 2.0  # between two looks of --watch
_FILE_WIDTH = 200  # columns where the output is no terminal, so that nothing is cut


def configure(parser: argparse.ArgumentParser) -> None:
    add_runs(parser, "*")
    parser.add_argument("--json", action="store_true", help="print a JSON list, one object a run")
    parser.add_argument(
        "--wide", action="store_true", help="every stage, speed, job and place, as in a file"
    )
    parser.add_argument("--watch", action="store_true", help="keep it up to date until Ctrl-C")
    parser.add_argument("--state", metavar="LIST", help="only runs in these states: running,failed")
    parser.add_argument("--sort", choices=_SORTS, default="name", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end without a word in `status | head`
    if arguments.watch and not sys.stdout.isatty():
        raise ConfigError("--watch needs a terminal; leave it out, or use --json in a loop")

    def look() -> tuple[list[RunOverview], list[StudyPaths]]:
        runs, studies = _asked_for(arguments.run, arguments.runs_dir)
        return _ordered(overviews(runs), arguments.state, arguments.sort), studies

    found, studies = look()
    if arguments.json:
        print(json.dumps([_as_json(of_run) for of_run in found], indent=2))
    elif arguments.watch:
        _watch(look, is_wide=arguments.wide)
    elif found:
        _print(found, studies, is_wide=arguments.wide)
    elif arguments.state and run_names(arguments.runs_dir):
        print(f"no run is {arguments.state.replace(',', ' or ')}")
    else:
        print(
            f"there are no runs in {arguments.runs_dir.absolute()}; go to the folder you submitted "
            f"from, or name theirs with --runs-dir"
        )


def _asked_for(words: list[str], runs_dir: Path) -> tuple[list[RunPaths], list[StudyPaths]]:
    if words:
        return find_runs(words, runs_dir)
    studies = [StudyPaths(runs_dir / name) for name in run_names(runs_dir)]
    return all_runs(runs_dir), [study for study in studies if is_study(study.root)]


def _watch(
    look: Callable[[], tuple[list[RunOverview], list[StudyPaths]]], *, is_wide: bool
) -> None:
    """Show the table until Ctrl-C; of one too long for the terminal its beginning."""

    def shown() -> Group:
        found, studies = look()
        below = [Text.from_markup(line) for line in _lines_below(found)]
        moment = Text(f"{datetime.now().astimezone():%H:%M:%S}, Ctrl-C ends", style="dim")
        width = live.console.width
        curve = None if len(found) < 2 else 8 if width < 100 else 24
        table = _table(found, studies, is_wide=is_wide, curve=curve)
        charts = _charts(found[0], width) if len(found) == 1 else ()
        return Group(table, *charts, *below, moment)

    live = Live(auto_refresh=False, screen=True)
    with suppress(KeyboardInterrupt), live:
        live.update(shown(), refresh=True)
        while True:
            time.sleep(_EVERY_S)
            live.update(shown(), refresh=True)


def _charts(of_run: RunOverview, width: int) -> Iterator[Columns | Text]:
    """Losses and the score that chooses, over the epochs of one run, side by side."""
    metrics = of_run.run.metrics
    rows = read_table(metrics) if metrics.is_file() else []
    if not rows:
        return
    score, half = of_run.best.score if of_run.best else "loss", (width - 2) // 2

    def series(name: str, style: str) -> Series:
        return [float(row.get(name, "nan")) for row in rows], style

    losses = [series("train_loss", "blue"), series("val_loss", "bold yellow")]
    titles = [("train_loss (blue), val_loss", losses)]
    if score != "loss":
        titles.append((f"val_{score}", [series(f"val_{score}", "bold green")]))
    drawn = [chart(title, lines, half, _CHART_ROWS) for title, lines in titles]
    yield Text("")
    yield Columns([Text("\n").join(lines) for lines in drawn], width=half)


def _as_json(of_run: RunOverview) -> dict[str, Any]:
    """One run for a machine to read; times are UTC, durations seconds."""
    best, speed = of_run.best, of_run.speed
    where = ("launcher", "host", "cluster", "partition")
    as_they_are = ("seconds_left", *where, "problem", "queue_problem")
    return {
        "run": of_run.run.root.name,
        "directory": str(of_run.run.root),
        "stages": {name: _stage_as_json(stage) for name, stage in of_run.stages.items()},
        "attempts": [asdict(attempt) for attempt in of_run.attempts],
        "seconds": cost(of_run.attempts),
        "queued_seconds": queued(of_run.attempts),
        "usage": asdict(total_usage(of_run.attempts)),
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


def _print(overviews: list[RunOverview], studies: list[StudyPaths], *, is_wide: bool) -> None:
    is_terminal = sys.stdout.isatty()
    console = Console(width=None if is_terminal else _FILE_WIDTH, highlight=False)
    console.print(_table(overviews, studies, is_wide=is_wide or not is_terminal))
    for line in _lines_below(overviews):
        console.print(line, soft_wrap=True)


def _lines_below(overviews: list[RunOverview]) -> list[str]:
    """What is wrong with runs, why jobs wait, and why SLURM was not heard."""
    lines = [line for of_run in overviews for line in _troubles(of_run)]
    waits = dict.fromkeys(
        stage.job.reason
        for of_run in overviews
        for stage in of_run.stages.values()
        if stage.state == "queued" and stage.job and stage.job.reason in _WAITS
    )
    lines += [f"[yellow]{reason}: {_WAITS[reason]}[/yellow]" for reason in waits]
    for unheard in dict.fromkeys(o.queue_problem for o in overviews if o.queue_problem):
        text = f"{unheard}; jobs are shown as the runs' own files tell"
        lines.append(f"[yellow]{escape(text)}[/yellow]")
    return lines


def _table(
    overviews: list[RunOverview],
    studies: list[StudyPaths],
    *,
    is_wide: bool,
    curve: int | None = None,
) -> Table:
    """One row a run, those of a study under its own line; with a ``curve`` of so many columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    stages = (*STAGES, "epoch", "best", "speed", "left", "job", "where", "cost")
    names = ("run", *(stages if is_wide else ("state", "epoch", "best", "left")))
    if curve:
        names = (*names, "curve")
    is_slurm = any(of_run.launcher == "slurm" for of_run in overviews)
    for name in names:
        table.add_column(
            name if name != "job" or is_slurm else "process",
            overflow="fold" if name == "run" else "ellipsis",
            no_wrap=name in STAGES or not (is_wide or name == "run"),
            ratio=1 if name == "run" and not is_wide else None,
        )

    def add(of_run: RunOverview, indent: str) -> None:
        cells = {**_cells(of_run), "curve": sparkline(of_run.curve, curve or 0)}
        if not is_wide:
            cells["best"] = cells["best"].replace(" (epoch ", " (")
            cells["left"] = cells["left"] or cells["speed"]
        cells["run"] = indent + cells["run"]
        table.add_row(*(cells[name] for name in names))

    left = {of_run.run: of_run for of_run in overviews}
    for study in studies:
        record = read_study(study)
        members = [left[run] for run in map(study.beside, record.runs) if run in left]
        if members:
            cells = _study_cells(record, study, members)
            table.add_row(*(cells.get(name, "") for name in names))
        for of_run in members:
            add(left.pop(of_run.run), "  ")
    for of_run in left.values():
        add(of_run, "")
    return table


def _study_cells(
    record: StudyRecord, study: StudyPaths, members: list[RunOverview]
) -> dict[str, str]:
    """The line of a study: how many of its runs are done, and the time left for all of them."""
    done = sum(not _to_do(of_run) or of_run.rung is not None for of_run in members)
    seconds = [of_run.seconds_left for of_run in members if of_run.seconds_left is not None]
    compared = read_stage(study, "report").state == "done"
    epochs = [of_run.epochs for of_run in members]
    total = sum(epochs) if None not in epochs else None  # type: ignore[arg-type]
    return {
        "run": f"[bold]{escape(plain(record.name))}[/bold]",
        "state": f"{done} of {len(record.runs)} done",
        "pack": f"{done} of {len(record.runs)} done",
        "epoch": f"{sum(of_run.epoch for of_run in members)}/{total or '?'}",
        "report": "[green]done[/green]" if compared else "",
        "left": duration(max(seconds)) if seconds else "",
    }


def _to_do(of_run: RunOverview) -> list[str]:
    """The stages of a run that are not done, each with its state."""
    return [f"{n} {_state(s)}" for n, s in of_run.stages.items() if s.state != "done"]


def _state_of(of_run: RunOverview) -> str:
    """The state that a run is filtered and sorted by: of the first stage that is not done."""
    states = [str(stage.state) for stage in of_run.stages.values() if stage.state != "done"]
    return states[0] if states else "done"


def _ordered(found: list[RunOverview], wanted: str | None, key: str) -> list[RunOverview]:
    """The runs whose state is among ``wanted``, sorted by ``key``, the best and the last first."""
    states = {state.strip() for state in wanted.split(",")} if wanted else None
    if unknown := sorted((states or set()) - _STYLES.keys()):
        raise ConfigError(
            f'--state: "{unknown[0]}" is unknown{did_you_mean(unknown[0], _STYLES)}; allowed: '
            f"{', '.join(_STYLES)}"
        )
    kept = [of_run for of_run in found if states is None or _state_of(of_run) in states]
    match key:
        case "state":
            order = list(_STYLES)
            return sorted(kept, key=lambda of_run: order.index(_state_of(of_run)))
        case "best":
            return sorted(kept, key=_rank)
        case "epoch":
            return sorted(kept, key=lambda of_run: -of_run.epoch)
        case "left":
            far = float("inf")
            return sorted(kept, key=lambda o: far if o.seconds_left is None else o.seconds_left)
        case _:
            return kept


def _rank(of_run: RunOverview) -> tuple[bool, str, float]:
    """Runs with a score first, those of one score together, the best of them first."""
    if (best := of_run.best) is None:
        return True, "", 0.0
    return False, best.score, best.value if best.score == "loss" else -best.value


def _cells(of_run: RunOverview) -> dict[str, str]:
    best, speed, left = of_run.best, of_run.speed, of_run.seconds_left
    stages = {name: _state(stage) for name, stage in of_run.stages.items()}
    partition = f" ({of_run.partition})" if of_run.host and of_run.partition else ""
    return {
        "run": escape(plain(of_run.run.root.name)),
        **stages,
        "state": f"[dim]at rung {of_run.rung}[/dim]"
        if of_run.rung is not None
        else next(iter(_to_do(of_run)), "[green]done[/green]"),
        "epoch": f"{of_run.epoch}/{of_run.epochs or '?'}",
        "best": f"{best.score} {best.value:.3f} (epoch {best.epoch})" if best else "",
        "speed": f"{speed[0]:.1f} {escape(plain(speed[1]))}/s" if speed else "",
        "left": duration(left) if left is not None else _expected_start(of_run),
        "job": of_run.process or "",
        "where": escape(plain(f"{of_run.host or ''}{partition}")),
        "cost": _cost(of_run),
    }


def _cost(of_run: RunOverview) -> str:
    """What all starts that have ended took."""
    seconds, waited = cost(of_run.attempts), queued(of_run.attempts)
    words = [duration(seconds)] if seconds is not None else []
    words += [f"queued {duration(waited)}"] if waited else []
    return ", ".join([*words, *usage_words(total_usage(of_run.attempts))])


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
