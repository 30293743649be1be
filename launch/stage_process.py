"""One stage as a process of this machine: started, watched, stopped, and its end put on record.

The stage runs in a session of its own, so that Ctrl-C reaches the launcher alone. How it ended is
read from its marker, for ``accelerate launch`` and ``torchrun`` lose the exit status. All its
processes carry the launch's tag in their environment: those launchers put their workers into
further sessions, where a process group would not reach them.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cardamage.errors import ExitStatus
from cardamage.files import naming
from cardamage.paths import RunPaths
from cardamage.processes import is_alive
from cardamage.stages import StageRecord, now, read_stage, write_stage
from launch.commands import Command
from launch.display import StageDisplay
from launch.events import EventTail, end_of
from launch.record import TAG, tagged
from launch.stop import Request

_POLL_S = 0.1
_LEFTOVERS_S = 5.0  # so long may what a stage leaves behind, such as a resource tracker, live on

# Set by some terminals and CI systems; they would fill the logs with colours and bars.
_TERMINAL_VARIABLES = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class StageProcess:
    """One stage from its start to its end.

    Args:
        run: the run.
        stage: the stage's name.
        command: what to start.
        tag: the launch's tag.
        requested: tells, again and again, whether the stage shall stop.
        display: where its progress is shown.
    """

    def __init__(
        self,
        run: RunPaths,
        stage: str,
        command: Command,
        *,
        tag: str,
        requested: Callable[[], Request],
        display: StageDisplay,
    ) -> None:
        self._run, self._stage, self._command, self._tag = run, stage, command, tag
        self._requested, self._display = requested, display
        self._attempts_before = read_stage(run, stage).attempts
        self._heeded = Request.NONE

    def run(self) -> StageRecord:
        """Start the stage, watch it to its end, leave no process behind, and return its marker."""
        events = EventTail(self._run.events, end_of(self._run.events))
        log = self._run.log(self._stage)
        started = now()
        self._display.start(self._stage)
        with naming(log), log.open("ab") as stream:
            header = f"=== {started} attempt {self._attempts_before + 1}: {self._command}\n"
            stream.write(header.encode())
            stream.flush()
            log_start = stream.tell()
            process = self._start(stream.fileno())
        try:
            while not _has_ended(process):
                self._heed_requests(process)
                self._display.show(events.read())
            self._await_leftovers()
        finally:
            self._kill(process)
        self._display.show(events.read())
        record = self._settle(process, started, log_start)
        self._display.end(record.state)
        return record

    def _start(self, output: int) -> subprocess.Popen[bytes]:
        kept = {name: v for name, v in os.environ.items() if name not in _TERMINAL_VARIABLES}
        return subprocess.Popen(
            self._command.arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**kept, **self._command.environment, TAG: self._tag},
            start_new_session=True,
        )

    def _heed_requests(self, process: subprocess.Popen[bytes]) -> None:
        request = self._requested()
        if request <= self._heeded:
            return
        self._heeded = request
        if request is Request.STOP:
            self._display.note("stopping after the current step; ask again to end it at once")
            self._ask_to_stop()
        else:
            self._display.note("ending at once")
            self._kill(process)

    def _ask_to_stop(self) -> None:
        """SIGTERM to the main process, or to all while none has come to its marker yet."""
        record = read_stage(self._run, self._stage)
        if self._is_this_attempt(record) and is_alive(record.pid, record.born):
            send(record.pid, signal.SIGTERM)
            return
        for pid in tagged(self._tag):
            send(pid, signal.SIGTERM)

    def _await_leftovers(self) -> None:
        deadline = time.monotonic() + _LEFTOVERS_S
        while tagged(self._tag) and time.monotonic() < deadline:
            if self._requested() is Request.KILL:
                return
            time.sleep(_POLL_S)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to every process of the stage, until none is left."""
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        while left := tagged(self._tag):
            for pid in left:
                send(pid, signal.SIGKILL)
            time.sleep(_POLL_S)

    def _is_this_attempt(self, record: StageRecord) -> bool:
        return record.attempts > self._attempts_before

    def _settle(
        self, process: subprocess.Popen[bytes], started: str, log_start: int
    ) -> StageRecord:
        """The stage's marker; written here when the stage did not come to its end itself."""
        record = read_stage(self._run, self._stage)
        came_to_marker = self._is_this_attempt(record)
        if came_to_marker and record.state != "running":
            return record
        if not came_to_marker:
            record = StageRecord(
                self._stage,
                attempts=self._attempts_before + 1,
                started=started,
                host=socket.gethostname(),
                pid=process.pid,
            )
        status, words = process.returncode, last_words(self._run.log(self._stage), log_start)
        clear = words.removeprefix("error: ") if words.startswith("error: ") else None
        if self._heeded:
            at_once = self._heeded is Request.KILL
            text = "ended at once, as asked" if at_once else "stopped before it had begun"
            record = _stopped(record, text)
        elif status == ExitStatus.STOPPED:
            record = _stopped(record, words)
        elif (
            clear
            and not came_to_marker
            and (status == ExitStatus.USER_ERROR or not self._command.keeps_status)
        ):
            # Before its marker a stage checks nothing but what the user gave it.
            record = _failed(record, clear, ExitStatus.USER_ERROR)
        else:
            said = f"; the last it said: {words}" if words else ""
            record = _failed(record, _how_it_ended(status) + said, ExitStatus.FAILED)
        write_stage(self._run, record)
        return record


def send(pid: int | None, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def last_words(log: Path, start: int) -> str:
    """The line of a log that tells best why a program ended; empty when it said nothing.

    That is its ``error:`` line, else the first exception, else the last line.

    Args:
        log: the file.
        start: where the program's output begins in it, in bytes.
    """
    with log.open("rb") as stream:
        stream.seek(max(start, end_of(log) - (64 << 10)))
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    exceptions = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    for found in (errors[-1:], exceptions[:1], lines[-1:]):
        if found:
            return found[0]
    return ""


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended before its work was done, with exit status {status}"


def _stopped(record: StageRecord, text: str) -> StageRecord:
    return replace(
        record,
        state="stopped",
        ended=now(),
        exit_status=ExitStatus.STOPPED,
        error=text,
        error_class="stopped",
    )


def _failed(record: StageRecord, text: str, status: ExitStatus) -> StageRecord:
    return replace(
        record,
        state="failed",
        ended=now(),
        exit_status=status,
        error=text,
        error_class="user" if status == ExitStatus.USER_ERROR else "fault",
    )
