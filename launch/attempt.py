"""One attempt of a stage in a SLURM job: `attempt.py begin|end RUN STAGE`, run by the batch script.

``begin`` counts the start, and ends with 1 when too many in a row brought no progress. ``end``
looks at the stage's marker and ends with the verdict: 0, 1 or 2, or 75 when the job is to be queued
again; it then prints the node to stay away from, if one killed the stage twice in a row.

What is not retried: a mistake of the user's, and what the stage says is final: the same input would
bring it again. What is: everything else, as long as starts bring progress.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cardamage
from cardamage import config
from cardamage.errors import ExitStatus, RunError, UserError
from cardamage.files import write_json
from cardamage.paths import STAGES, RunPaths
from cardamage.stages import StageRecord, now, read_stage, write_stage
from launch.events import end_of
from launch.stage_process import last_words

_TASK_ENDED = re.compile(r"^srun: error: (\S+): tasks? ([\d,-]+): (.+)$", re.MULTILINE)
_NODE_FAILED = re.compile(r"error: Node failure on (\S+)")
_NODE_AT_FAULT = re.compile(r"Killed|Bus error|Segmentation fault|Out Of Memory")
_HEADER = "=== "


@dataclass(frozen=True)
class Start:
    """A start of a stage.

    Attributes:
        job: the SLURM job.
        nodes: where it ran, as SLURM abbreviates node names.
        progress: what there was of the stage's work when it began.
        time: when, ISO 8601 in UTC.
        attempts: how often the marker said the stage had begun.
        log_start: where its output begins in the log, in bytes.
        failed_node: the node that killed the stage, when one did.
    """

    job: str
    nodes: str
    progress: list[int]
    time: str
    attempts: int
    log_start: int
    failed_node: str | None = None


def main() -> None:
    """Parse the command line; begin or end an attempt."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--limit", type=int, required=True, help="starts without progress")
    parser.add_argument("what", choices=("begin", "end"))
    parser.add_argument("--status", type=int, default=0, help="what srun ended with")
    parser.add_argument("run", type=Path)
    parser.add_argument("stage")
    arguments = parser.parse_args()
    run, stage = RunPaths(arguments.run), arguments.stage
    try:
        if arguments.what == "begin":
            status = begin(run, stage, arguments.limit)
        else:
            status = end(run, stage, arguments.limit, arguments.status)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = ExitStatus.USER_ERROR
    sys.exit(status)


def begin(run: RunPaths, stage: str, limit: int) -> ExitStatus:
    """Count a start; another status than DONE when the stage is not to start.

    Raises:
        UserError: the code is not the one that was submitted, or a marker is damaged.
    """
    starts, here, before = read_starts(run, stage), progress(run, stage), read_stage(run, stage)
    job, nodes = _job(), os.environ.get("SLURM_JOB_NODELIST", "")
    print(f"{_HEADER}{now()} start {len(starts) + 1}: job {job} on {nodes}", flush=True)
    _check_code()
    if run.cancel_request.is_file():
        write_stage(run, replace(before, state="cancelled", ended=now()))
        print("cancelled before it began", flush=True)
        return ExitStatus.FAILED
    if missing := _missing_upstream(run, stage):
        _drop_later(run, stage)
        raise RunError(missing)
    if _wasted(starts, here) >= limit:
        return _give_up(run, before, limit)
    start = Start(job, nodes, here, now(), before.attempts, end_of(run.log(stage)))
    write_starts(run, stage, [*starts, start])
    return ExitStatus.DONE


def end(run: RunPaths, stage: str, limit: int, status: int) -> ExitStatus:
    """The verdict on the last start, whose ``srun`` ended with ``status``.

    The status proves little: with lost step daemons srun ended with 0, and a process that is ended
    because of another's end hides what that one ended with. The marker counts.

    Raises:
        RunError: the marker is damaged.
    """
    starts = read_starts(run, stage)
    start = starts[-1]
    record, log = read_stage(run, stage), _log(run, stage, start)
    if record.attempts <= start.attempts:  # it did not come to its marker
        record = _never_began(record, start, run, status)
        write_stage(run, record)
    if record.state == "done":
        return ExitStatus.DONE
    if record.state == "failed" and record.error_class not in ("fault", None):
        _drop_later(run, stage)
        return ExitStatus(record.exit_status or ExitStatus.FAILED)
    if record.state == "running":
        record = replace(record, ended=now(), error=_how_it_ended(log, status))
    failed_node = _failed_node(log)
    write_starts(run, stage, [*starts[:-1], replace(start, failed_node=failed_node)])
    if run.cancel_request.is_file():
        write_stage(run, _stopped(record))
        _drop_later(run, stage)
        return ExitStatus.FAILED
    if _wasted(starts, progress(run, stage)) >= limit and record.state != "stopped":
        return _give_up(run, record, limit)
    write_stage(run, _stopped(record))
    if failed_node and len(starts) > 1 and starts[-2].failed_node == failed_node:
        print(failed_node)
    return ExitStatus.STOPPED


