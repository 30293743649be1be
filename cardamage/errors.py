"""What can go wrong, and the exit status each failure ends a program with.

The tree::

    CardamageError          exit 1: something failed that is not the user's doing
    ├── UserError           exit 2: one line that names the value, what is allowed, the remedy
    │   ├── ConfigError     a config file or an override
    │   ├── DataError       a dataset, an annotation, an image, a shard
    │   ├── RunError        a run directory: in use, unwritable, of another config, incomplete
    │   ├── CheckpointError a checkpoint: missing, damaged, of another model
    │   └── StorageError    a disk: full, read-only, closed to this user; a folder that is gone
    ├── MachineFault        exit 1: the machine's doing, so another start may do
    └── Stopped             exit 75: stopped on request after saving; the same command resumes

A process that got nowhere for too long ends with 76: see :mod:`cardamage.training.watchdog`.
"""

import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from difflib import get_close_matches
from enum import IntEnum
from importlib.util import find_spec
from types import FrameType
from typing import NoReturn


class ExitStatus(IntEnum):
    """How every program of this project ends."""

    DONE = 0
    FAILED = 1
    USER_ERROR = 2
    STOPPED = 75
    HUNG = 76


GOT_NOWHERE = "got nowhere for"
"""In the words of a process that its watchdog ended, by which others know that it had hung."""


class CardamageError(Exception):
    """Base of every error this package raises on purpose.

    A message may quote foreign files; whatever they hold, it reads as one line of plain text.
    """

    exit_status = ExitStatus.FAILED

    def __str__(self) -> str:
        return plain(super().__str__())


class UserError(CardamageError):
    """A mistake the user can mend: the message is one line and names the remedy."""

    exit_status = ExitStatus.USER_ERROR


class ConfigError(UserError):
    """A config file, an override or a command-line value is wrong."""


class DataError(UserError):
    """A dataset, an annotation, an image or a shard is wrong."""


class RunError(UserError):
    """A run directory cannot serve: in use, unwritable, incomplete or of another config."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or belongs to another model."""


class StorageError(UserError):
    """A file cannot be written or read for a reason that somebody has to see to."""


class MachineFault(CardamageError):  # noqa: N818 - no error of this software
    """Something was killed or cannot be reached: the same start may do, perhaps elsewhere."""


class Stopped(CardamageError):  # noqa: N818 - not an error of anybody's
    """The program was asked to stop, has saved, and resumes when started again."""

    exit_status = ExitStatus.STOPPED


_STDERR = 2
_RESUMES = "then the same command resumes"
_REMEDIES = {
    errno.ENOSPC: f"make room there, {_RESUMES}",
    errno.EDQUOT: f"make room there or have the quota raised, {_RESUMES}",
    errno.EFBIG: f"raise the limit on the size of files (ulimit -f), {_RESUMES}",
    errno.EROFS: f"make that file system writable or choose another place, {_RESUMES}",
    errno.EACCES: f"give yourself the permission or choose another place, {_RESUMES}",
    errno.EPERM: f"give yourself the permission or choose another place, {_RESUMES}",
    errno.ENOENT: f"it or its folder is gone: bring it back, {_RESUMES}",
    errno.ENOTDIR: "a part of that path is no folder: choose another place",
    errno.EEXIST: "a file is where a folder should be: remove it, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_OF_THE_MACHINE = (
    *(errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EREMOTEIO, errno.ENOTCONN),
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EUCLEAN),
)

CLOSED = (PermissionError, NotADirectoryError, FileExistsError)
"""What the system raises for a place that nothing can be written to, so that another has to do."""


def did_you_mean(given: str, names: Collection[str]) -> str:
    """What a message adds behind a name that is unknown: the nearest that is known, or nothing."""
    near = get_close_matches(given, names, n=1, cutoff=0.5)
    return f' (did you mean "{near[0]}"?)' if near else ""


def of_storage(error: OSError) -> CardamageError | None:
    """What the system said of a file, as one of these errors; None when it is about none."""
    where, reason = error.filename or "a file", error.strerror
    if isinstance(where, bytes):
        where = os.fsdecode(where)
    if error.errno in _OF_THE_MACHINE:
        return MachineFault(
            f"{where}: {reason}: the disk or the file server fails; once it works again, the same "
            f"command resumes"
        )
    remedy = _REMEDIES.get(error.errno or 0)
    return StorageError(f"{where}: {reason}; {remedy}") if remedy else None


def run_program(main: Callable[[], None]) -> NoReturn:
    """Run ``main`` and end the process as the exit-status contract says.

    A :class:`CardamageError` prints as one line on standard error, without a traceback; an
    interrupt from the keyboard ends with :attr:`ExitStatus.STOPPED`, and so does SIGTERM; a second
    one from the keyboard ends it at once, whatever it is cleaning up. A full or failing disk prints
    as one line as well. Anything else is a defect and keeps its traceback.
    """
    try:
        # A shell's background jobs ignore SIGINT; SLURM announces the end of a job by SIGUSR2.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, _interrupt)
        main()
        _flush_output()
    except CardamageError as error:
        _end(error)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        _leave_output()
        sys.exit(ExitStatus.FAILED)
    except OSError as error:
        known = of_storage(error)
        if known is None:
            raise
        _end(known)
    except KeyboardInterrupt:
        _say("stopped: interrupted; the same command resumes")
        sys.exit(ExitStatus.STOPPED)
    sys.exit(ExitStatus.DONE)


def _end(error: CardamageError) -> NoReturn:
    """End the program with one line and the status of an error."""
    _say(f"{'stopped' if isinstance(error, Stopped) else 'error'}: {error}")
    try:
        _flush_output()
    except OSError:  # it may lie on the very disk that is full, and Python would try once more
        _leave_output()
    sys.exit(error.exit_status)


def _flush_output() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, "standard output") from None


def _say(line: str) -> None:
    with suppress(OSError):  # the log may lie on the disk that is full
        print(line, file=sys.stderr)  # noqa: T201 - the last word of a program


def _leave_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a handler gets
    if number == signal.SIGINT:
        signal.signal(number, _end_at_once)
    else:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the clean-up is under way
    raise KeyboardInterrupt(f"interrupted by {signal.Signals(number).name}")


def _end_at_once(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - as above
    with suppress(OSError):
        os.write(_STDERR, b"stopped: ended at once; the same command resumes\n")
    os._exit(ExitStatus.STOPPED)


UNFIT_FOR_TEXT = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Characters that command a terminal, break a line, turn text around, or are not in UTF-8."""


def plain(text: str) -> str:
    r"""``text`` with every character of :data:`UNFIT_FOR_TEXT` as an escape, such as ``\x1b``."""
    return UNFIT_FOR_TEXT.sub(lambda found: ascii(found[0])[1:-1], text)


def shown(value: object) -> str:
    """``value`` quoted for a message: on one line, and not longer than 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers in few words: ``1-4, 7``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, bounds)) for bounds in runs)


def counted(number: int, noun: str) -> str:
    """A number and its noun: ``1 epoch``, ``3 epochs``."""
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def require_extra(package: str, extra: str) -> None:
    """Refuse what needs a package that is not installed, which an extra of this one brings.

    Raises:
        ConfigError: it is not.
    """
    if find_spec(package) is None:
        raise ConfigError(
            f'"{package}" is not installed here; `pip install "cardamage-runner[{extra}]"`, or '
            f'`pip install ".[{extra}]"` in the clone'
        )
