"""How runs stand, put together from their files and SLURM's word: what ``status`` prints."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, cast, get_args

import yaml

from cardamage.config import loading
from cardamage.config.experiment import SelectBy
from cardamage.errors import RunError, UserError
from cardamage.launch.watching.queue import JobState, Queue, ask_accounting, ask_queue
from cardamage.launch.watching.record import LaunchRecord, is_elsewhere, is_here, read_launch
from cardamage.launch.watching.tail import last_events
from cardamage.runs.attempts import Attempt, read_attempts
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.lookup import find_run, run_names
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.rung import read_rung
from cardamage.runs.stages import StageRecord, State, is_lost, read_stage
from cardamage.runs.study import read_study
from cardamage.runs.tables import read_table

_QUICK_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

ShownState = State | Literal["queued", "lost"]
"""``queued``: SLURM has not started it, or not again; ``lost``: said to run, but gone."""


@dataclass(frozen=True)
class StageOverview:
    """How a stage stands, by its marker and by SLURM: ``job_id`` works for it, or did last."""

    record: StageRecord
    state: ShownState
    log: Path | None
    error: str | None = None
    job_id: str | None = None
    job: JobState | None = None

    @property
    def is_active(self) -> bool:
        """Whether it runs or will run, also when SLURM is about to queue it again."""
        return self.state in ("running", "queued") or (self.job is not None and self.job.is_there)


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
        epoch: finished epochs of training, of ``epochs``, unless the config cannot be read.
        speed: units per second of the stage that runs, and the unit.
        launcher: who is at work on it: a process ``here``, one ``elsewhere`` (nobody can tell from
            here), ``slurm`` when a job of it waits or runs; None when nobody is.
        process: the process, or else the job, that works for it.
        host: where the stage ran that ran last: a machine, or SLURM's list of nodes.
        partition: the one that the job of that stage was given, or all that may be.
        cluster: the profile it was launched with last; None when nothing was.
        problem: why this run's files cannot be read; ``queue_problem``: why SLURM was not heard.
        attempts: every start that had something to do.
        curve: the validation score that the config selects by, of each epoch.
        rung: the epoch that a search has stopped the run at, if it is trained up to there.
    """

    run: RunPaths
    stages: dict[str, StageOverview]
    epoch: int
    epochs: int | None
    best: Best | None
    speed: tuple[float, str] | None
    seconds_left: float | None
    launcher: Literal["here", "elsewhere", "slurm"] | None
    process: str | None
    host: str | None
    cluster: str | None
    partition: str | None = None
    problem: str | None = None
    queue_problem: str | None = None
    attempts: Sequence[Attempt] = ()
    curve: Sequence[float] = ()
    rung: int | None = None


def all_runs(runs_dir: Path) -> list[RunPaths]:
    """The runs of a folder, by name; none where there is no such folder."""
    runs = (RunPaths(runs_dir / name) for name in run_names(runs_dir))
    return [run for run in runs if run.config.is_file()]


def find_runs(names: Sequence[str], runs_dir: Path) -> tuple[list[RunPaths], list[StudyPaths]]:
    """The runs that RUN arguments mean, each once, those of studies among them; and the studies."""
    runs: list[RunPaths] = []
    studies: list[StudyPaths] = []
    for name in names:
        found = find_run(name, runs_dir)
        if isinstance(found, StudyPaths):
            studies.append(found)
            members = map(found.beside, read_study(found).runs)
            runs += [run for run in members if run.config.is_file()]
        else:
            runs.append(found)
    return list(dict.fromkeys(runs)), list(dict.fromkeys(studies))


def latest_stage(stages: dict[str, StageOverview]) -> str | None:
    """The stage that runs, else the one that was started last; None when none ever was."""
    # Stages that began in the same second are told apart by their order.
    ranks = [
        (stage.state == "running", stage.record.started or "", STAGES.index(name), name)
        for name, stage in stages.items()
        if stage.state == "running" or stage.record.started
    ]
    return max(ranks)[-1] if ranks else None


def overview(run: RunPaths) -> RunOverview:
    """How a run stands now; a damaged file is told of in ``problem``."""
    return overviews([run])[0]


