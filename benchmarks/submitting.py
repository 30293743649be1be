"""How much longer submitting takes than bare calls of `sbatch` with the very scripts it writes.

For one experiment and for a sweep of 200. The jobs are held and cancelled at once. It needs a
cluster that answers; on that of the tests::

    eval "$(python -m tests.helpers.cluster start)"
    python -m benchmarks.submitting
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pairs import hold

ROOT = Path(__file__).parents[1]
RUNS = 7
SWEEP_RUNS = 5
SUBMIT = ROOT / "launch" / "submit.py"
PROFILE = "backend: slurm\nall_stages: {cpus_per_task: 1, time_minutes: 5, extra: {hold: true}}\n"


def seconds(command: Sequence[object], folder: Path = ROOT) -> float:
    """The wall time of a program that has to succeed."""
    started = time.perf_counter()
    subprocess.run([*map(str, command)], cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - started


def submitted_scripts(folder: Path) -> dict[str, str]:
    """The job of each batch script of the runs in a folder, in the order of submission."""
    found: dict[str, str] = {}
    for path in folder.glob("runs/*/launch.json"):
        launch = json.loads(path.read_text())
        for stage, job in launch["jobs"].items():
            found[launch["stages"][stage][1]] = job.partition("_")[0]
    return dict(sorted(found.items(), key=lambda pair: int(pair[1])))


def bare_s(scripts: Sequence[str]) -> tuple[float, list[str]]:
    """The wall time of `sbatch`, once a script, each job after the one before; and the jobs."""
    jobs: list[str] = []
    started = time.perf_counter()
    for script in scripts:
        after = [f"--dependency=afterok:{jobs[-1]}"] if jobs else []
        command = ["sbatch", "--parsable", *after, script]
        jobs.append(subprocess.check_output(command, text=True).strip())
    return time.perf_counter() - started, jobs


def compare_on_slurm(runs: int, repeats: int, bar: str) -> None:
    """Tell how much longer `submit.py` takes for so many runs than bare calls of `sbatch`."""
    # One folder for all: for a minute ext4 is slow to make files where others were deleted.
    with tempfile.TemporaryDirectory() as name:
        numbers = iter(range(repeats + 1))

        def difference_s() -> float:
            folder = Path(name, str(next(numbers)))
            folder.mkdir()
            (folder / "site.yaml").write_text(PROFILE)
            config = ROOT / "configs" / "smoke.yaml"
            if runs > 1:
                sweep = {"config": str(config), "grid": {"seed": list(range(runs))}}
                config = folder / "sweep.yaml"
                config.write_text(json.dumps({"name": "many", "sweep": sweep}))
            command = [sys.executable, SUBMIT, config, "--cluster", "site.yaml"]
            ours = seconds(command, folder)
            scripts = submitted_scripts(folder)
            bare, jobs = bare_s(list(scripts))
            subprocess.run(["scancel", *scripts.values(), *jobs], check=True)
            return ours - bare

        difference_s()  # warms the caches
        hold(
            f"submitting {runs} run{'s' * (runs > 1)}, beyond bare calls of sbatch",
            bar,
            difference_s,
            unit="s",
            repeats=repeats,
            packages=("submitit", "pydantic"),
        )


def main() -> None:
    """Measure, and tell."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    if (
        not shutil.which("sinfo")
        or subprocess.run(["sinfo"], capture_output=True, check=False).returncode
    ):
        sys.exit(
            "no SLURM answers; start that of the tests: "
            'eval "$(python -m tests.helpers.cluster start)"'
        )
    compare_on_slurm(1, RUNS, "<= 0.5")
    compare_on_slurm(200, SWEEP_RUNS, "<= 1.0")


if __name__ == "__main__":
    main()
