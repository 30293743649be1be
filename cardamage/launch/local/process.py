"""One stage as a process of this machine: started, watched, stopped, and its end put on record.

The stage runs in a session of its own, so that Ctrl-C reaches the launcher alone. How it ended is
read from its marker, for ``accelerate launch`` and ``torchrun`` lose the exit status. All its
processes carry the launch's tag in their environment: those launchers put their workers into
further sessions, where a process group would not reach them.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from cardamage.errors import ExitStatus
from cardamage.launch.local.commands import Command
from cardamage.launch.watching.display import StageDisplay
from cardamage.launch.watching.record import TAG, tagged
from cardamage.launch.watching.stopping import StopRequest
from cardamage.launch.watching.tail import EventTail, end_of, last_words
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord, fail, now, read_stage, stop
from cardamage.system.files import naming
from cardamage.system.processes import is_alive

_POLL_S = 0.1
_LEFTOVERS_S = 5.0  # so long may what a stage leaves behind, such as a resource tracker, live on

# Set by some terminals and CI systems; they would fill the logs with colours and bars.
_TERMINAL_VARIABLES = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


class StageProcess:
    """One stage from its start to its end; ``requested`` tells at any time whether to stop it."""

    def __init__(
        self,
        run: RunPaths,
        stage: str,
        command: Command,
        tag: str,
        *,
        requested: Callable[[], StopRequest],
        display: StageDisplay,
    ) -> None:
        self._run, self._stage, self._command, self._tag = run, stage, command, tag
        self._requested, self._display = requested, display
        attempt, host = read_stage(run, stage).attempts + 1, socket.gethostname()
        self._begun = StageRecord(stage, "running", attempt, now(), host=host)
        self._heeded = StopRequest.NONE

    def run(self) -> StageRecord:
        """Start the stage, watch it to its end, leave no process behind, and return its marker."""
        events = EventTail(self._run.events, end_of(self._run.events))
        log = self._run.log(self._stage)
        self._display.start(self._stage)
        with naming(log), log.open("ab") as stream:
            begun = f"{self._begun.started} attempt {self._begun.attempts}"
            stream.write(f"=== {begun}: {self._command}\n".encode())
            stream.flush()
            log_start = stream.tell()
            process = self._start(stream.fileno())
        try:
            while process.poll() is None:
                time.sleep(_POLL_S)
                self._heed_requests(process)
                self._display.show(events.read())
            self._await_leftovers()
        finally:
            self._kill(process)
        self._display.show(events.read())
        record = self._settle(process, log_start)
        self._display.end(record.state)
        return record

    def _start(self, output: int) -> subprocess.Popen[bytes]:
        kept = {name: v for name, v in os.environ.items() if name not in _TERMINAL_VARIABLES}
        return subprocess.Popen(
            self._command.arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**kept, "PYTHONSAFEPATH": "1", **self._command.environment, TAG: self._tag},
            start_new_session=True,
        )

    def _heed_requests(self, process: subprocess.Popen[bytes]) -> None:
        request = self._requested()
        if request <= self._heeded:
            return
        self._heeded = request
        if request is StopRequest.KILL:
            self._display.note("ending at once")
            self._kill(process)
            return
        self._display.note("stopping after the current step; ask again to end it at once")
        record = read_stage(self._run, self._stage)
        # The main process tells the others; while it has not come to its marker, all are told.
        has_begun = record.attempts >= self._begun.attempts and is_alive(record.pid, record.born)
        for pid in [record.pid] if has_begun else tagged(self._tag):
            send(pid, signal.SIGTERM)

    def _await_leftovers(self) -> None:
        deadline = time.monotonic() + _LEFTOVERS_S
        while tagged(self._tag) and time.monotonic() < deadline:
            if self._requested() is StopRequest.KILL:
                return
            time.sleep(_POLL_S)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to every process of the stage, until none is left."""
        process.kill()
        process.wait()
        while left := tagged(self._tag):
            for pid in left:
                send(pid, signal.SIGKILL)
            time.sleep(_POLL_S)

    def _settle(self, process: subprocess.Popen[bytes], log_start: int) -> StageRecord:
        """The stage's marker; written here when the stage did not come to its end itself."""
        run, record = self._run, read_stage(self._run, self._stage)
        has_begun = record.attempts >= self._begun.attempts
        if has_begun and record.state != "running":
            return record
        if record.state == "done" and not process.returncode:
            return record  # it found nothing to do
        if not has_begun:
            record = replace(self._begun, pid=process.pid)
        status, words = process.returncode, last_words(run.log(self._stage), log_start)
        if self._heeded:
            at_once = self._heeded is StopRequest.KILL
            text = "ended at once, as asked" if at_once else "stopped before it had begun"
            return stop(run, record, text)
        if status == ExitStatus.STOPPED:
            return stop(run, record, words)
        told = status == ExitStatus.USER_ERROR or not self._command.keeps_status
        if words.startswith("error: ") and told and not has_begun:
            # Before its marker a stage checks nothing but what the user gave it.
            return fail(run, record, words.removeprefix("error: "), "user")
        how = f"its process ended before its work was done, with exit status {status}"
        if status < 0:
            how = f"its process was ended by {signal.Signals(-status).name}"
        said = f"; the last it said: {words}" if words else ""
        return fail(run, record, how + said, "fault")


def send(pid: int | None, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended meanwhile."""
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
