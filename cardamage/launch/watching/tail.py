"""Following a run's ``events.jsonl`` while it is written."""

import re
from pathlib import Path
from typing import Any

from cardamage.system.console import parse_events

Event = dict[str, Any]

_TAIL_BYTES = 64 << 10


class EventTail:
    """Reads what was appended to an event file, from byte ``start`` on, since the last look."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path, self._at, self._torn = path, start, b""

    def read(self) -> list[Event]:
        """Every whole event appended since; lines that are no events are left out."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._at)
                content = stream.read()
        except FileNotFoundError:
            return []
        self._at += len(content)
        *lines, self._torn = (self._torn + content).split(b"\n")
        return parse_events(lines)


def end_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def last_events(path: Path) -> list[Event]:
    """The events in the last 64 KiB of a file, however long it is."""
    return EventTail(path, max(0, end_of(path) - _TAIL_BYTES)).read()


def last_words(log: Path, start: int) -> str:
    """The line of a log that tells best why a program ended; empty when it said nothing.

    That is its ``error:`` line, else the first exception, else the last line without
    its time, from byte ``start``.
    """
    with log.open("rb") as stream:
        stream.seek(max(start, end_of(log) - _TAIL_BYTES))
        lines = stream.read().decode("utf-8", errors="replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    exceptions = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    words = next(iter([*errors[-1:], *exceptions[:1], *lines[-1:]]), "")
    return re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ", "", words)
