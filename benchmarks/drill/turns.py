"""A sweep of many small runs where few jobs may be submitted, and whether each is as if alone.

``python -m benchmarks.drill.turns`` starts the cluster of the tests, as root on Debian, lets a user
have 20 jobs there, submits 200 runs once, waits until nothing is queued, and trains a sample of
them again, one by one and without SLURM. To spare imports, stages are forks: on SLURM those of
``benchmarks.drill.forks``, without it warm starts of the drill.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.drill.on_slurm import ROOT, Drill, results
from benchmarks.drill.starts import Order, WarmStart, preload
from cardamage.launch.watching.record import read_launch
from cardamage.runs.attempts import read_attempts
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.cluster import running

TINY = """\
data:
  source: synthetic
  synthetic: {images: 12, size: 32}
  classes: [scratch, dent, broken lamp]
  image_size: [16, 16]
model: {name: segnet2}
optim: {name: adam, lr: 0.003}
train: {epochs: 1, batch_size: 4}
test: {overlays: 0}
"""
SWEEP = "name: many\nsweep: {{config: tiny.yaml, grid: {{seed: {seeds}}}}}\n"
PROFILE = """\
backend: slurm
all_stages: {{cpus_per_task: 1, time_minutes: {minutes}, qos: turns}}
setup: ['export PATH="{folder}/bin:$PATH"']
container: {{runtime: apptainer, image: none}}
save_seconds: 60
"""
_POLL_S = 10.0
_RESULTS = 4  # a checkpoint, metrics.csv, the test table and the counts


def main() -> None:
    """Run the sweep, then the sample, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--limit", type=int, default=20, help="jobs that may be submitted")
    parser.add_argument("--sample", type=int, default=12, help="runs that are compared")
    parser.add_argument("--minutes", type=int, default=10, help="a job's time limit")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="turns-"))
    folder.mkdir(parents=True, exist_ok=True)
    with running() as cluster:
        drill = Drill(folder, cluster, 0, "n0")
        with serving(drill):
            runs = swept(drill, arguments.runs, arguments.limit, arguments.minutes)
        different = compared(drill, runs, arguments.sample)
    sys.exit(bool(different))


@contextmanager
def serving(drill: Drill) -> Iterator[None]:
    """Have a process whose forks the stages are."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.drill.forks", str(drill.folder)],
        cwd=ROOT,
        env=drill.environment,
    )
    try:
        drill.wait((drill.folder / "bin" / "apptainer").is_file, "nobody forks")
        yield
    finally:
        server.kill()
        server.wait()


def swept(drill: Drill, count: int, limit: int, minutes: int) -> list[RunPaths]:
    """Submit a sweep once and wait for its end; its runs, all of them complete."""
    for word in (["add", "qos", "turns"], ["modify", "qos", "turns", "set"]):
        drill.slurm("sacctmgr", "-i", *word, f"MaxSubmitJobsPerUser={limit}")
    drill.slurm("sacctmgr", "-i", "modify", "user", "root", "set", "qos+=turns")
    (drill.folder / "tiny.yaml").write_text(TINY)
    (drill.folder / "many.yaml").write_text(SWEEP.format(seeds=[*range(count)]))
    profile = PROFILE.format(minutes=minutes, folder=drill.folder)
    (drill.folder / "turns.yaml").write_text(profile)
    begun = time.monotonic()
    print(drill.program("submit", "many.yaml", "--cluster", "turns.yaml").stdout.splitlines()[-1])
    queued = len(drill.slurm("squeue", "-hr").splitlines())
    print(f"submitted in {time.monotonic() - begun:.0f} s; {queued} jobs of {limit}", flush=True)
    runs = [RunPaths(drill.folder / "runs" / f"many-seed_{seed}") for seed in range(count)]
    most = queued
    while jobs := drill.slurm("squeue", "-hr", "-o", "%j").splitlines():
        most = max(most, len(jobs))
        time.sleep(_POLL_S)
    took = time.monotonic() - begun
    states = Counter(read_stage(run, stage).state for run in runs for stage in STAGES)
    elements = {launch.jobs["train"] for run in runs if (launch := read_launch(run))}
    starts = sum(len(read_attempts(run)) for run in runs)
    print(
        f"{count} runs, {len(elements)} elements of train, at most {most} jobs at a time, "
        f"{starts} starts that did work; stages: {dict(states)}; {took / 60:.1f} minutes",
        flush=True,
    )
    if states != {"done": count * len(STAGES)}:
        sys.exit("not all of them are complete")
    return runs


def compared(drill: Drill, runs: list[RunPaths], sample: int) -> int:
    """Train and test a sample again, alone; how many differ.

    In it are the first and the last runs of elements.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(drill.folder)
    preload()
    ends = max(1, sample // 3)
    middle = runs[ends:-ends]
    chosen = [*runs[:ends], *drill.chance.sample(middle, sample - 2 * ends), *runs[-ends:]]
    different = 0
    for run in chosen:
        seed = run.root.name.rpartition("_")[2]
        alone = RunPaths(drill.folder / "alone" / f"seed_{seed}")
        for stage in ("pack", "train", "test"):
            words = (f"name={alone.root.name}", f"seed={seed}", f"--runs-dir={alone.root.parent}")
            log = drill.folder / f"{alone.root.name}.log"
            order = Order(ROOT / "jobs" / f"{stage}.py", ("tiny.yaml", *words), 1, log, str(log))
            start = WarmStart(order)
            while (status := start.poll()) is None:
                time.sleep(0.05)
            if status:
                sys.exit(f"{stage} of seed {seed} alone ended with {status}; see {log}")
        found = results(run)
        is_equal = len(found) >= _RESULTS and found == results(alone)
        different += not is_equal
        print(f"seed {seed}: {len(found)} files, equal: {is_equal}", flush=True)
    print(f"{len(chosen)} runs compared, {different} differ", flush=True)
    return different


if __name__ == "__main__":
    main()