def progress(run: RunPaths, stage: str) -> list[int]:
    """What there is of a stage's work: numbers that differ after every start that got anywhere."""
    match stage.partition(".")[0]:
        case "train":
            return [len(run.finished_checkpoints()), *_saved(run)]
        case "test":
            return [len(list((run.root / "test").glob("*/epoch-*.npz")))]
        case "pack":
            shards = Path(config.load(run.config).data.shards_dir)
            return [len(list(shards.glob("*/*/*.tar")))]
        case _:
            return []


def read_starts(run: RunPaths, stage: str) -> list[Start]:
    """The starts of a stage so far; none when the record is missing or damaged."""
    try:
        return [Start(**start) for start in json.loads(run.starts(stage).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def write_starts(run: RunPaths, stage: str, starts: list[Start]) -> None:
    """Publish the starts of a stage."""
    write_json(run.starts(stage), [asdict(start) for start in starts])


def _job() -> str:
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ["SLURM_JOB_ID"]


def _check_code() -> None:
    """Make sure that Python imports the snapshot that this file lies in."""
    wanted, found = Path(__file__).resolve().parents[1], Path(cardamage.__path__[0]).resolve()
    if found.parent != wanted:
        raise RunError(f"Python imports {found} instead of the code submitted in {wanted}")


def _missing_upstream(run: RunPaths, stage: str) -> str | None:
    """Why the stage before is not done; SLURM takes a job that it has forgotten for done."""
    name = stage.partition(".")[0]
    if not run.config.is_file():  # a study, whose report looks for itself
        return None
    for before in STAGES[: STAGES.index(name)][-1:]:
        record = read_stage(run, before)
        if record.state != "done":
            return f"{run.root}: stage {name} needs {before}, which is {record.state}"
    return None


def _saved(run: RunPaths) -> list[int]:
    """The epoch and step that training saved last."""
    try:
        saved = json.loads(run.progress.read_text(encoding="utf-8"))
        return [int(saved["epoch"]), int(saved["step"])]
    except (OSError, ValueError, KeyError, TypeError):
        return [0, 0]


def _wasted(starts: list[Start], here: list[int]) -> int:
    """How many of the last starts found what there is now."""
    wasted = 0
    for start in reversed(starts):
        if start.progress != here:
            break
        wasted += 1
    return wasted


def _give_up(run: RunPaths, record: StageRecord, limit: int) -> ExitStatus:
    starts = f"{limit} starts in a row" if limit > 1 else "a start"
    error = f"{starts} brought no progress; the last: {record.error or 'it did not say why'}"
    print(f"error: {error}", file=sys.stderr, flush=True)
    failed = replace(record, state="failed", error=error, error_class="fault", ended=now())
    failed = replace(failed, exit_status=ExitStatus.FAILED)
    write_stage(run, failed)
    _drop_later(run, record.stage)
    return ExitStatus.FAILED


def _drop_later(run: RunPaths, stage: str) -> None:
    """Mark the stages behind as cancelled: SLURM takes their jobs out of the queue."""
    for name in STAGES[STAGES.index(stage.partition(".")[0]) + 1 :]:
        record = read_stage(run, name)
        if record.state == "waiting":
            write_stage(run, replace(record, state="cancelled", ended=now()))


def _never_began(record: StageRecord, start: Start, run: RunPaths, status: int) -> StageRecord:
    """The marker of a start that did not come to its own: before it, a stage checks its input."""
    words = last_words(run.log(record.stage), start.log_start)
    begun = StageRecord(record.stage, attempts=start.attempts + 1, started=start.time, ended=now())
    begun = replace(begun, host=start.nodes, job_id=_job(), output=record.output)
    if words.startswith("error: "):
        ended = ExitStatus.USER_ERROR if status == ExitStatus.USER_ERROR else ExitStatus.FAILED
        kind = "user" if ended == ExitStatus.USER_ERROR else "fault"
        failed = replace(begun, state="failed", error=words.removeprefix("error: "))
        return replace(failed, exit_status=ended, error_class="user" if kind == "user" else "fault")
    log = _log(run, record.stage, start)
    said = f"; the last it said: {words}" if words else ""
    return replace(begun, state="running", error=_how_it_ended(log, status) + said)


def _stopped(record: StageRecord) -> StageRecord:
    """A marker that says the stage will go on; what it says of the reason stays."""
    stopped = replace(record, state="stopped", exit_status=ExitStatus.STOPPED)
    return replace(stopped, error_class=record.error_class or "fault", ended=record.ended or now())


def _how_it_ended(log: str, status: int) -> str:
    """Who ended first, by what srun wrote, which is close to the truth; else srun's status."""
    if found := _TASK_ENDED.search(log):
        return f"process {found[2]} on {found[1]}: {found[3]}"
    if found := _NODE_FAILED.search(log):
        return f"node {found[1]} failed"
    return f"it ended without a word; srun ended with {status}"


def _failed_node(log: str) -> str | None:
    """The node that killed the stage; a mere exit status may be that of an innocent peer."""
    if (found := _TASK_ENDED.search(log)) and _NODE_AT_FAULT.search(found[3]):
        return found[1]
    return found[1] if (found := _NODE_FAILED.search(log)) else None


def _log(run: RunPaths, stage: str, start: Start) -> str:
    """What the start has printed so far."""
    try:
        with run.log(stage).open("rb") as stream:
            stream.seek(start.log_start)
            return stream.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    main()
