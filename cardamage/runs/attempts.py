"""The attempts of a run's stages: every start that had something to do, in ``provenance.json``.

The file holds what is known of the start that trained last, ``attempts``, one entry per start of
any stage, and ``codes``, what ran in them: each state of code and packages once. An attempt whose
process was killed has no end of its own; whoever puts the death on record, or else the next start,
ends it.
"""

import json
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from cardamage.errors import RunError
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.usage import Usage, usage_of_attempt, usage_of_run
from cardamage.system.console import log
from cardamage.system.files import write_json
from cardamage.system.job import current_job
from cardamage.system.locks import hold

_OF_CODE = ("git", "snapshot", "code", "packages", "python", "platform")


@dataclass(frozen=True)
class Attempt:
    """A start of a stage that had something to do.

    Attributes:
        started, ended: ISO 8601 in UTC; ``ended`` is None while it runs.
        seconds: from its marker to its end, whole ones; waiting in a queue is no part of it.
        state: as in the stage's marker; ``lost`` when its process was gone without a word.
        job: the SLURM job, as people write it.
        begun_at, ended_at: what was saved before and after: optimiser steps of ``train``, results
            of ``test``; None where a stage has no such count, or while it runs.
        devices: what each of its ``processes`` computed on.
        queued_seconds: on SLURM from when it could have begun, its launch or the end of what it had
            to wait for, until it began.
        usage: memory, use of GPUs and energy; empty where nothing was measured.
        code: the index into ``codes`` of what ran.
    """

    stage: str
    started: str
    host: str
    code: int
    command: str
    devices: str = "cpu"
    processes: int = 1
    job: str | None = None
    ended: str | None = None
    seconds: float | None = None
    state: str = "running"
    begun_at: int | None = None
    ended_at: int | None = None
    queued_seconds: float | None = None
    usage: Usage = field(default_factory=Usage)

    __pydantic_config__ = ConfigDict(extra="ignore")


_ATTEMPTS = TypeAdapter(list[Attempt])


def read_attempts(run: RunPaths) -> list[Attempt]:
    """The attempts of a run so far, in order; none for a run of before they were kept.

    Raises:
        RunError: ``provenance.json`` is damaged.
    """
    try:
        return _ATTEMPTS.validate_python(_read(run).get("attempts", []))
    except ValueError:
        raise RunError(f"{run.provenance} is damaged; delete it") from None


def cost(attempts: Sequence[Attempt], stage: str | None = None) -> float | None:
    """Seconds of work in all attempts, or in those of a stage and its parts; None without any."""
    ended = [
        attempt.seconds
        for attempt in attempts
        if stage in (None, attempt.stage.partition(".")[0]) and attempt.seconds is not None
    ]
    return sum(ended) if ended else None


def queued(attempts: Sequence[Attempt]) -> float | None:
    """Seconds that attempts waited in SLURM's queue; None where none did."""
    waited = [a.queued_seconds for a in attempts if a.queued_seconds is not None]
    return sum(waited) if waited else None


def total_usage(attempts: Sequence[Attempt]) -> Usage:
    """What attempts took together beside time."""
    ended = [(a.usage, a.seconds) for a in attempts if a.seconds is not None]
    return usage_of_run([usage for usage, _ in ended], [seconds for _, seconds in ended])


def begin_attempt(
    run: RunPaths,
    stage: str,
    found: dict[str, Any],
    *,
    started: str,
    devices: str = "cpu",
    processes: int = 1,
) -> None:
    """Append an attempt that has something to do; a failure is a warning, no run depends on it.

    ``found`` is what :func:`cardamage.runs.provenance.provenance` returned.
    """
    job = current_job()

    def append(known: dict[str, Any], attempts: list[Attempt]) -> dict[str, Any]:
        attempts = [_ended_by_next(run, a) if _is_open(a, stage) else a for a in attempts]
        code, codes = {key: found.get(key) for key in _OF_CODE}, list(known.get("codes", []))
        if code not in codes:
            codes.append(code)
        attempt = Attempt(
            stage=stage,
            started=started,
            host=socket.gethostname(),
            code=codes.index(code),
            command=found["command"],
            devices=devices,
            processes=processes,
            job=job.name if job else None,
            begun_at=work_done(run, stage),
            queued_seconds=_waited(run, stage, started, attempts) if job else None,
        )
        tells = stage == "train" or not any(a.stage == "train" for a in attempts)
        return {**(found if tells else known), "attempts": [*attempts, attempt], "codes": codes}

    _change(run, append)


