"""One attempt of a stage in a SLURM job: ``begin|end RUN STAGE``, run by the batch script.

``begin`` waits until all of the job's submission is queued, and ends with 1 when that was cut off.
Then it notes the start, and ends with 1 when too many in a row failed without progress. In the last
job of a run or study it resumes what died unseen. ``end``
looks at the stage's marker and ends with the verdict: 0, 1 or 2, or 75 when the job is to be queued
again; it then prints the node to stay away from, if one killed the stage twice in a row.

What is not retried: a mistake of the user's, and what the stage says is final: the same input would
bring it again. What is: everything else, as long as starts bring progress or SLURM ended them.
"""

import argparse
import re
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cardamage import version
from cardamage.config import loading
from cardamage.errors import GOT_NOWHERE, ConfigError, ExitStatus, RunError, UserError, of_storage
from cardamage.launch.slurm.resumption import resume_lost, resume_round
from cardamage.launch.slurm.rounds import DECIDES
from cardamage.launch.slurm.starts import Start, progress, read_starts, wasted, write_starts
from cardamage.launch.watching.notify import tell
from cardamage.launch.watching.record import give_up, read_launch, was_cut_off
from cardamage.launch.watching.tail import end_of, last_words
from cardamage.runs import stages
from cardamage.runs.missing import missing_stages
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.system.job import current_job

