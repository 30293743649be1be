"""Resuming what died unseen: a batch script that was killed, so that nobody requeued its job.

The last job of a run, and of a study, waits for the others to end in whatever way. It looks for
stages that neither ended nor wait, and submits their scripts again, and those behind them.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cardamage.errors import UserError
from cardamage.launch.slurm.rounds import DECIDES, round_again
from cardamage.launch.slurm.starts import Start, progress, read_starts, wasted, write_starts
from cardamage.launch.watching.client import submit_script
from cardamage.launch.watching.queue import Queue, ask_accounting, ask_queue
from cardamage.launch.watching.record import LaunchRecord, read_launch
from cardamage.runs import stages
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.study import is_study, read_study
from cardamage.search.record import read_search, trial_run
from cardamage.system.console import log
from cardamage.system.locks import hold

_ENDED = ("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "TIMEOUT", "DEADLINE")


def resume_lost(run: RunPaths, limit: int) -> list[str]:
    """Submit again what died unseen of a run, or of the runs of a study; the jobs that do it.

    A stage that died so ``limit`` times in a row without progress has failed.

    Nothing where the machine has no ``sbatch``, as inside an image: ``status`` tells of it then.
    """
    if not shutil.which("sbatch"):
        return []
    study = StudyPaths(run.root)
    of_study = is_study(run.root)
    runs = [run.beside(name) for name in read_study(study).runs] if of_study else [run]
    submitted: dict[tuple[str, str], str] = {}
    tests = _last_round_again(study, submitted) if of_study else []
    for each in runs:
        with suppress(UserError):  # its own last job tells of it
            tests += _resume(each, STAGES if of_study else STAGES[:-1], limit, submitted)
    if of_study and submitted:
        launch = read_launch(run)
        if launch is not None:
            needs = ",".join(f"afterany:{job}" for job in dict.fromkeys(tests))
            _submit_again(run, launch, STAGES[-1], needs, submitted)
    return list(dict.fromkeys(submitted.values()))


def resume_round(study: StudyPaths, number: int, limit: int) -> list[str]:
    """The jobs that the decision of a round has yet to wait for: trainings of the round before.

    Those that died unseen are submitted again. So are all of a round whose own decision died.
    """
    record, launch = read_search(study), read_launch(study)
    if record is None or launch is None or not shutil.which("sbatch"):
        return []
    if len(record.rounds) < number - 1:
        return round_again(study, number - 1)["train"] if _died(study, number - 1) else []
    submitted: dict[tuple[str, str], str] = {}
    trainings: dict[str, None] = {}
    for run in (trial_run(study, trial) for trial in record.rounds[number - 2]):
        _resume(run, STAGES[:2], limit, submitted)
        if (of_run := read_launch(run)) and "train" in of_run.jobs:
            trainings[of_run.jobs["train"]] = None
    queue = ask_queue(trainings).of(launch.slurm_cluster, launch.comment)
    states = ((job, queue.find(job)) for job in trainings)
    return [job for job, state in states if state and (state.is_queued or state.is_running)]


def _last_round_again(study: StudyPaths, submitted: dict[tuple[str, str], str]) -> list[str]:
    """Where the decision of the last round of a search died: the jobs that test its trials."""
    record = read_search(study)
    if record is None or not record.goes_on() or not _died(study, len(record.rounds) + 1):
        return []
    made = round_again(study, len(record.rounds) + 1)
    submitted.update({(stage, job): job for stage, jobs in made.items() for job in jobs})
    return made.get("test", [])


def _died(study: StudyPaths, number: int) -> bool:
    """Whether the job that decides a round ended without an end of its own."""
    return stages.read_stage(study, f"{DECIDES}{number}").state in ("waiting", "running", "stopped")


def _resume(
    run: RunPaths,
    looked_at: Sequence[str],
    limit: int,
    submitted: dict[tuple[str, str], str],
) -> list[str]:
    """Submit a lost stage of a run, one of some, and those behind it; the job that tests it."""
    if read_launch(run) is None:
        return []
    lock = run.lock("launch")
    with hold(lock, f"{run.root} is being launched", "wait for it", wait=True):
        launch = read_launch(run)  # with what others have resumed meanwhile
        lost = _lost_stage(run, launch, looked_at) if launch else None
        if launch is None or lost is None or not _may_start(run, lost, launch.jobs[lost], limit):
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
        return stage if _is_lost(run, record, job, queue) else None
    return None


def _may_start(run: RunPaths, stage: str, job: str, limit: int) -> bool:
    """Note a death that nobody saw; whether the stage may start again: what dies each time ends."""
    record, starts = stages.read_stage(run, stage), read_starts(run, stage)
    here = progress(run, stage)
    if starts and starts[-1].job == job:
        starts[-1] = replace(starts[-1], is_own_failure=True)
    else:  # it did not even come to note its start
        unseen = Start(job, "", here, stages.now(), record.attempts, 0, is_own_failure=True)
        starts.append(unseen)
    write_starts(run, stage, starts)
    if wasted(starts, here) < limit:
        return True
    error = f"its batch script died {limit} times in a row without progress; see its log"
    stages.fail(run, record, error, "fault")
    stages.cancel_waiting(run, STAGES[STAGES.index(stage) + 1 :])
    return False


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
        only = [f"--array={element}"] if element else []
        new = submit_script(Path(script), needs, launch.comment, *only)
        submitted[script, element] = f"{new}_{element}" if element else new
    job = submitted[script, element]
    run.resubmitted.parent.mkdir(exist_ok=True)
    with run.resubmitted.open("a", encoding="utf-8") as noted:
        noted.write(f"{old} {job}\n")
    return job
