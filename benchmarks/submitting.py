"""How long submitting takes: `submit.py --dry-run` beside the start of a bare interpreter.

With `--slurm` also `submit.py` beside bare calls of `sbatch` with the very scripts that it wrote,
for one experiment and for a sweep. The jobs are held and cancelled at once. On the cluster of the
tests::

    eval "$(python -m tests.helpers.cluster start)"
    python benchmarks/submitting.py --slurm
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from machine import describe

ROOT = Path(__file__).parents[1]
RUNS = 7
SWEEP_RUNS = 3
SUBMIT = ROOT / "launch" / "submit.py"
PROFILE = "backend: slurm\nall_stages: {cpus_per_task: 1, time_minutes: 5, extra: {hold: true}}\n"


def seconds(command: Sequence[object], folder: Path = ROOT) -> float:
    """The wall time of a program that has to succeed."""
    started = time.perf_counter()
    subprocess.run([*map(str, command)], cwd=folder, capture_output=True, check=True)
    return time.perf_counter() - started


def median_s(*arguments: object) -> float:
    """The median wall time of a Python process, in seconds, after one start to warm the cache."""
    return statistics.median([seconds([sys.executable, *arguments]) for _ in range(RUNS + 1)][1:])


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


def compare_on_slurm(runs: int, repeats: int) -> None:
    """Print what submitting so many runs takes, with `submit.py` and with `sbatch`."""
    times, bare_times, calls = [], [], 0
    # One folder for all: for a minute ext4 is slow to make files where others were deleted.
    with tempfile.TemporaryDirectory() as name:
        for number in range(repeats + 1):
            folder = Path(name, str(number))
            folder.mkdir()
            (folder / "site.yaml").write_text(PROFILE)
            config = ROOT / "configs" / "smoke.yaml"
            if runs > 1:
                sweep = {"config": str(config), "grid": {"seed": list(range(runs))}}
                config = folder / "sweep.yaml"
                config.write_text(json.dumps({"name": "many", "sweep": sweep}))
            command = [sys.executable, SUBMIT, config, "--cluster", "site.yaml"]
            times.append(seconds(command, folder))
            scripts = submitted_scripts(folder)
            bare, jobs = bare_s(list(scripts))
            bare_times.append(bare)
            calls = len(jobs)
            subprocess.run(["scancel", *scripts.values(), *jobs], check=True)
    ours, bare = statistics.median(times[1:]), statistics.median(bare_times[1:])
    print(
        f"{runs} runs: submit.py {ours:.2f} s, {calls} bare calls of sbatch {bare:.2f} s, "
        f"ratio {ours / bare:.1f}, difference {ours - bare:.2f} s"
    )


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slurm", action="store_true", help="submit to SLURM, too")
    arguments = parser.parse_args()
    print(describe("pydantic", "rich", "submitit"))
    bare = median_s("-c", "pass")
    dry = ("launch/submit.py", "configs/smoke.yaml", "--dry-run", "--cluster", "local")
    dry_run = median_s(*dry, "name=benchmark_of_submitting")
    print(f"dry run {dry_run:.3f} s, bare interpreter {bare:.3f} s, ratio {dry_run / bare:.1f}")
    if arguments.slurm:
        compare_on_slurm(1, RUNS)
        compare_on_slurm(200, SWEEP_RUNS)


if __name__ == "__main__":
    main()