def end_attempt(run: RunPaths, stage: str, state: str, ended: str | None) -> None:
    """Put on record how the attempt of a stage ended that has not ended yet, if there is one."""
    if not run.provenance.is_file():
        return

    def finish(known: dict[str, Any], attempts: list[Attempt]) -> dict[str, Any] | None:
        if not any(_is_open(a, stage) for a in attempts):
            return None
        done = [_end(run, a, state, ended) if _is_open(a, stage) else a for a in attempts]
        return {**known, "attempts": done}

    _change(run, finish)


def work_done(run: RunPaths, stage: str) -> int | None:
    """What is saved of a stage's work: optimiser steps, or test results; None for other stages."""
    match stage.partition(".")[0]:
        case "train":
            try:
                return int(json.loads(run.progress.read_text(encoding="utf-8"))["step"])
            except (OSError, ValueError, LookupError, TypeError):
                return 0
        case "test":
            return len(list((run.root / "test").glob("*/epoch-*.npz")))
        case _:
            return None


def _is_open(attempt: Attempt, stage: str) -> bool:
    return attempt.stage == stage and attempt.ended is None


def _end(run: RunPaths, attempt: Attempt, state: str, ended: str | None) -> Attempt:
    moment = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
    seconds = max(0.0, (moment - datetime.fromisoformat(attempt.started)).total_seconds())
    return replace(
        attempt,
        state=state,
        ended=moment.isoformat(timespec="seconds"),
        seconds=float(round(seconds)),
        ended_at=work_done(run, attempt.stage),
        usage=usage_of_attempt(run, attempt.stage, attempt.started),
    )


def _waited(run: RunPaths, stage: str, started: str, attempts: Sequence[Attempt]) -> float:
    """Seconds from when a stage could have begun to ``started``."""
    name = stage.partition(".")[0]
    before = STAGES[STAGES.index(name) - 1] if name in STAGES[1:] else None
    moments = [a.ended for a in attempts if a.stage == stage and a.ended]
    for path, key in ((run.launch, "started"), (before and run.stage(before), "ended")):
        with suppress(OSError, ValueError, LookupError, TypeError):
            if path:
                moments.append(json.loads(path.read_text(encoding="utf-8"))[key])
    known = [datetime.fromisoformat(moment) for moment in moments if moment]
    seconds = (datetime.fromisoformat(started) - max(known)).total_seconds() if known else 0.0
    return max(0.0, seconds)


def _ended_by_next(run: RunPaths, attempt: Attempt) -> Attempt:
    """An attempt that was killed unseen: it lived until it last wrote a file."""
    began = datetime.fromisoformat(attempt.started).timestamp()
    written = [path.stat().st_mtime for path in (run.events, run.progress) if path.is_file()]
    last = datetime.fromtimestamp(max([began, *written]), UTC)
    return _end(run, attempt, "lost", last.isoformat())


_Change = Callable[[dict[str, Any], list[Attempt]], dict[str, Any] | None]


def _change(run: RunPaths, change: _Change) -> None:
    """Write ``provenance.json`` as ``change`` has it; parts of a stage may do so at once."""
    lock = run.lock("provenance")
    try:
        with hold(lock, f"{run.provenance} is being written", "wait for it", wait=True):
            known: dict[str, Any] = {}
            attempts: list[Attempt] = []
            try:
                known, attempts = _read(run), read_attempts(run)
            except RunError as error:
                log.warning("%s; it begins again", error)
            changed = change(known, attempts)
            if changed is not None:
                changed["attempts"] = [asdict(attempt) for attempt in changed["attempts"]]
                write_json(run.provenance, changed, flushed=False, makes_folder=False)
    except (OSError, RunError) as error:
        log.warning("%s could not be written: %s", run.provenance, error)


def _read(run: RunPaths) -> dict[str, Any]:
    """What ``provenance.json`` holds; empty when there is none."""
    try:
        return {**json.loads(run.provenance.read_text(encoding="utf-8"))}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{run.provenance} is damaged ({error}); delete it") from None
