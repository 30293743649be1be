"""Runs as a table for people: a row each, what is wrong below it, and curves of their scores."""

import shlex
from collections.abc import Iterator
from datetime import datetime
from functools import cache, partial

from rich.columns import Columns
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cardamage.errors import plain
from cardamage.launch.watching.curves import Series, chart, sparkline
from cardamage.launch.watching.display import duration
from cardamage.launch.watching.overview import RunOverview, StageOverview
from cardamage.launch.watching.queue import AFTER_ANOTHER
from cardamage.runs.attempts import cost, queued, total_usage
from cardamage.runs.paths import STAGES, StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import StudyRecord, read_study
from cardamage.runs.tables import read_table
from cardamage.runs.usage import usage_words

STYLES = {
    "done": "green",
    "running": "bold cyan",
    "queued": "cyan",
    "failed": "bold red",
    "lost": "bold red",
    "stopped": "yellow",
    "cancelled": "yellow",
    "waiting": "dim",
}
"""The states of stages, in the order in which runs are sorted by them, and how each is drawn."""

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
_CHART_ROWS = 6


def lines_below(overviews: list[RunOverview]) -> list[str]:
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


def table_of(
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

    text = cache(partial(Text.from_markup, emoji=False))  # most cells are like others

    def add(of_run: RunOverview, indent: str) -> None:
        cells = {**_cells(of_run), "curve": sparkline(of_run.curve, curve or 0)}
        if not is_wide:
            cells["best"] = cells["best"].replace(" (epoch ", " (")
            cells["left"] = cells["left"] or cells["speed"]
        cells["run"] = indent + cells["run"]
        table.add_row(*(text(cells[name]) for name in names))

    left = {of_run.run: of_run for of_run in overviews}
    for study in studies:
        record = read_study(study)
        members = [left[run] for run in map(study.beside, record.runs) if run in left]
        if members:
            cells = _study_cells(record, study, members)
            table.add_row(*(text(cells.get(name, "")) for name in names))
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
    style, text = STYLES[of_stage.state], str(of_stage.state)
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


def charts(of_run: RunOverview, width: int) -> Iterator[Columns | Text]:
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
