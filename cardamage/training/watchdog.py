"""Ends a process that has hung, its stacks in the log first, so that the job can start again.

A rank that hangs makes all others wait for it, in collectives that know no time limit worth the
name. Every rank watches itself: they stop within one step of each other, and each writes down where
it stands before the first of them ends the job.
"""

import faulthandler
import math
import os
import tempfile
import threading
import time
from typing import Self

from cardamage.errors import GOT_NOWHERE, ConfigError, ExitStatus
from cardamage.system.processes import node_name
from cardamage.training.distributed import COLLECTIVE_S

LIMIT = "CARDAMAGE_WATCHDOG_S"
"""The environment variable that says after how many seconds a process has hung; 0 for never."""

_STDERR = 2
_START_UP = 3.0  # the first step may compile, tune and fill caches: it gets so many limits
_START_UP_AT_MOST_S = COLLECTIVE_S - 60.0  # but other ranks must not give up before it strikes
_POLL_S = 0.5
_LATER_S = 2.0


def limit_from_environment() -> float:
    """Seconds by :data:`LIMIT`; 0, which watches nothing, where it is not set.

    Raises:
        ConfigError: it is no such number.
    """
    text = os.environ.get(LIMIT, "0")
    try:
        limit_s = float(text)
    except ValueError:
        limit_s = math.nan
    if not 0 <= limit_s < math.inf:
        raise ConfigError(f'{LIMIT} is "{text}"; give seconds, or 0 for no watchdog')
    return limit_s


class Watchdog:
    """While entered, ends the process with status 76 when nobody calls :meth:`pet` for a while.

    Args:
        limit_s: how long that is, in seconds; the first time thrice, within what collectives wait.
            0 never ends the process.
        grace_s: seconds from the stacks to the end, in which other ranks write theirs.
    """

    def __init__(self, limit_s: float, *, grace_s: float = 10.0) -> None:
        self._limit_s, self._grace_s = limit_s, grace_s
        self._left = threading.Event()

    def __enter__(self) -> Self:
        start_up_s = min(_START_UP * self._limit_s, _START_UP_AT_MOST_S)
        self._deadline = time.monotonic() + max(start_up_s, self._limit_s)
        if self._limit_s:
            self._stacks = tempfile.TemporaryFile()  # now: a hang may be the disk's
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._limit_s:
            self._left.set()
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()
            self._stacks.close()

    def pet(self) -> None:
        """Say that something has been achieved."""
        self._deadline = time.monotonic() + self._limit_s

    def _watch(self) -> None:
        while not self._left.wait(_POLL_S):
            left_s = self._deadline - time.monotonic()
            if left_s < 0:
                self._write_stacks()
                self._left.wait(self._grace_s)
                os._exit(ExitStatus.HUNG)  # nothing less ends a process that waits in C code
            # Should C code never give Python's lock back, this strikes later, with status 1.
            in_s = left_s + 2 * self._grace_s + _LATER_S
            faulthandler.dump_traceback_later(in_s, exit=True, file=_STDERR)

    def _write_stacks(self) -> None:
        faulthandler.dump_traceback(self._stacks)
        self._stacks.seek(0)
        lines = self._stacks.read().decode(errors="replace").splitlines()
        who = f"process {os.environ.get('RANK', '0')} on {node_name()}"
        first = f"error: {who} {GOT_NOWHERE} {self._limit_s:g} s; its stacks, latest call first:"
        text = "\n".join([first, *(f"[{who}] {line}" for line in lines)])
        os.write(_STDERR, text.encode() + b"\n")  # at once, or those of several ranks would mix
