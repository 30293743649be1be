"""Locks on what two programs must not write at once, on one machine or on several that share files.

A lock is a file that only one process can make, which holds on every file system; flock does
nothing on some network ones. It names its holder, who touches it every few seconds. A lock whose
holder is gone is taken over, and gone means one of these:

- on this machine: no process of that id and birth runs;
- elsewhere: the holder's SLURM job is this one, and has been queued again since;
- elsewhere, probably gone: its machine has the name of this one and seems to have started anew, or
  SLURM has no such job any more, and it missed several signs of life. Two machines may have one
  name, and two clusters that share files do not know each other's jobs;
- elsewhere, and nothing better is known: for a minute of looking the file was not touched.

Clocks are not asked: they differ between machines, and jump. Only whether something changes counts.

A holder that was taken for gone, say because its machine was suspended, ends as soon as it notices.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cardamage.errors import ExitStatus, RunError
from cardamage.processes import birth, is_alive, machine

log = logging.getLogger("cardamage")

_STDERR = 2
_BEAT_S = 5.0
_BEATS_MISSED = 3  # by a holder that is probably gone
_SILENCE_S = 60.0
_POLL_S = 0.25
_SQUEUE_S = 20.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock.

    Attributes:
        token: of this one holding, and no other.
        host: the machine's name.
        machine: :func:`cardamage.processes.machine` of it.
        pid: the process.
        born: when that process began, as :func:`cardamage.processes.birth` has it.
        since: when it took the lock, ISO 8601 in UTC; for people only.
        job: its SLURM job, where there is one.
        restarts: how often that job had been queued again.
    """

    token: str
    host: str
    machine: str
    pid: int
    born: str | None
    since: str
    job: str | None
    restarts: int

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


@contextmanager
def hold(
    path: Path,
    busy: str,
    remedy: str,
    *,
    wait: bool = False,
    beat_s: float = _BEAT_S,
    silence_s: float = _SILENCE_S,
) -> Iterator[Holder | None]:
    """Hold the lock ``path`` while the body runs; yields the holder it was left behind by, if any.

    Args:
        path: the file; its folder has to be there.
        busy: what a refusal begins with, as in "stage train of runs/x is running".
        remedy: what a refusal ends with.
        wait: wait for another holder's end rather than be refused.
        beat_s: seconds between two signs of life.
        silence_s: after so many seconds without one a holder is gone of whom nothing is known.

    Raises:
        RunError: another process holds it.
        OSError: the file cannot be made.
    """
    mine = _me()
    content = json.dumps(asdict(mine)).encode()
    missed_s = min(silence_s, _BEATS_MISSED * beat_s)
    before = _acquire(path, content, busy, remedy, wait=wait, silences_s=(missed_s, silence_s))
    over = threading.Event()
    beat = threading.Thread(
        target=_beat, args=(path, content, over, beat_s), name=f"lock {path.name}", daemon=True
    )
    beat.start()
    try:
        for aside in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            aside.unlink(missing_ok=True)  # of somebody who was killed as he tried
        yield before
    finally:
        over.set()
        beat.join()
        with suppress(OSError):  # the folder may be gone; who comes next finds this process so too
            if (found := _look(path)) and found.content == content:
                path.unlink()


def _me() -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=machine(),
        pid=os.getpid(),
        born=birth(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        job=os.environ.get("SLURM_JOB_ID"),
        restarts=int(os.environ.get("SLURM_RESTART_COUNT") or 0),
    )


@dataclass(frozen=True)
class _Look:
    """A lock as it was at one moment; two differ when anybody touched it in between."""

    content: bytes
    touched_ns: int

    @property
    def holder(self) -> Holder | None:
        """None while the file is being written, and when its writer was killed doing so."""
        try:
            return Holder(**json.loads(self.content))
        except (ValueError, TypeError):
            return None


def _look(path: Path) -> _Look | None:
    """The lock as it is now; opened anew, or a network file system would show an old one."""
    try:
        with path.open("rb") as stream:
            return _Look(stream.read(), os.fstat(stream.fileno()).st_mtime_ns)
    except FileNotFoundError:
        return None


