"""Locks on what two programs must not write at once, on one machine or on several that share files.

A lock is a file that only one process can create, which works on every file system; flock does
nothing on some network ones. It names its holder, who touches it every few seconds. A lock is taken
over when its holder is gone:

- on this machine: no process of that id and birth runs;
- elsewhere: the holder's SLURM job is this one, and has been requeued since;
- elsewhere, on a machine with this one's name that seems to have rebooted: the lock was not touched
  for several beats of looking, for two machines may have one name;
- elsewhere otherwise: it was not touched for a minute of looking.

Clocks differ between machines and jump, so only changes of the file count, not its time. A holder
that was wrongly taken for gone, say because its machine was suspended, ends as soon as it notices.

filelock's SoftFileLease does not replace this: it never takes over the empty file that a crash may
leave, and its file has no room for the SLURM job.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from cardamage.errors import ExitStatus, RunError
from cardamage.system.job import current_job
from cardamage.system.processes import birth, is_alive, machine

log = logging.getLogger("cardamage")

_STDERR = 2
_BEAT_S = 5.0
_BEATS_MISSED = 3  # by a holder from before a reboot
_SILENCE_S = 60.0
_POLL_S = 0.25


@dataclass(frozen=True)
class Holder:
    """Who holds a lock; ``token`` is of this one holding, and no other.

    ``machine`` and ``born`` are as :mod:`cardamage.system.processes` has them; ``since``, ISO 8601
    in UTC, is for people only; ``restarts`` is how often the SLURM ``job`` had been requeued.
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
        remedy: what it ends with.
        wait: wait for another holder's end rather than be refused.
        beat_s: seconds between two signs of life.
        silence_s: without one for so long, a holder elsewhere counts as gone.

    Raises:
        RunError: another process holds it.
        OSError: the file cannot be made.
    """
    content = json.dumps(asdict(_me())).encode()
    before: Holder | None = None
    while not _create(path, content):
        found = _look(path)
        if found is None:  # released this moment
            continue
        holder = _holder(found[0])
        gone = _is_gone(holder)
        if gone is None:
            look_s = min(silence_s, _BEATS_MISSED * beat_s if _rebooted(holder) else silence_s)
            if not wait:
                log.info("looking for up to %g s whether %s lives", look_s, holder or path)
            gone = _is_silent(path, found, look_s)
        if gone:
            _remove(path, found)
            before = holder or before
        elif wait:
            time.sleep(_POLL_S)
        else:
            raise RunError(f"{busy} already, by {holder or 'another process'}; {remedy}")
    over = threading.Event()
    beat = threading.Thread(
        target=_beat, args=(path, content, over, beat_s), name=f"lock {path.name}", daemon=True
    )
    beat.start()
    try:
        yield before
    finally:
        over.set()
        beat.join()
        with suppress(OSError):  # the folder may be gone; the next one sees that we are gone
            if (found := _look(path)) and found[0] == content:
                path.unlink()


def _me() -> Holder:
    job = current_job()
    return Holder(
        token=uuid.uuid4().hex,
        host=socket.gethostname(),
        machine=machine(),
        pid=os.getpid(),
        born=birth(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        job=job.id if job else None,
        restarts=job.restarts if job else 0,
    )


_Look = tuple[bytes, int]
"""A lock's content and when it was touched; two differ when anybody touched it in between."""


def _look(path: Path) -> _Look | None:
    """The lock as it is now; opened again, as a network file system may cache an open one."""
    try:
        with path.open("rb") as stream:
            return stream.read(), os.fstat(stream.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _holder(content: bytes) -> Holder | None:
    """None while the file is being written, and when its writer was killed doing so."""
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return None


def _create(path: Path, content: bytes) -> bool:
    """Make the lock file; False when it is there.

    A kill in between leaves an empty one, which is taken over by its silence.
    """
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)  # not flushed to disk: a crash of the machine ends the holder too
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None
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


def _rebooted(holder: Holder | None) -> bool:
    """Whether a holder seems to be of this machine before its last start."""
    if holder is None or holder.host != socket.gethostname():
        return False
    return holder.machine.partition("/")[0] != machine().partition("/")[0]


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
    if found and found[0] != dead[0]:
        with suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _beat(path: Path, content: bytes, over: threading.Event, beat_s: float) -> None:
    while not over.wait(beat_s):
        with suppress(OSError):  # a file server that is away: the work itself will tell
            found = _look(path)
            if found and found[0] == content:
                os.utime(path)
            elif found and (other := _holder(found[0])):
                line = f"error: {path} was taken over by {other}, so this process ends\n"
                os.write(_STDERR, line.encode())
                os._exit(ExitStatus.FAILED)  # what it would write now is another's
