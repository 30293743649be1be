"""A bounded number of files held open for threads that read them by offset."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock


@dataclass
class _Open:
    descriptor: int
    users: int


class OpenFiles:
    """Keeps the files read last open, so that neither opening nor the limit on them is felt.

    A file in use is never closed under its reader: while every kept file is in use, more than
    ``limit`` are open.

    Args:
        limit: how many files stay open.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._open: OrderedDict[Path, _Open] = OrderedDict()
        self._closed = False

    @contextmanager
    def borrow(self, path: Path) -> Iterator[int]:
        """Yield a descriptor to read ``path`` with ``os.pread``.

        Raises:
            OSError: the file cannot be opened.
            ValueError: this was closed.
        """
        with self._lock:
            if self._closed:
                raise ValueError("reading after close()")
            if path not in self._open:
                self._open[path] = _Open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), users=0)
            file = self._open[path]
            self._open.move_to_end(path)
            file.users += 1
            self._close_idle()
        try:
            yield file.descriptor
        finally:
            with self._lock:
                file.users -= 1
                self._close_idle()

    def close(self) -> None:
        """Close every file, those in use as soon as their readers are done."""
        with self._lock:
            self._closed = True
            self._limit = 0
            self._close_idle()

    def _close_idle(self) -> None:
        idle = [path for path, file in self._open.items() if file.users == 0]
        for path in idle[: max(0, len(self._open) - self._limit)]:
            os.close(self._open.pop(path).descriptor)