def _acquire(
    path: Path,
    content: bytes,
    busy: str,
    remedy: str,
    *,
    wait: bool,
    silences_s: tuple[float, float],
) -> Holder | None:
    """Take the lock; ``silences_s`` of a holder who is probably gone, and of any other."""
    before: Holder | None = None
    while not _create(path, content):
        found = _look(path)
        if found is None:  # released this moment
            continue
        holder = found.holder
        gone = _is_gone(holder)
        if gone is None:
            silence_s = silences_s[0 if _is_probably_gone(holder) else 1]
            if not wait:
                log.info("looking for up to %g s whether %s lives", silence_s, holder or path)
            gone = _is_silent(path, found, silence_s)
        if gone:
            _remove(path, found)
            before = holder or before
        elif wait:
            time.sleep(_POLL_S)
        else:
            raise RunError(f"{busy} already, by {holder or 'another process'}; {remedy}")
    return before


def _create(path: Path, content: bytes) -> bool:
    """Make the lock file; False when it is there.

    It is written aside and then linked: a kill leaves a whole lock or none. Where files have no
    second names, a kill may leave an empty one, which is found out by its silence.
    """
    if path.exists():
        return False
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        _write_new(aside, content)
        try:
            os.link(aside, path)
        except FileExistsError:  # perhaps by ourselves: a file server may try twice
            found = _look(path)
            return found is not None and found.content == content
        except FileNotFoundError:  # a new holder has tidied up
            return False
        except OSError:
            return _write_new(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return True


def _write_new(path: Path, content: bytes) -> bool:
    """Make a file that is not there; False when it is."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)  # not flushed to disk: a crash of the machine ends the holder too
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _is_gone(holder: Holder | None) -> bool | None:
    """Whether a holder's process is gone; None when that cannot be known from here."""
    if holder is None:
        return None
    here = _me()
    if holder.machine == here.machine:
        return not is_alive(holder.pid, holder.born)
    if holder.job and holder.job == here.job and holder.restarts < here.restarts:
        return True
    return None


def _is_probably_gone(holder: Holder | None) -> bool:
    """Whether there is a reason to believe that a holder elsewhere is gone, and no proof."""
    if holder is None:
        return False
    is_older_start = holder.host == socket.gethostname() and (
        holder.machine.partition("/")[0] != machine().partition("/")[0]
    )
    return is_older_start or (holder.job is not None and _is_unqueued(holder.job))


def _is_unqueued(job: str) -> bool:
    """Whether SLURM says that a job neither runs nor ends; False where it cannot be asked."""
    command = ["squeue", "--noheader", "--jobs", job, "--format", "%T"]
    try:
        said = subprocess.run(
            command, capture_output=True, text=True, timeout=_SQUEUE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    if said.returncode:
        return "Invalid job id" in said.stderr
    return set(said.stdout.split()) <= {"PENDING"}


def _is_silent(path: Path, seen: _Look, silence_s: float) -> bool:
    """Whether nobody touches a lock for a while; looks are counted, so a pause here is no while."""
    for _ in range(max(1, round(silence_s / _POLL_S))):
        time.sleep(_POLL_S)
        if _look(path) != seen:
            return False
    return True


def _remove(path: Path, dead: _Look) -> None:
    """Remove a dead holder's lock, and not one that somebody else took meanwhile."""
    if _look(path) != dead:
        return
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)  # of several that try, one succeeds
    except FileNotFoundError:
        return
    found = _look(aside)
    if found and found.content != dead.content:
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _beat(path: Path, content: bytes, over: threading.Event, beat_s: float) -> None:
    while not over.wait(beat_s):
        with suppress(OSError):  # a file server that is away: the work itself will tell
            found = _look(path)
            if found and found.content == content:
                os.utime(path)
            elif found and found.holder:
                line = f"error: {path} was taken over by {found.holder}, so this process ends\n"
                os.write(_STDERR, line.encode())
                os._exit(ExitStatus.FAILED)  # what it would write now is another's
