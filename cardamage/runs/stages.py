"""Stage markers: ``stages/<stage>.json`` says how each stage of a run stands.

A stage writes its own marker, from its main process: ``running`` when it starts, then ``done``,
``failed`` or ``stopped``. For one that did not get that far, its launcher does. Every transition is
a function of this module. Whoever depends on a stage reads the marker and trusts nothing else.
"""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from cardamage import errors
from cardamage.errors import CardamageError, ExitStatus, MachineFault, RunError, UserError
from cardamage.runs.attempts import end_attempt
from cardamage.runs.paths import RunPaths
from cardamage.system.files import remove_parts, write_bytes, write_json
from cardamage.system.job import current_job
from cardamage.system.locks import hold
from cardamage.system.processes import birth, is_alive, unblock_usr2

log = logging.getLogger("cardamage")

State = Literal["waiting", "running", "done", "failed", "stopped", "cancelled"]
ErrorClass = Literal["user", "final", "stopped", "fault"]


@dataclass(frozen=True)
class StageRecord:
    """How a stage stands; times are ISO 8601 in UTC, of the last attempt.

    ``stopped`` means it saved and will resume. ``host`` and ``pid`` are the main process's;
    ``born`` tells it from a later one with its id. ``error`` is one line. Its class ``user`` or
    ``final``: the same start would fail again, by a mistake of the user's or not; ``fault``:
    another start may do. ``output`` is what the next stages need, such as the shards' folder.
    """

    stage: str
    state: State = "waiting"
    attempts: int = 0
    started: str | None = None
    ended: str | None = None
    host: str | None = None
    pid: int | None = None
    born: str | None = None
    job_id: str | None = None
    exit_status: int | None = None
    error: str | None = None
    error_class: ErrorClass | None = None
    output: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)


_RECORD = TypeAdapter(StageRecord)


def read_stage(run: RunPaths, stage: str) -> StageRecord:
    """The marker of a stage; ``waiting`` when there is none.

    Raises:
        RunError: the marker is damaged.
    """
    path = run.stage(stage)
    try:
        return _RECORD.validate_json(path.read_bytes())
    except FileNotFoundError:
        return StageRecord(stage)
    except ValueError:
        raise RunError(f"{path} is damaged; delete it and start the stage again") from None


def wait(run: RunPaths, stage: str) -> None:
    """Mark a stage as waiting for its start; the count of its attempts stays."""
    _write(run, StageRecord(stage, attempts=read_stage(run, stage).attempts))


def stop(
    run: RunPaths, record: StageRecord, error: str | None, kind: ErrorClass = "stopped"
) -> StageRecord:
    """Mark an attempt as ended early by ``error``; the stage resumes at its next start."""
    stopped = replace(record, state="stopped", exit_status=ExitStatus.STOPPED)
    return _write(run, replace(stopped, ended=record.ended or now(), error=error, error_class=kind))


def fail(run: RunPaths, record: StageRecord, error: str, kind: ErrorClass) -> StageRecord:
    """Mark an attempt as failed by ``error``."""
    status = ExitStatus.USER_ERROR if kind == "user" else ExitStatus.FAILED
    failed = replace(record, state="failed", exit_status=status)
    return _write(run, replace(failed, ended=now(), error=error, error_class=kind))


def cancel(run: RunPaths, record: StageRecord) -> None:
    """Mark a stage as not to be started."""
    _write(run, replace(record, state="cancelled", ended=now()))


def cancel_waiting(run: RunPaths, stages: Sequence[str]) -> list[str]:
    """Cancel those of ``stages`` that wait; returns which."""
    waiting = [r for stage in stages if (r := read_stage(run, stage)).state == "waiting"]
    for record in waiting:
        cancel(run, record)
    return [record.stage for record in waiting]


def copy_to(others: Sequence[RunPaths], run: RunPaths, stage: str) -> None:
    """Give runs that share a stage its marker, if this process wrote it or it is done.

    Each counts its attempts. One that is done with the same result keeps its marker.
    """
    record = read_stage(run, stage)
    if record.pid != os.getpid() and record.state != "done":
        return
    for other in others:
        theirs = read_stage(other, stage)
        if (theirs.state, theirs.output) != ("done", record.output):
            _write(other, replace(record, attempts=theirs.attempts + 1))


