"""One attempt of a stage in a SLURM job: `attempt.py begin|end RUN STAGE`, run by the batch script.

``begin`` counts the start and ends with 1 when too many in a row brought no progress. ``end`` looks
at the stage's marker and ends with the stage's exit status, or with 75 when the job is to be queued
again; it then prints the node to stay away from, if one failed twice.

What is not retried: a mistake of the user's, which the same input would bring again. What is:
everything else, as long as starts bring progress.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cardamage.errors import ExitStatus
from cardamage.files import write_json
from cardamage.paths import RunPaths
from cardamage.stages import StageRecord, now, read_stage, write_stage

_FAILED_NODE = re.compile(r"^srun: error: (\S+): tasks? ", re.MULTILINE)
_HEADER = "=== "


@dataclass(frozen=True)
class Start:
    """A start of a stage.

    Attributes:
        job: the SLURM job.
        nodes: where it ran, as SLURM abbreviates node names.
        progress: what there was of the stage's work when it began.
        started: when, ISO 8601 in UTC.
        failed_node: the node whose process ended first, when one failed.
    """

    job: str
    nodes: str
    progress: list[float]
    started: str
    failed_node: str | None = None


def main() -> None:
    """Parse the command line; begin or end an attempt."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("begin", "end"))
    parser.add_argument("--limit", type=int, default=3, help="starts without progress")
    parser.add_argument("--status", type=int, default=0, help="what srun ended with")
    parser.add_argument("run", type=Path)
    parser.add_argument("stage")
    arguments = parser.parse_args()
    run = RunPaths(arguments.run)
    if arguments.what == "begin":
        sys.exit(begin(run, arguments.stage, arguments.limit))
    sys.exit(end(run, arguments.stage, arguments.status))


def begin(run: RunPaths, stage: str, limit: int) -> ExitStatus:
    """Count a start; FAILED when ``limit`` starts in a row have brought no progress."""
    starts, here = read_starts(run, stage), progress(run, stage)
    wasted = 0
    for start in reversed(starts):
        if start.progress != here:
            break
        wasted += 1
    job, nodes = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_JOB_NODELIST", "")
    print(f"{_HEADER}{now()} start {len(starts) + 1}: job {job} on {nodes}", flush=True)
    before = read_stage(run, stage)
    if wasted >= limit:
        error = f"{wasted} starts in a row brought no progress; the last: {before.error}"
        print(f"error: {error}", flush=True)
        write_stage(run, _failed(before, error))
        return ExitStatus.FAILED
    write_starts(run, stage, [*starts, Start(job, nodes, here, now())])
    return ExitStatus.DONE


def end(run: RunPaths, stage: str, status: int) -> ExitStatus:
    """The verdict on a start whose ``srun`` ended with ``status``."""
    record = read_stage(run, stage)
    if record.state == "done" and status == 0:
        return ExitStatus.DONE
    if record.state == "failed" and record.error_class == "user":
        return ExitStatus.USER_ERROR
    if record.state == "stopped":
        return ExitStatus.STOPPED
    if record.state in ("running", "waiting", "done"):
        write_stage(run, _failed(record, f"ended with status {status} and without a word"))
    starts = read_starts(run, stage)
    node = _failed_node(run, stage)
    if starts:
        write_starts(run, stage, [*starts[:-1], replace(starts[-1], failed_node=node)])
    if node and len(starts) > 1 and starts[-2].failed_node == node:
        print(node)
    return ExitStatus.STOPPED


def progress(run: RunPaths, stage: str) -> list[float]:
    """What there is of a stage's work; it differs after every start that got anywhere."""
    state = run.resume / "state.pt"
    match stage:
        case "train":
            saved = state.stat().st_mtime if state.is_file() else 0.0
            return [len(run.finished_checkpoints()), saved]
        case "test":
            return [len(list((run.root / "test").glob("*/epoch-*.npz")))]
        case _:
            return []


def read_starts(run: RunPaths, stage: str) -> list[Start]:
    """The starts of a stage so far; none when the record is missing or damaged."""
    try:
        return [Start(**start) for start in json.loads(_path(run, stage).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def write_starts(run: RunPaths, stage: str, starts: list[Start]) -> None:
    """Publish the starts of a stage."""
    write_json(_path(run, stage), [asdict(start) for start in starts])


def _path(run: RunPaths, stage: str) -> Path:
    return run.slurm / f"{stage}.starts.json"


def _failed(record: StageRecord, error: str) -> StageRecord:
    failed = replace(record, state="failed", ended=now(), exit_status=ExitStatus.FAILED)
    return replace(failed, error=error, error_class="fault")


def _failed_node(run: RunPaths, stage: str) -> str | None:
    """The node whose process ended first in the last start, by what srun wrote into the log."""
    try:
        log = run.log(stage).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _FAILED_NODE.search(log[log.rfind(f"\n{_HEADER}") + 1 :])
    return found[1] if found else None


if __name__ == "__main__":
    main()