def overviews(runs: Sequence[RunPaths]) -> list[RunOverview]:
    """How runs stand now; SLURM is asked once for all of them."""
    launches = [_launch(run) for run in runs]
    # The queue first: a marker that is read later knows the end of what was said to run.
    queue = ask_queue(job for launch, _ in launches if launch for job in launch.jobs.values())
    markers = [{stage: _marker(run, stage) for stage in STAGES} for run in runs]
    doubtful = [
        job
        for (launch, _), of_run in zip(launches, markers, strict=True)
        for stage, record in of_run.items()
        if launch and record.state in ("waiting", "running")
        for job in launch.jobs_of(stage)
    ]
    queue = ask_accounting(queue, doubtful)
    return [
        _overview(run, launch, problem, of_run, queue)
        for run, (launch, problem), of_run in zip(runs, launches, markers, strict=True)
    ]


def _launch(run: RunPaths) -> tuple[LaunchRecord | None, str | None]:
    """The last launch of a run, or why it cannot be read."""
    try:
        return read_launch(run), None
    except RunError as error:
        return None, str(error)


def _marker(run: RunPaths, stage: str) -> StageRecord:
    try:
        return read_stage(run, stage)
    except RunError as error:
        return StageRecord(stage, state="failed", error=str(error))


def _overview(
    run: RunPaths,
    launch: LaunchRecord | None,
    problem: str | None,
    markers: dict[str, StageRecord],
    queue: Queue,
) -> RunOverview:
    stages: dict[str, StageOverview] = {}
    if launch:
        queue = queue.of(launch.slurm_cluster, launch.comment)
    for stage, record in markers.items():
        stages[stage] = _stage(run, record, launch, queue, stages)
    epochs, best, rung = None, None, None
    curve: Sequence[float] = ()
    epoch = max(run.finished_checkpoints(), default=0)
    try:
        epochs, select_by = _epochs_and_rule(run)
        best, curve = _scores(run, select_by)
        rung = read_rung(run)
    except UserError as error:
        problem = problem or str(error)
    try:
        attempts = read_attempts(run)
    except RunError as error:
        attempts, problem = [], problem or str(error)
    latest = latest_stage(stages)
    last = stages[latest] if latest else None
    is_running = last is not None and last.state == "running"
    speed, seconds_left = _progress(run, last.record) if last and is_running else (None, None)
    launcher, queue_problem = _launcher(launch, stages), None
    if launch and launch.jobs and queue.problem:
        queue_problem = f"{queue.problem}; ask on a machine of {launch.where}"
    return RunOverview(
        run=run,
        stages=stages,
        epoch=epoch,
        epochs=epochs,
        best=best,
        speed=speed,
        seconds_left=seconds_left,
        launcher=launcher,
        process=_process(stages, launch if launcher else None),
        host=_host(last, launch),
        cluster=launch.cluster if launch else None,
        partition=last.job.partition if last and last.job else None,
        problem=problem,
        queue_problem=queue_problem,
        attempts=attempts,
        curve=curve,
        rung=rung if rung == epoch and stages["train"].state == "done" else None,
    )


def _stage(
    run: RunPaths,
    record: StageRecord,
    launch: LaunchRecord | None,
    queue: Queue,
    before: Mapping[str, StageOverview],
) -> StageOverview:
    """How a stage stands; ``before`` are the stages before it."""
    log = path if (path := run.log(record.stage)).is_file() else None
    job_ids = launch.jobs_of(record.stage) if launch else []
    if not job_ids:
        state: ShownState = "lost" if is_lost(record) else record.state
        return StageOverview(record, state, log, record.error, record.job_id)
    job_id, job = queue.first(job_ids)
    if job is None and queue.problem:
        return StageOverview(record, record.state, log, record.error, job_id)
    upstream_ended = any(
        s.state in ("failed", "stopped", "cancelled", "lost") for s in before.values()
    )
    state = _by_slurm(record, job, upstream_ended=upstream_ended)
    if launch and record.stage in launch.in_turn and state == "running":
        state = _in_turn(run, record)
    error = record.error
    if state in ("failed", "lost") and record.state in ("waiting", "running"):
        known = f"ended as {job.state}" if job else "is gone"
        error = f"its job {job_id} {known}, and the stage left no word"
    return StageOverview(record, state, log, error, job_id, job)


