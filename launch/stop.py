"""Requests to stop: signals to the launcher, and the file that ``cancel`` leaves for a run."""

from __future__ import annotations

import json
import os
import signal
import time
from enum import IntEnum
from types import FrameType
from typing import Self

from cardamage.files import write_json
from cardamage.paths import RunPaths

_SAME_REQUEST_S = 0.5  # make, or a terminal's process group, may deliver one Ctrl-C twice


class Request(IntEnum):
    """How urgently something is asked to end."""

    NONE = 0
    STOP = 1
    """Save at the next chance, then end."""
    KILL = 2
    """End at once."""


class StopSignals:
    """Counts Ctrl-C, SIGTERM and hang-ups while it is entered: the second ends everything at once.

    Hang-ups that are ignored from the start, as under ``nohup``, stay ignored.
    """

    def __init__(self) -> None:
        self.request = Request.NONE
        self._last = 0.0

    def __enter__(self) -> Self:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # not under nohup
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's
        moment = time.monotonic()
        if moment - self._last >= _SAME_REQUEST_S:
            self.request = Request(min(self.request + 1, Request.KILL))
        self._last = moment


def ask(run: RunPaths, request: Request) -> None:
    """Ask the launcher of a run to stop it."""
    write_json(run.cancel_request, {"request": request.name, "pid": os.getpid()})


def requested(run: RunPaths, signals: StopSignals) -> Request:
    """The most urgent request that concerns a run."""
    return max(signals.request, _asked_by_file(run))


def _asked_by_file(run: RunPaths) -> Request:
    try:
        return Request[json.loads(run.cancel_request.read_text(encoding="utf-8"))["request"]]
    except FileNotFoundError:
        return Request.NONE
    except (OSError, ValueError, KeyError, TypeError):
        return Request.STOP  # whatever it says, somebody put it there
