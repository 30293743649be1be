"""Resuming what died unseen: a batch script that was killed, so that nobody requeued its job.

The last job of a run, and of a study, waits for the others to end in whatever way. It looks for
stages that neither ended nor wait, and submits their scripts again, and those behind them.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from cardamage.errors import UserError
from cardamage.launch.slurm.starts import read_starts, write_starts
from cardamage.launch.watching.client import SUBMIT_S, ask, gist
from cardamage.launch.watching.queue import Queue, ask_accounting, ask_queue
from cardamage.launch.watching.record import LaunchRecord, read_launch
from cardamage.runs import stages
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.study import is_study, read_study
from cardamage.system.console import log
from cardamage.system.locks import hold

_BY_SLURM = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "TIMEOUT", "DEADLINE")
_ENDED = (*_BY_SLURM, "FAILED", "OUT_OF_MEMORY")


def resume_lost(run: RunPaths) -> list[str]:
    """Submit again what died unseen of a run, or of the runs of a study; the jobs that do it.

    Nothing where the machine has no ``sbatch``, as inside an image: ``status`` tells of it then.
    """
    if not shutil.which("sbatch"):
        return []
    study = StudyPaths(run.root)
    of_study = is_study(run.root)
    runs = [run.beside(name) for name in read_study(study).runs] if of_study else [run]
    submitted: dict[tuple[str, str], str] = {}
    tests: list[str] = []
    for each in runs:
        with suppress(UserError):  # its own last job tells of it
            tests += _resume(each, STAGES if of_study else STAGES[:-1], submitted)
    if of_study and submitted:
        launch = read_launch(run)
        if launch is not None:
            needs = ",".join(f"afterany:{job}" for job in dict.fromkeys(tests))
            _submit_again(run, launch, STAGES[-1], needs, submitted)
    return list(dict.fromkeys(submitted.values()))


def _resume(
    run: RunPaths, looked_at: Sequence[str], submitted: dict[tuple[str, str], str]
) -> list[str]:
    """Submit a lost stage of a run, one of some, and those behind it; the job that tests it."""
    if read_launch(run) is None:
        return []
    lock = run.lock("launch")
    with hold(lock, f"{run.root} is being launched", "wait for it", wait=True):
        launch = read_launch(run)  # with what others have resumed meanwhile
        lost = _lost_stage(run, launch, looked_at) if launch else None
        if launch is None or lost is None:
            return []
        log.info("%s: stage %s died unseen; it is resumed", run.root.name, lost)
        needs, tested = "", []
        for stage in STAGES[STAGES.index(lost) :]:
            if stage not in launch.jobs:
                continue
            job = _submit_again(run, launch, stage, needs, submitted)
            needs = f"{'afterany' if stage == 'test' else 'afterok'}:{job}"
            tested += [job] if stage == "test" else []
            if stage != lost:
                stages.wait(run, stage)
        return tested


def _lost_stage(run: RunPaths, launch: LaunchRecord, looked_at: Sequence[str]) -> str | None:
    """The first stage that is not done, where its job is gone and nobody ended it."""
    if run.cancel_request.is_file():
        return None
    for stage in (stage for stage in looked_at if stage in launch.jobs):
        record = stages.read_stage(run, stage)
        if record.state == "done":
            continue
        if record.state in ("failed", "cancelled"):
            return None
        job = launch.jobs[stage]
        queue = ask_accounting(ask_queue([job]), [job]).of(launch.slurm_cluster, launch.comment)
        if not _is_lost(run, record, job, queue):
            return None
        starts = read_starts(run, stage)
        state = queue.find(job)
        if starts and not (state and state.state in _BY_SLURM):
            # What kills its script each time has to end, too.
            write_starts(run, stage, [*starts[:-1], replace(starts[-1], is_own_failure=True)])
        return stage
    return None


def _is_lost(run: RunPaths, record: stages.StageRecord, job: str, queue: Queue) -> bool:
    state = queue.find(job)
    if queue.problem or (state and state.is_there):
        return False
    if state is None:  # SLURM has forgotten it
        return record.state == "running" or bool(read_starts(run, record.stage))
    # One that a person cancelled stays cancelled; so does one whose upstream was lost.
    return state.state in _ENDED


def _submit_again(
    run: RunPaths,
    launch: LaunchRecord,
    stage: str,
    needs: str,
    submitted: dict[tuple[str, str], str],
) -> str:
    """Submit a stage's script again, once for all runs of its element, and note the new job.

    Raises:
        UserError: SLURM refuses.
    """
    old, script = launch.jobs[stage], launch.stages[stage][-1]
    element = old.partition("_")[2]
    if (script, element) not in submitted:
        options = [f"--comment={launch.comment}"] if launch.comment else []
        options += [f"--array={element}"] if element else []
        options += [f"--dependency={needs}"] if needs else []
        found = ask("sbatch", "--parsable", *options, script, timeout_s=SUBMIT_S)
        if found.returncode:
            raise UserError(f"{script} cannot be submitted again: {gist(found.stderr)}")
        new = found.stdout.strip().partition(";")[0]
        submitted[script, element] = f"{new}_{element}" if element else new
    job = submitted[script, element]
    run.resubmitted.parent.mkdir(exist_ok=True)
    with run.resubmitted.open("a", encoding="utf-8") as noted:
        noted.write(f"{old} {job}\n")
    return job
