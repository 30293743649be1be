"""What a person sees while a stage runs, and what a machine can read of it.

On a terminal a stage shows a live bar; in a log file the same progress comes as plain lines, a few
per minute. ``events.jsonl`` holds it as JSON objects, one per line, for ``status`` and for tools.
"""

import json
import logging
import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from cardamage.errors import plain

log = logging.getLogger("cardamage")
"""The one logger; libraries keep theirs."""

console = Console(stderr=True)
"""Where progress goes: standard error, so that standard output holds results only."""


def start_logging(*, main_process: bool = True) -> None:
    """Send log lines to standard error; processes other than the main one print warnings only."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, markup=False)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(_make_plain)
    log.handlers = [handler]
    log.propagate = False
    logging.raiseExceptions = False  # a line lost on a full disk is no reason for a traceback
    log.setLevel(logging.INFO if main_process else logging.WARNING)


class EventLog:
    """Appends events to ``events.jsonl``; every event has ``time`` (Unix seconds), ``event``.

    Where the file cannot be written, that is said once: no run depends on it.
    """

    def __init__(self, path: Path, *, enabled: bool = True) -> None:
        self._path, self._enabled, self._failed = path, enabled, False

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; a line torn by a kill before it is ended first."""
        if not self._enabled:
            return
        strict = {key: _or_null(value) for key, value in fields.items()}
        line = json.dumps({"time": round(time.time(), 3), "event": event, **strict})
        try:
            with self._path.open("ab+") as stream:
                if stream.tell():
                    stream.seek(-1, 2)
                    line = line if stream.read(1) == b"\n" else f"\n{line}"
                stream.write(f"{line}\n".encode())
        except OSError as error:
            if not self._failed:
                log.warning("%s: %s; continuing without events", self._path, error.strerror)
            self._failed = True


def read_events(path: Path) -> list[dict[str, Any]]:
    """Every whole event of a file; lines torn by a kill are left out."""
    if not path.is_file():
        return []
    return parse_events(path.read_bytes().split(b"\n"))


def parse_events(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """The events that lines of ``events.jsonl`` hold; lines that hold none are left out."""
    events = []
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and "event" in event:
            events.append(event)
    return events


class Progress:
    """Progress of one stage: a live bar on a terminal, a plain line now and then elsewhere.

    With an event log it also writes ``progress`` events. Of ``total`` units (a plural, such as
    ``images``) ``done`` were complete before; ``enabled`` is False in all but the main process.
    """

    def __init__(
        self,
        stage: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        events: EventLog | None = None,
        enabled: bool = True,
        line_every_s: float = 5.0,
    ) -> None:
        self._stage, self._total, self._unit = stage, total, unit
        self._done = self._done_before = done
        self._events, self._enabled, self._line_every_s = events, enabled, line_every_s
        self._bar: RichProgress | None = None

    def __enter__(self) -> Self:
        self._started = self._last_line = time.monotonic()
        if self._enabled and console.is_terminal:
            self._bar = RichProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(
                self._stage, total=self._total, completed=self._done, unit=self._unit, shown=""
            )
            self._bar.start()
        return self

    def advance(self, units: int = 1, **shown: Any) -> None:
        """Count ``units`` more as done; ``shown`` stands beside the bar, as in ``epoch=3``."""
        if not self._enabled:
            return
        self._done += units
        if self._bar:
            self._bar.update(self._task, completed=self._done, shown=_beside(shown))
        if time.monotonic() - self._last_line >= self._line_every_s:
            self._report(shown)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self._bar:
            self._bar.stop()
        if self._enabled and kind is None:
            self._report({})

    def _report(self, shown: dict[str, Any]) -> None:
        self._last_line = time.monotonic()
        elapsed = max(self._last_line - self._started, 1e-9)
        speed = (self._done - self._done_before) / elapsed
        left = (self._total - self._done) / speed if speed > 0 else None
        if not self._bar:
            tail = f", {left:.0f} s left" if left else ""
            text = f"{self._done}/{self._total} {self._unit}, {speed:.1f}/s{tail}"
            log.info("%s: %s %s", self._stage, text, _beside(shown))
        if self._events:
            self._events.write(
                "progress",
                stage=self._stage,
                done=self._done,
                total=self._total,
                unit=self._unit,
                per_second=round(speed, 3),
                seconds_left=None if left is None else round(left, 1),
                **shown,
            )


def _make_plain(record: logging.LogRecord) -> bool:
    """Keep what a log line quotes of foreign files on that line, and from commanding terminals."""
    record.msg, record.args = plain(record.getMessage()), None
    return True


def _or_null(value: Any) -> Any:
    """The value, or None for a number that JSON has no word for."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _beside(shown: dict[str, Any]) -> str:
    return " ".join(f"{key} {value}" for key, value in shown.items())