def _write(run: RunPaths, record: StageRecord) -> StageRecord:
    if record.state in ("done", "failed", "stopped"):
        end_attempt(run, record.stage, record.state, record.ended)
    write_json(run.stage(record.stage), asdict(record))
    return record


def is_lost(record: StageRecord) -> bool:
    """Whether a stage is said to run on this machine, but its process is gone."""
    here = record.host == socket.gethostname()
    return record.state == "running" and here and not is_alive(record.pid, record.born)


def require(run: RunPaths, stage: str, command: str) -> StageRecord:
    """The marker of an upstream stage that is done, as ``command`` does it.

    Raises:
        RunError: the stage is not done.
    """
    record = read_stage(run, stage)
    if record.state != "done":
        raise RunError(
            f"{run.root}: stage {stage} is {record.state}, and has to be done first; run {command}"
        )
    return record


class NothingToDo(Exception):  # noqa: N818 - no error
    """Raised in the body of :func:`running` where all is there: the stage's marker stays as it was.

    Only for a stage of one process that was done before.
    """


@contextmanager
def running(run: RunPaths, stage: str, *, main_process: bool = True) -> Iterator[dict[str, Any]]:
    """Keep a stage's marker true while the body runs; yields the dict that becomes ``output``.

    Processes other than the main one write nothing. In all of them SIGUSR2, where it was held back,
    is heeded from here on. A body that finds nothing to do in a stage that was done raises
    :class:`NothingToDo`, which ends here. What the system says of a full or failing disk ends the
    body as one of the errors of :mod:`cardamage.errors`.

    Raises:
        RunError: another process is at this stage of the run, on whatever machine.
        UserError: the marker is damaged or cannot be written.
    """
    output: dict[str, Any] = {}
    with _storage_errors():
        if not main_process:
            unblock_usr2()
            yield output
            return
        folder = run.stage(stage).parent
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with hold(
            run.lock(stage),
            f"stage {stage} of {run.root} is running",
            f"wait for it, or stop it: cardamage cancel {run.root}",
        ) as killed:
            if killed:
                remove_parts(run.root, killed.host, killed.pid)
            with _marked(run, stage, output):
                unblock_usr2()
                yield output


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say that a run's or study's folder cannot be written, and what to do, as a RunError."""
    try:
        yield
    except (*errors.CLOSED, FileNotFoundError) as error:
        raise RunError(
            f"{folder} cannot be written ({error.strerror}); make it writable, or choose another "
            f"place with --runs-dir"
        ) from None


@contextmanager
def _marked(run: RunPaths, stage: str, output: dict[str, Any]) -> Iterator[None]:
    """Keep the marker of a stage whose lock is held."""
    job, marker = current_job(), run.stage(stage)
    before = marker.read_bytes() if marker.is_file() else None
    record = StageRecord(
        stage,
        state="running",
        attempts=read_stage(run, stage).attempts + 1,
        started=now(),
        host=socket.gethostname(),
        pid=os.getpid(),
        born=birth(os.getpid()),
        job_id=job.id if job else None,
    )
    try:
        with _storage_errors():
            _write(run, record)
            yield
    except NothingToDo:
        if before is None:
            marker.unlink()
        else:
            write_bytes(marker, before)
        return
    except BaseException as error:
        try:
            _end_by(run, record, error)
        except OSError as refused:  # what ended the stage is what counts
            log.warning("%s: %s", refused.filename, refused.strerror)
        raise
    done = replace(record, state="done", ended=now(), exit_status=ExitStatus.DONE)
    _write(run, replace(done, output=output))


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Turn what the system says of a file into the error for it."""
    try:
        yield
    except OSError as error:
        if known := errors.of_storage(error):
            raise known from error
        raise


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _end_by(run: RunPaths, record: StageRecord, error: BaseException) -> None:
    """Mark how a stage ended whose body raised ``error``."""
    text = " ".join(str(error).split()) or type(error).__name__
    match error:
        # GeneratorExit: an interrupt between the marker and the first line of the body.
        case errors.Stopped() | KeyboardInterrupt() | GeneratorExit():
            stop(run, record, text)
        case UserError():
            fail(run, record, text, "user")
        case CardamageError():
            fail(run, record, text, "fault" if isinstance(error, MachineFault) else "final")
        case _:
            fail(run, record, f"{type(error).__name__}: {text}", "fault")
