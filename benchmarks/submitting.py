"""How long `submit.py --dry-run` takes, beside the start of a bare interpreter, in one run."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

ROOT = Path(__file__).parents[1]
RUNS = 7


def median_s(*arguments: str) -> float:
    """The median wall time of a Python process, in seconds, after one start to warm the cache."""
    times = []
    for _ in range(RUNS + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    """Print both medians and their ratio."""
    bare = median_s("-c", "pass")
    script = ("launch/submit.py", "configs/smoke.yaml", "--dry-run", "--cluster", "local")
    dry_run = median_s(*script, "name=benchmark_of_submitting")
    print(describe("pydantic", "rich"))
    print(f"dry run {dry_run:.3f} s, bare interpreter {bare:.3f} s, ratio {dry_run / bare:.1f}")


if __name__ == "__main__":
    main()
