"""A contestant in a process of its own, which measures whenever it is asked to.

The program starts once, so that a pair takes no longer than its two measurements; and what two
libraries do to a process (threads, iterators that are left half read) stays apart.
"""

import subprocess
import sys
from collections.abc import Callable

from benchmarks.drawn import environment


class Served:
    """``python -m MODULE --serve WORDS...``, which answers numbers; see :func:`answer`."""

    def __init__(self, module: str, *words: object, **variables: str) -> None:
        self._name = f"{module} {' '.join(map(str, words))}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, "--serve", *map(str, words)],
            env={**environment(), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, number: int) -> float:
        """What it measures for a number: of workers, of steps."""
        print(number, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("="):  # libraries print, too
                return float(line[1:])
        sys.exit(f"{self._name} ended, see above")

    def end(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def answer(measure: Callable[[int], float]) -> None:
    """In the process: measure for each number on standard input, and print it."""
    for line in sys.stdin:
        print(f"={measure(int(line))}", flush=True)