_TASK_ENDED = re.compile(r"^srun: error: (\S+): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
_NODE_FAILED = re.compile(r"error: Node failure on (\S+)")
_BY_SLURM = re.compile(
    r"error: Node failure on |User defined signal 2|"
    r"DUE TO (?:PREEMPTION|TIME LIMIT|NODE FAILURE|JOB REQUEUE|JOB NOT RUNNING)"
)
_NOT_INSTALLED = re.compile(r"(ModuleNotFoundError|ImportError)\b")
_NODE_AT_FAULT = re.compile(r"Killed|Bus error|Segmentation fault|Out Of Memory")

_SUBMITTING_S = 600.0  # a submission may take minutes where SLURM is busy
_NOTED_S, _POLL_S = 30.0, 1.0

NOTHING_TO_DO = 3
"""What ``begin`` ends with where the stage is done: so is the job, which then ends with 0."""

HAS_ENDED = 4
"""What ``begin`` ends with in a job that takes runs in turn, where this one has ended before."""


def main() -> None:
    """Parse the command line; begin or end an attempt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--code", type=Path, required=True, help="the snapshot")
    parser.add_argument("--limit", type=int, required=True, help="starts without progress")
    parser.add_argument("--in-turn", action="store_true", help="the job does other runs as well")
    parser.add_argument("what", choices=("begin", "end"))
    parser.add_argument("--status", type=int, default=0, help="what srun ended with")
    parser.add_argument("--by-slurm", action="store_true", help="SLURM was ending the job")
    parser.add_argument("run", type=Path)
    parser.add_argument("stage")
    arguments = parser.parse_args()
    run, stage = RunPaths(arguments.run), arguments.stage
    try:
        if arguments.what == "begin":
            _check_code(arguments.code)
            status = begin(run, stage, arguments.limit, in_turn=arguments.in_turn)
        else:
            status = end(run, stage, arguments.limit, arguments.status, by_slurm=arguments.by_slurm)
    except (UserError, OSError) as error:
        known = of_storage(error) if isinstance(error, OSError) else error
        if known is None:
            raise
        print(f"error: {known}", file=sys.stderr)
        status = ExitStatus.USER_ERROR
    tell_end(run, stage, status, has_run=arguments.what == "end")
    sys.exit(status)


def tell_end(run: RunPaths, stage: str, status: int, *, has_run: bool) -> None:
    """Tell people of a run whose last stage has run and is done, or that this job failed for good.

    Also that it had hung, although it is queued again: another start may hang as well.
    A job that only finds that the one before it failed says nothing: that one did.
    """
    with suppress(UserError):
        record = stages.read_stage(run, stage)
        if record.state == "failed" and status in (ExitStatus.FAILED, ExitStatus.USER_ERROR):
            tell(run, "failed", stage, record.error or "")
        elif status == ExitStatus.STOPPED and GOT_NOWHERE in (record.error or ""):
            tell(run, "stuck", stage, record.error or "")
        elif has_run and record.state == "done" and stage == STAGES[-1]:
            tell(run, "done", stage)


def begin(run: RunPaths, stage: str, limit: int, *, in_turn: bool = False) -> int:
    """Note a start; another status than DONE when the stage is not to start.

    ``in_turn``: the job does other runs as well, so a new start of it is not one of a run that
    failed or was cancelled.

    Raises:
        UserError: a marker is damaged, or the stage before is not done.
    """
    starts, here = read_starts(run, stage), progress(run, stage)
    before = stages.read_stage(run, stage)
    if in_turn and before.state in ("failed", "cancelled"):
        return HAS_ENDED
    if (job := current_job()) is None:
        raise RunError("SLURM_JOB_ID is not set; the batch script of a job runs this")
    print(f"=== {stages.now()} start {len(starts) + 1}: job {job.name} on {job.nodes}", flush=True)
    if not _is_wanted(run, before, job.name):
        return ExitStatus.FAILED
    if status := _resume_others(run, stage, limit):
        return status
    _check_upstream(run, stage)
    if _is_done(run, stage):
        print("nothing to do", flush=True)
        return NOTHING_TO_DO
    if wasted(starts, here) >= limit:
        return _give_up(run, before, limit)
    start = Start(job.name, job.nodes, here, stages.now(), before.attempts, end_of(run.log(stage)))
    write_starts(run, stage, [*starts, start])
    return ExitStatus.DONE


def end(
    run: RunPaths, stage: str, limit: int, status: int, *, by_slurm: bool = False
) -> ExitStatus:
    """The verdict on the last start, whose ``srun`` ended with ``status``.

    ``by_slurm`` is for a job that SLURM was ending: by preemption, requeue or the time limit. Such
    a start does not count against the run, and neither does one that saved.

    The status proves little: with lost step daemons srun ended with 0, and a process that is ended
    because of another's end hides what that one ended with. The marker counts.

    Raises:
        RunError: the marker is damaged.
    """
    starts, record = read_starts(run, stage), stages.read_stage(run, stage)
    start = starts[-1]
    if record.attempts <= start.attempts:
        if stage == "pack" and record.state == "done" and status == 0:
            return ExitStatus.DONE  # it found nothing to do, and left its marker
        record = _never_began(run, record, start, status)
    elif record.state == "running":
        record = _by_last_words(run, record, start, status) or record
    if record.state == "done":
        return ExitStatus.DONE
    if record.state == "failed" and record.error_class not in ("fault", None):
        _drop_later(run, stage)
        return ExitStatus(record.exit_status or ExitStatus.FAILED)
    printed = log.read_bytes() if (log := run.log(stage)).is_file() else b""
    words = printed[start.log_start :].decode(errors="replace")
    how, failed_node = _how_it_ended(words, status)
    if record.state == "running":
        record = replace(record, error=how)
    is_cancelled, saved = run.cancel_request.is_file(), record.state == "stopped"
    by_slurm = by_slurm or bool(_BY_SLURM.search(words))
    is_own = not (is_cancelled or saved or by_slurm)
    starts[-1] = replace(start, failed_node=failed_node, is_own_failure=is_own)
    write_starts(run, stage, starts)
    if is_own and wasted(starts, progress(run, stage)) >= limit:
        return _give_up(run, record, limit)
    stages.stop(run, record, record.error, record.error_class or "fault")
    if is_cancelled:
        _drop_later(run, stage)
        return ExitStatus.FAILED
    if failed_node and len(starts) > 1 and starts[-2].failed_node == failed_node:
        print(failed_node)
    return ExitStatus.STOPPED


def _resume_others(run: RunPaths, stage: str, limit: int) -> int:
    """What to end with where others died unseen, which are resumed; else 0.

    The decision of a round comes again once the trials of the round before are trained.
    """
    if stage == STAGES[-1] and (jobs := resume_lost(run, limit)):
        print(f"what died before is resumed by job {', '.join(jobs)}", flush=True)
        return NOTHING_TO_DO
    run.awaited(stage).unlink(missing_ok=True)
    if stage.startswith(DECIDES):
        number = int(stage.removeprefix(DECIDES))
        if jobs := resume_round(StudyPaths(run.root), number, limit):
            print(f"waits for job {', '.join(jobs)}: what died before is resumed", flush=True)
            run.awaited(stage).write_text(f"afterany:{':'.join(jobs)}", encoding="utf-8")
            return ExitStatus.STOPPED
    return ExitStatus.DONE


def _is_wanted(run: RunPaths, before: stages.StageRecord, job: str) -> bool:
    if not _is_submitted(run, job):
        why = "its submission was cut off, or another has taken its place"
    elif run.cancel_request.is_file():
        stages.cancel(run, before)
        why = "cancelled before it began"
    else:
        return True
    print(why, flush=True)
    return False


def _is_submitted(run: RunPaths, job: str) -> bool:
    """Whether a job is one of its run's present submission, all of which is queued.

    Where that was cut off, nothing of it is to run: this run's part is marked as cancelled.
    """
    launch = read_launch(run)
    if launch is None or not launch.comment:
        return True
    deadline = time.monotonic() + _SUBMITTING_S
    settled = None
    while launch and (not launch.ended or job not in launch.jobs.values()):
        if launch.ended and settled is None:  # a job that took another's place is noted soon
            settled = time.monotonic() + _NOTED_S
        if was_cut_off(launch) or time.monotonic() > min(deadline, settled or deadline):
            give_up(run, launch)
            return False
        time.sleep(_POLL_S)
        launch = read_launch(run)
    return True


def is_at_work(run: RunPaths, stage: str) -> bool:
    """Whether a start of a stage has begun and not ended, were its job there."""
    record, starts = stages.read_stage(run, stage), read_starts(run, stage)
    has_no_marker_yet = bool(starts) and starts[-1].attempts >= record.attempts
    return record.state == "running" or has_no_marker_yet


def _is_done(run: RunPaths, stage: str) -> bool:
    """Whether no process need be started; packing looks itself, also for the runs it is shared by.

    A study and a part of a stage look for themselves.
    """
    is_marked = stage in STAGES[1:] and stages.read_stage(run, stage).state == "done"
    if not is_marked or not run.config.is_file():
        return False
    with suppress(ConfigError):  # the stage says what is wrong
        return stage not in missing_stages(run, loading.load(run.config))
    return False


def _check_code(code: Path) -> None:
    """Make sure that Python imports the code that was submitted.

    Raises:
        RunError: it imports another copy, such as one that is installed, of any version.
    """
    found = Path(version.__file__).resolve().parents[1]
    if found != code.resolve():
        raise RunError(
            f"Python imports cardamage {version.__version__} from {found} instead of the code "
            f"submitted, in {code}; let the profile's setup and container keep PYTHONPATH, or "
            f"submit again"
        )


def _check_upstream(run: RunPaths, stage: str) -> None:
    """Make sure that the stage before is done; SLURM takes a job that it has forgotten for done."""
    name = stage.partition(".")[0]
    if name == STAGES[0] or not run.config.is_file():  # a study, whose report looks for itself
        return
    before = stages.read_stage(run, STAGES[STAGES.index(name) - 1])
    if before.state != "done":
        _drop_later(run, stage)
        raise RunError(f"{run.root}: stage {name} needs {before.stage}, which is {before.state}")


def _give_up(run: RunPaths, record: stages.StageRecord, limit: int) -> ExitStatus:
    starts = f"{limit} starts in a row" if limit > 1 else "a start"
    error = f"{starts} brought no progress; the last: {record.error or 'it did not say why'}"
    print(f"error: {error}", file=sys.stderr, flush=True)
    stages.fail(run, record, error, "fault")
    _drop_later(run, record.stage)
    return ExitStatus.FAILED


def _drop_later(run: RunPaths, stage: str) -> None:
    """Mark the stages behind as cancelled: SLURM takes their jobs out of the queue."""
    stages.cancel_waiting(run, STAGES[STAGES.index(stage.partition(".")[0]) + 1 :])


def _never_began(
    run: RunPaths, before: stages.StageRecord, start: Start, status: int
) -> stages.StageRecord:
    """The marker of a start that did not come to its own: before it, a stage checks its input."""
    begun = stages.StageRecord(before.stage, "running", start.attempts + 1, start.time)
    begun = replace(begun, host=start.nodes, job_id=start.job, output=before.output)
    return _by_last_words(run, begun, start, status) or begun


def _by_last_words(
    run: RunPaths, record: stages.StageRecord, start: Start, status: int
) -> stages.StageRecord | None:
    """A marker by what the log says last, where the stage could not write its own.

    What ends with status 2, such as a full disk, and a package that is missing would end so again.
    """
    if not run.log(record.stage).is_file():
        return None
    words = last_words(run.log(record.stage), start.log_start)
    if _NOT_INSTALLED.match(words):
        error = f"{words}; install it in the environment that submits, and submit again"
        return stages.fail(run, record, error, "user")
    if not words.startswith("error: "):
        return None
    is_told = status == ExitStatus.USER_ERROR
    return stages.fail(run, record, words.removeprefix("error: "), "user" if is_told else "fault")


def _how_it_ended(log: str, status: int) -> tuple[str, str | None]:
    """Who ended first, as srun wrote, and the node that killed the stage, if one did.

    A mere exit status says nothing of its node: it may be that of an innocent peer.
    """
    ended, failed = _TASK_ENDED.search(log), _NODE_FAILED.search(log)
    node = failed[1] if failed else None
    if ended:
        is_at_fault = _NODE_AT_FAULT.search(ended[3])
        return f"process {ended[2]} on {ended[1]}: {ended[3]}", ended[1] if is_at_fault else node
    how = f"node {node} failed" if node else f"it ended without a word; srun ended with {status}"
    return how, node


if __name__ == "__main__":
    main()