def _by_slurm(record: StageRecord, job: JobState | None, *, upstream_ended: bool) -> ShownState:
    """How a stage stands whose job SLURM was asked about; None when SLURM has forgotten it."""
    if record.state == "done" or (record.state == "cancelled" and upstream_ended):
        return record.state
    if job and (job.is_queued or job.is_running):
        # A marker that says otherwise is of the attempt before.
        return "queued" if job.is_queued else "running"
    if record.state in ("failed", "stopped", "cancelled") or (job and job.is_leaving):
        return record.state
    if job is None:
        # Without accounting SLURM knows an ended job for some minutes only.
        return "cancelled" if record.state == "waiting" and upstream_ended else "lost"
    if job.never_starts or job.state == "CANCELLED":
        return "cancelled"
    return "lost" if job.state == "COMPLETED" else "failed"


def _in_turn(run: RunPaths, record: StageRecord) -> ShownState:
    """How a stage stands whose job runs, but may be at another run."""
    if record.state == "running" or record.state in ("failed", "cancelled"):
        return record.state
    is_over = record.state == "stopped" and run.cancel_request.is_file()
    return record.state if is_over else "queued"


def _epochs_and_rule(run: RunPaths) -> tuple[int, SelectBy]:
    """``train.epochs`` and ``test.select_by``; of hundreds of runs the full reading takes seconds.

    Raises:
        ConfigError: the config is wrong.
    """
    unusual = (OSError, ValueError, AttributeError, TypeError, RecursionError, yaml.YAMLError)
    with suppress(*unusual, StopIteration):
        root = yaml.compose(run.config.read_bytes(), _QUICK_YAML) or yaml.ScalarNode("", "")
        epochs, select_by = _scalar(root, "train", "epochs"), _scalar(root, "test", "select_by")
        if epochs.isdecimal() and select_by in get_args(SelectBy):
            return int(epochs), cast("SelectBy", select_by)
    experiment = loading.load(run.config)
    return experiment.train.epochs, experiment.test.select_by


def _scalar(node: yaml.Node, *keys: str) -> str:
    for key in keys:
        node = next(value for name, value in node.value if name.value == key)
    return str(node.value)


def _scores(run: RunPaths, select_by: SelectBy) -> tuple[Best | None, Sequence[float]]:
    """The best epoch, and the scores of all."""
    if not run.metrics.is_file():
        return None, ()
    rows = read_table(run.metrics, {"epoch", f"val_{select_by}"})
    try:
        epoch = best_epoch(rows, select_by)
    except (KeyError, ValueError):
        raise RunError(f"{run.metrics} lacks the column val_{select_by}, or is damaged") from None
    values = {int(row["epoch"]): float(row[f"val_{select_by}"]) for row in rows}
    best = None if epoch is None else Best(epoch, select_by, values[epoch])
    return best, tuple(values.values())


def _launcher(
    launch: LaunchRecord | None, stages: dict[str, StageOverview]
) -> Literal["here", "elsewhere", "slurm"] | None:
    if launch and launch.jobs:
        return "slurm" if any(stage.is_active for stage in stages.values()) else None
    if is_here(launch):
        return "here"
    return "elsewhere" if is_elsewhere(launch) else None


def _process(stages: dict[str, StageOverview], launch: LaunchRecord | None) -> str | None:
    for stage in sorted(stages.values(), key=lambda stage: stage.state != "running"):
        if stage.state in ("running", "queued"):
            return stage.job_id or str(stage.record.pid)
    return str(launch.pid) if launch and not launch.jobs else None


def _host(last: StageOverview | None, launch: LaunchRecord | None) -> str | None:
    if last is None:
        return launch.host if launch and not launch.jobs else None
    if last.state == "queued":
        return None
    return (last.job.nodes if last.job else "") or last.record.host


def _progress(run: RunPaths, record: StageRecord) -> tuple[tuple[float, str] | None, float | None]:
    """Speed and seconds left, by the last progress event of the stage's present attempt."""
    began = datetime.fromisoformat(record.started).timestamp() if record.started else 0.0
    for event in reversed(last_events(run.events)):
        moment = event.get("time")
        if event["event"] != "progress" or event.get("stage") != record.stage:
            continue
        if not isinstance(moment, int | float) or moment < began:
            continue
        speed, left = event.get("per_second"), event.get("seconds_left")
        return (
            (float(speed), str(event.get("unit", ""))) if isinstance(speed, int | float) else None,
            max(0.0, left - (time.time() - moment)) if isinstance(left, int | float) else None,
        )
    return None, None
