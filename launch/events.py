"""Following a run's ``events.jsonl`` while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cardamage.console import parse_events

Event = dict[str, Any]

_TAIL_BYTES = 64 << 10


class EventTail:
    """Reads what was appended to an event file since the last look.

    Args:
        path: the file; it need not exist yet.
        start: where reading begins, in bytes.
    """

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
