"""Stopping runs that were launched on this machine."""

import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from cardamage.errors import CardamageError, RunError
from cardamage.launch.local.process import send
from cardamage.launch.watching.record import (
    LaunchRecord,
    is_elsewhere,
    is_here,
    read_launch,
    tagged,
)
from cardamage.launch.watching.stopping import NOTHING, StopRequest, ask, stage_states
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import cancel_waiting, is_lost, read_stage, stop
from cardamage.system.processes import is_alive

_POLL_S = 0.1


def check_is_here(run: RunPaths) -> None:
    """Make sure that what works for a run can be reached from this machine.

    Raises:
        RunError: it runs on another one.
    """
    launch, here = read_launch(run), socket.gethostname()
    hosts = {r.host for stage in STAGES if (r := read_stage(run, stage)).state == "running"}
    if launch and is_elsewhere(launch):
        hosts.add(launch.host)
    for host in sorted(host for host in hosts if host and host != here):
        raise RunError(f"{run.root} runs on {host}, and this is {here}; cancel it there")


def cancel_here(
    runs: Sequence[RunPaths], request: StopRequest, timeout_s: float
) -> Iterator[tuple[RunPaths, str]]:
    """Stop runs one after another; yields each with what was done, in words, when it has ended.

    Raises:
        CardamageError: one had not stopped after ``timeout_s`` seconds.
    """
    asked = [run for run in runs if is_here(read_launch(run))]
    for run in asked:  # all of them first, or the next would begin meanwhile
        ask(run, request)
    for run in runs:
        launch = read_launch(run)
        planned = list(launch.stages) if launch else []
        if run in asked:
            _await(run, partial(_was_heeded, run), timeout_s)
        is_orphan = not is_here(read_launch(run)) and bool(_at_work(run, launch))
        if is_orphan:
            _end(run, launch, request, timeout_s)
        waited = cancel_waiting(run, planned)
        is_over = not (run in asked or is_orphan or waited)
        yield run, NOTHING if is_over else stage_states(run, planned or STAGES)


def _was_heeded(run: RunPaths) -> bool:
    return not run.cancel_request.is_file() or not is_here(read_launch(run))


def _end(
    run: RunPaths, launch: LaunchRecord | None, request: StopRequest, timeout_s: float
) -> None:
    """End what works for a run whose launcher is gone, and put its end on record."""
    number = signal.SIGKILL if request is StopRequest.KILL else signal.SIGTERM
    told: set[int] = set()

    def is_over() -> bool:
        left = _at_work(run, launch)
        for pid in (pid for pid in left if pid not in told):
            send(pid, number)
        told.update(left)
        return not left

    _await(run, is_over, timeout_s)
    for stage in STAGES:
        if is_lost(record := read_stage(run, stage)):
            stop(run, record, "ended at once")


def _at_work(run: RunPaths, launch: LaunchRecord | None) -> list[int]:
    """The processes of this machine that work for a run whose launcher is gone.

    While the main process of the stage is there, it alone: it tells the others.
    """
    for stage in STAGES:
        record = read_stage(run, stage)
        if record.state == "running" and record.pid and is_alive(record.pid, record.born):
            return [record.pid]
    return tagged(launch.tag) if launch else []


def _await(run: RunPaths, is_over: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_over():
        if time.monotonic() > deadline:
            raise CardamageError(
                f"{run.root} was asked to stop, but has not after {timeout_s:g} s; "
                f"wait, or end it at once: cardamage cancel --kill {run.root}"
            )
        time.sleep(_POLL_S)
