"""Stage markers: ``stages/<stage>.json`` says how each stage of a run stands.

A stage writes its own marker, from its main process: ``running`` when it starts, then ``done``,
``failed`` or ``stopped``. Whoever depends on a stage reads the marker and trusts nothing else.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter

from cardamage.errors import (
    CardamageError,
    ExitStatus,
    MachineFault,
    RunError,
    Stopped,
    UserError,
    of_storage,
)
from cardamage.files import remove_parts, write_json
from cardamage.locks import hold
from cardamage.paths import RunPaths
from cardamage.processes import birth, is_alive
from cardamage.signals import heed_usr2

log = logging.getLogger("cardamage")

State = Literal["waiting", "running", "done", "failed", "stopped", "cancelled"]


@dataclass(frozen=True)
class StageRecord:
    """How a stage stands.

    Attributes:
        stage: its name.
        state: ``waiting`` until it starts; ``stopped`` means it saved and will go on.
        attempts: how often it was started.
        started: when the last attempt began, ISO 8601 in UTC.
        ended: when it ended.
        host: the machine of the main process.
        pid: the main process.
        born: when that process began, so that a later one with its id is not taken for it.
        job_id: the SLURM job, where there is one.
        exit_status: what the last attempt ended with.
        error: its last error, one line.
        error_class: ``user`` and ``final``: the same start would fail again, by a mistake of the
            user's or not; ``stopped``; ``fault``: anything else, so another start may do.
        output: what the next stages need, such as the folder of the shards.
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
    error_class: Literal["user", "final", "stopped", "fault"] | None = None
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


def write_stage(run: RunPaths, record: StageRecord) -> None:
    """Publish a marker."""
    write_json(run.stage(record.stage), asdict(record))


def is_lost(record: StageRecord) -> bool:
    """Whether a stage is said to run on this machine, but its process is gone."""
    here = record.host == socket.gethostname()
    return record.state == "running" and here and not is_alive(record.pid, record.born)


def require(run: RunPaths, stage: str, command: str) -> StageRecord:
    """The marker of an upstream stage that is done.

    Args:
        run: the run.
        stage: what has to be done.
        command: how to do it, for the message.

    Raises:
        RunError: the stage is not done.
    """
    record = read_stage(run, stage)
    if record.state != "done":
        raise RunError(
            f"{run.root}: stage {stage} is {record.state}, and has to be done first; run {command}"
        )
    return record


@contextmanager
def running(run: RunPaths, stage: str, *, main_process: bool = True) -> Iterator[dict[str, Any]]:
    """Keep a stage's marker true while the body runs; yields the dict that becomes ``output``.

    Processes other than the main one write nothing. In all of them SIGUSR2, where it was held back,
    is heeded from here on. What the system says of a full or failing disk ends the body as one of
    the errors of :mod:`cardamage.errors`.

    Raises:
        RunError: another process is at this stage of the run, on whatever machine.
        UserError: the marker is damaged or cannot be written.
    """
    output: dict[str, Any] = {}
    with _storage_errors():
        if not main_process:
            heed_usr2()
            yield output
            return
        _make_folder(run, stage)
        with hold(
            run.lock(stage),
            f"stage {stage} of {run.root} is running",
            f"wait for it, or stop it: python launch/cancel.py {run.root}",
        ) as killed:
            if killed:
                remove_parts(run.root, killed.host, killed.pid)
            with _marked(run, stage, output):
                heed_usr2()
                yield output


def _make_folder(run: RunPaths, stage: str) -> None:
    folder = run.stage(stage).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written ({error.strerror}); make the run directory writable, or "
            f"choose another place with --runs-dir"
        ) from None


@contextmanager
def _marked(run: RunPaths, stage: str, output: dict[str, Any]) -> Iterator[None]:
    """Keep the marker of a stage whose lock is held."""
    record = StageRecord(
        stage,
        state="running",
        attempts=read_stage(run, stage).attempts + 1,
        started=now(),
        host=socket.gethostname(),
        pid=os.getpid(),
        born=birth(os.getpid()),
        job_id=os.environ.get("SLURM_JOB_ID"),
    )
    try:
        with _storage_errors():
            write_stage(run, record)
            yield
    except BaseException as error:
        try:
            write_stage(run, _ended(record, error))
        except OSError as refused:  # what ended the stage is what counts
            log.warning("%s: %s", refused.filename, refused.strerror)
        raise
    write_stage(
        run,
        replace(record, state="done", ended=now(), exit_status=ExitStatus.DONE, output=output),
    )


@contextmanager
def _storage_errors() -> Iterator[None]:
    """Turn what the system says of a file into the error for it."""
    try:
        yield
    except OSError as error:
        if known := of_storage(error):
            raise known from error
        raise


def now() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _ended(record: StageRecord, error: BaseException) -> StageRecord:
    text = " ".join(str(error).split()) or type(error).__name__
    ended = replace(record, ended=now(), error=text, state="failed")
    match error:
        # GeneratorExit: an interrupt between the marker and the first line of the body.
        case Stopped() | KeyboardInterrupt() | GeneratorExit():
            ended = replace(ended, state="stopped")
            return replace(ended, exit_status=ExitStatus.STOPPED, error_class="stopped")
        case UserError():
            return replace(ended, exit_status=ExitStatus.USER_ERROR, error_class="user")
        case MachineFault():
            return replace(ended, exit_status=ExitStatus.FAILED, error_class="fault")
        case CardamageError():
            return replace(ended, exit_status=ExitStatus.FAILED, error_class="final")
        case _:
            text = f"{type(error).__name__}: {text}"
            return replace(ended, exit_status=ExitStatus.FAILED, error=text, error_class="fault")
