"""Programs as processes of their own that start at once: children of a nursery."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tests.helpers.programs import ROOT

HERE = Path(__file__).parent


class Child:
    """A program that runs, or ran."""

    def __init__(self, nursery: Nursery, pid: int, output: Path) -> None:
        self._nursery, self.pid, self._output = nursery, pid, output
        self._status: int | None = None

    def wait(self) -> int:
        """Its exit status; the number of the signal that ended it, negative."""
        _hurry(False)
        if self._status is None:
            self._status = int(self._nursery.ask({"wait": self.pid}))
        return self._status

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return when something is so, or when the program has ended.

        Until :meth:`wait` this process goes before all others, where it may: it is to strike at
        that moment, however busy the machine.
        """
        _hurry(True)
        while not is_so() and not self.has_ended():
            time.sleep(0.001)

    def has_ended(self) -> bool:
        """Whether it ended, be it that nobody has collected it yet."""
        stat = Path(f"/proc/{self.pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal; it may have ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def leaves_nobody(self) -> bool:
        """Wait until no process of its session is left."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if not _members(self.pid):
                return True
            time.sleep(0.02)
        return False

    @property
    def printed(self) -> str:
        """Its standard output and standard error."""
        return self._output.read_text()

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        assert "Traceback" not in self.printed, self.printed
        (line,) = [line for line in self.printed.splitlines() if line.startswith("error: ")]
        return line


def _hurry(is_wanted: bool) -> None:
    policy = os.SCHED_FIFO if is_wanted else os.SCHED_OTHER
    with suppress(PermissionError):
        os.sched_setscheduler(0, policy, os.sched_param(int(is_wanted)))


class Nursery:
    """Starts the project's programs within a few milliseconds.

    Args:
        library: preloaded into every program; see ``failing_disk.c``.
    """

    def __init__(self, library: Path | None) -> None:
        preload = {"LD_PRELOAD": str(library)} if library else {}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "nursery.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **preload, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"

    def ask(self, request: dict[str, object]) -> str:
        """One request, and its answer."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def start(
        self,
        folder: Path,
        script: str,
        *arguments: object,
        output: Path | None = None,
        **environment: str,
    ) -> Child:
        """Start ``script`` (as in ``jobs/pack.py``) in a folder; what it prints goes to a file."""
        output = output or folder / "printed.txt"
        if not output.is_char_device():
            output.unlink(missing_ok=True)
        program = [str(ROOT / script), *map(str, arguments)]
        request = {"start": program, "folder": str(folder), "output": str(output)}
        return Child(self, int(self.ask({**request, "environment": environment})), output)

    def run(self, folder: Path, script: str, *arguments: object, **environment: str) -> Child:
        """Run a program to its end."""
        child = self.start(folder, script, *arguments, **environment)
        child.wait()
        return child

    def close(self) -> None:
        """End the nursery."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _members(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] not in "ZX":
                found.append(int(stat.parent.name))
    return found
