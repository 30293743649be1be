"""How runs stand, put together from their files: what ``status`` prints."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from cardamage import config
from cardamage.config import SelectBy
from cardamage.errors import RunError, UserError
from cardamage.paths import STAGES, RunPaths
from cardamage.selection import best_epoch
from cardamage.stages import StageRecord, State, is_lost, read_stage
from cardamage.tables import read_table
from launch.events import Event, last_events
from launch.record import LaunchRecord, is_elsewhere, is_here, read_launch

ShownState = State | Literal["lost"]  # "lost": said to run, but its process is gone


@dataclass(frozen=True)
class StageOverview:
    """How a stage stands.

    Attributes:
        record: its marker.
        state: the marker's state, or ``lost``.
        log: its log, where it has one.
    """

    record: StageRecord
    state: ShownState
    log: Path | None


@dataclass(frozen=True)
class Best:
    """The best epoch so far, by the validation score that the config selects by."""

    epoch: int
    score: SelectBy
    value: float


@dataclass(frozen=True)
class RunOverview:
    """How a run stands.

    Attributes:
        run: the run.
        stages: by name, in order.
        epoch: finished epochs of training.
        epochs: how many there are to be; None when the config cannot be read.
        best: None while no epoch has that score.
        speed: units per second of the stage that runs, and the unit.
        seconds_left: for the stage that runs.
        launcher: ``here``, ``elsewhere`` (nobody can tell from here) or None when none is at work.
        process: the process, or else the job, that works for it.
        host: the machine of the stage that ran last.
        problem: why this run's files cannot be read.
    """

    run: RunPaths
    stages: dict[str, StageOverview]
    epoch: int
    epochs: int | None
    best: Best | None
    speed: tuple[float, str] | None
    seconds_left: float | None
    launcher: Literal["here", "elsewhere"] | None
    process: str | None
    host: str | None
    problem: str | None = None


def all_runs(runs_dir: Path) -> list[RunPaths]:
    """The runs of a folder, by name; none where there is no such folder."""
    if not runs_dir.is_dir():
        return []
    found = (RunPaths(path) for path in runs_dir.iterdir())
    return sorted((run for run in found if run.config.is_file()), key=lambda run: run.root.name)


def find_run(name: str, runs_dir: Path) -> RunPaths:
    """The run that a command's RUN argument means: a name under ``runs_dir``, or a path.

    Raises:
        RunError: there is no such run.
    """
    for root in (runs_dir / name, Path(name)):
        if (run := RunPaths(root)).config.is_file():
            return run
    names = [run.root.name for run in all_runs(runs_dir)]
    near = get_close_matches(Path(name).name, names, n=1, cutoff=0.4)
    hint = f'; did you mean "{near[0]}"?' if near else f"; runs are looked for in {runs_dir}/"
    raise RunError(f'there is no run "{name}"{hint}')


def latest_stage(stages: dict[str, StageOverview]) -> str | None:
    """The stage that runs, else the one that was started last; None when none ever was."""
    for stage, overview in stages.items():
        if overview.state == "running":
            return stage
    begun = [(s.record.started, stage) for stage, s in stages.items() if s.record.started]
    # Stages that began in the same second are told apart by their order.
    return max(begun, key=lambda pair: (pair[0], STAGES.index(pair[1])))[1] if begun else None


def overview(run: RunPaths) -> RunOverview:
    """How a run stands now; a damaged file is told of in ``problem``."""
    problems: list[str] = []
    stages = {}
    for stage in STAGES:
        try:
            record = read_stage(run, stage)
        except RunError as error:
            record = StageRecord(stage, state="failed", error=str(error))
        log = path if (path := run.log(stage)).is_file() else None
        stages[stage] = StageOverview(record, "lost" if is_lost(record) else record.state, log)
    launch: LaunchRecord | None = None
    epochs, best = None, None
    epoch = max(run.finished_checkpoints(), default=0)
    try:
        launch = read_launch(run)
        experiment = config.load(run.config)
        epochs = experiment.train.epochs
        best = _best(run, experiment.test.select_by)
    except UserError as error:
        problems.append(str(error))
    latest = latest_stage(stages)
    last = stages[latest].record if latest else None
    runs = latest is not None and stages[latest].state == "running"
    progress = _progress(run, last) if last and runs else None
    launcher = _launcher(launch)
    return RunOverview(
        run=run,
        stages=stages,
        epoch=epoch,
        epochs=epochs,
        best=best,
        speed=_speed(progress),
        seconds_left=_seconds_left(progress),
        launcher=launcher,
        process=_process(last if runs else None, launch if launcher else None),
        host=last.host if last else launch.host if launch else None,
        problem=problems[0] if problems else None,
    )


def _best(run: RunPaths, select_by: SelectBy) -> Best | None:
    if not run.metrics.is_file():
        return None
    rows = read_table(run.metrics)
    try:
        epoch = best_epoch(rows, select_by)
    except (KeyError, ValueError):
        raise RunError(f"{run.metrics} lacks the column val_{select_by}, or is damaged") from None
    values = {int(row["epoch"]): float(row[f"val_{select_by}"]) for row in rows}
    return None if epoch is None else Best(epoch, select_by, values[epoch])


def _launcher(launch: LaunchRecord | None) -> Literal["here", "elsewhere"] | None:
    if is_here(launch):
        return "here"
    return "elsewhere" if is_elsewhere(launch) else None


def _process(record: StageRecord | None, launch: LaunchRecord | None) -> str | None:
    if record:
        return record.job_id or str(record.pid)
    return str(launch.pid) if launch else None


def _progress(run: RunPaths, record: StageRecord) -> Event | None:
    """The last progress event of the stage's present attempt."""
    started = datetime.fromisoformat(record.started).timestamp() if record.started else 0.0
    events = [
        event
        for event in last_events(run.events)
        if event["event"] == "progress"
        and event.get("stage") == record.stage
        and isinstance(moment := event.get("time"), int | float)
        and moment >= started
    ]
    return events[-1] if events else None


def _speed(progress: Event | None) -> tuple[float, str] | None:
    if not progress or not isinstance(speed := progress.get("per_second"), int | float):
        return None
    return float(speed), str(progress.get("unit", ""))


def _seconds_left(progress: Event | None) -> float | None:
    if not progress or not isinstance(left := progress.get("seconds_left"), int | float):
        return None
    return max(0.0, float(left) - (time.time() - float(progress["time"])))
