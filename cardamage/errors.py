"""What can go wrong, and the exit status each failure ends a program with.

The tree::

    CardamageError          exit 1: something failed that is not the user's doing
    ├── UserError           exit 2: one line that names the value, what is allowed, the remedy
    │   ├── ConfigError     a config file or an override
    │   ├── DataError       a dataset, an annotation, an image, a shard
    │   ├── RunError        a run directory: in use, unwritable, of another config, incomplete
    │   └── CheckpointError a checkpoint: missing, damaged, of another model
    ├── MachineFault        exit 1: the machine's doing, so another start may do
    └── Stopped             exit 75: stopped on request after saving; the same command goes on

A process that got nowhere for too long ends with 76: see :mod:`cardamage.training.watchdog`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from enum import IntEnum
from types import FrameType
from typing import NoReturn


class ExitStatus(IntEnum):
    """How every program of this project ends."""

    DONE = 0
    FAILED = 1
    USER_ERROR = 2
    STOPPED = 75
    HUNG = 76


class CardamageError(Exception):
    """Base of every error this package raises on purpose."""

    exit_status = ExitStatus.FAILED


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


class MachineFault(CardamageError):  # noqa: N818 - no error of this software
    """Something was killed or cannot be reached: the same start may do, perhaps elsewhere."""


class Stopped(CardamageError):  # noqa: N818 - not an error of anybody's
    """The program was asked to stop, has saved, and will go on when started again."""

    exit_status = ExitStatus.STOPPED


def run_program(main: Callable[[], None]) -> NoReturn:
    """Run ``main`` and end the process as the exit-status contract says.

    A :class:`CardamageError` prints as one line on standard error, without a traceback; an
    interrupt from the keyboard ends with :attr:`ExitStatus.STOPPED`, and so does SIGTERM. Anything
    else is a defect and keeps its traceback, so that it can be reported.
    """
    try:
        # A shell's background jobs ignore SIGINT; SLURM announces the end of a job by SIGUSR2.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, _interrupt)
        main()
        sys.stdout.flush()
    except CardamageError as error:
        label = "stopped" if isinstance(error, Stopped) else "error"
        print(f"{label}: {error}", file=sys.stderr)  # noqa: T201 - the last word of a program
        sys.exit(error.exit_status)
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitStatus.FAILED)
    except KeyboardInterrupt:
        print("stopped: interrupted; the same command goes on", file=sys.stderr)  # noqa: T201
        sys.exit(ExitStatus.STOPPED)
    sys.exit(ExitStatus.DONE)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a handler gets
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_IGN)  # once is enough: the clean-up is under way
    raise KeyboardInterrupt(f"interrupted by {signal.Signals(number).name}")
