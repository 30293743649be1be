"""Requests to stop: signals to the launcher, and the file that ``cancel`` leaves for a run."""

import json
import os
import signal
import time
from collections.abc import Iterable
from enum import IntEnum
from types import FrameType
from typing import Self

from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.system.files import write_json

_SAME_REQUEST_S = 0.5  # make, or a terminal's process group, may deliver one Ctrl-C twice

NOTHING = "nothing of it runs or waits"
"""What cancelling did for a run that has ended."""


class StopRequest(IntEnum):
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
        self.request = StopRequest.NONE
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
            self.request = StopRequest(min(self.request + 1, StopRequest.KILL))
        self._last = moment


def ask(run: RunPaths, request: StopRequest) -> None:
    """Ask the launcher of a run to stop it."""
    write_json(run.cancel_request, {"request": request.name, "pid": os.getpid()})


def stage_states(run: RunPaths, stages: Iterable[str]) -> str:
    """How stages stand, for people: ``train stopped, test cancelled``."""
    return ", ".join(f"{stage} {read_stage(run, stage).state}" for stage in stages)


def requested(run: RunPaths, signals: StopSignals) -> StopRequest:
    """The most urgent request that concerns a run."""
    try:
        by_file = StopRequest[json.loads(run.cancel_request.read_text(encoding="utf-8"))["request"]]
    except FileNotFoundError:
        by_file = StopRequest.NONE
    except (OSError, ValueError, KeyError, TypeError):
        by_file = StopRequest.STOP  # whatever it says, somebody put it there
    return max(signals.request, by_file)
