"""Deaths of jobs, nodes and submitting programs on a real SLURM, and a table of what came of them.

``python -m benchmarks.drill.on_slurm`` starts the cluster of the tests, as root on Debian, and
stops it again if it did. Each case submits a small run, disturbs it, and waits until nothing of it
is queued. A run that ends complete has to equal one left alone, to the last byte.
"""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from cardamage.launch.watching.record import read_launch
from cardamage.runs.attempts import read_attempts
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.cluster import Cluster, running

ROOT = Path(__file__).parents[2]
TOY = """\
data:
  source: synthetic
  synthetic: {images: 24, size: 48}
  classes: [scratch, dent, broken lamp]
  image_size: [32, 32]
model: {name: segnet2}
optim: {name: adam, lr: 0.003}
train: {epochs: 12, batch_size: 4, save_steps: 1}
"""
PROFILE = """\
backend: slurm
all_stages: {{cpus_per_task: 1, time_minutes: 10, partition: low, extra: {{nodelist: {node}}}}}
"""
_WAIT_S = 600.0


@dataclass(frozen=True)
class Row:
    """What came of a case."""

    case: str
    blows: int
    starts: str
    end: str
    equal: str


class Drill:
    """A folder of runs on a cluster."""

    def __init__(self, folder: Path, cluster: Cluster, seed: int, node: str) -> None:
        self.folder, self.cluster, self.node = folder, cluster, node
        self.chance = random.Random(seed)
        self.environment = {**os.environ, **cluster.environment, "OMP_NUM_THREADS": "1"}
        os.environ.update(cluster.environment)
        (folder / "toy.yaml").write_text(TOY)
        self.profile = folder / "low.yaml"
        self.profile.write_text(PROFILE.format(node=node))

    def program(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run ``cardamage``."""
        return subprocess.run(
            [sys.executable, "-m", "cardamage", *words],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=check,
        )

    def submit(self, name: str) -> RunPaths:
        """Submit a run."""
        self.program("submit", "toy.yaml", f"name={name}", "--cluster", "low.yaml")
        return RunPaths(self.folder / "runs" / name)

    def slurm(self, *words: str) -> str:
        """What a command of SLURM's prints."""
        return self.cluster.output(*words)

    def wait(self, what: Callable[[], object], words: str) -> None:
        """Wait for something.

        Raises:
            TimeoutError: it did not come.
        """
        deadline = time.monotonic() + _WAIT_S
        while not what():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{words}\n{self.slurm('squeue', '-r')}")
            time.sleep(0.1)

    def jobs_of(self, run: RunPaths) -> list[str]:
        """The jobs of a run that wait or run."""
        found = (line.split() for line in self.slurm("squeue", "-h", "-o", "%i %j").splitlines())
        return [job for job, name in found if name.startswith(f"{run.root.name}-")]

    def job(self, run: RunPaths, stage: str = "train") -> str:
        """The present job of a stage."""
        launch = read_launch(run)
        return launch.jobs[stage] if launch else ""

    def gone(self, run: RunPaths, case: str) -> None:
        """Wait until no job of a run is queued."""
        self.wait(lambda: not self.jobs_of(run), f"{case}: jobs stay")

    def state(self, job: str) -> str:
        """A job's state, as squeue says."""
        return self.slurm("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def reaches(self, job: str, state: str) -> None:
        """Wait until a job is in a state."""
        self.wait(lambda: self.state(job) == state, f"job {job} does not get {state}")

    def leaves(self, job: str, state: str) -> None:
        """Wait until a job is in another state."""
        self.wait(lambda: self.state(job) != state, f"job {job} stays {state}")

    def trains(self, run: RunPaths) -> None:
        """Wait until training has saved something since it began."""
        self.wait(run.progress.is_file, "nothing is saved")

    def kill_shell(self, run: RunPaths) -> None:
        """SIGKILL to the batch shell of a run in the middle of its training."""
        self.trains(run)
        (first,) = self.processes(run, "train")[:1]
        for parent in (first, *first.parents()):
            if any("slurm_script" in word for word in parent.cmdline()):
                parent.kill()

    def processes(self, run: RunPaths, module: str) -> list[psutil.Process]:
        """The processes of a run that have a word in their command line, or its batch scripts."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if module in words and str(run.root) in words:
                found.append(process)
        return found

    def over(self, run: RunPaths, case: str, blows: int, alone: dict[str, str]) -> Row:
        """Wait until nothing is queued; what came of it."""
        self.gone(run, case)
        states = [read_stage(run, stage).state for stage in STAGES]
        starts = run.log("train").read_text().count("=== ") if run.log("train").is_file() else 0
        is_complete = states == ["done"] * 4
        trained = [a for a in read_attempts(run) if a.stage == "train"]
        text = f"{starts} of train, {len(trained)} at work"
        equal = ("yes" if results(run) == alone else "NO") if is_complete else "-"
        return Row(case, blows, text, "complete" if is_complete else ", ".join(states), equal)


def results(run: RunPaths) -> dict[str, str]:
    """A digest of every result of a run; headers of safetensors are in an order of chance."""
    patterns = ("checkpoints/*.safetensors", "metrics.csv", "test/*.csv", "test/*/*.npz")
    files = [file for pattern in patterns for file in run.root.glob(pattern)]
    return {str(f.relative_to(run.root)): hashlib.sha256(_content(f)).hexdigest() for f in files}


def _content(file: Path) -> bytes:
    data = file.read_bytes()
    return data[8 + int.from_bytes(data[:8], "little") :] if file.suffix == ".safetensors" else data


def preempted(drill: Drill, alone: dict[str, str]) -> Row:
    """Ten preemptions in a row while training starts up, then peace."""
    run = drill.submit("preempted")
    job = drill.job(run)
    for blows in range(1, 11):
        drill.leaves(job, "PENDING")
        if drill.state(job) != "RUNNING":
            return drill.over(run, "preempted again and again while starting", blows - 1, alone)
        time.sleep(drill.chance.uniform(0, 2))
        other = [
            "sbatch",
            "--parsable",
            "--partition=high",
            f"--nodelist={drill.node}",
            "--exclusive",
        ]
        before = drill.slurm(*other, "--output=/dev/null", "--wrap=sleep 1")
        drill.leaves(job, "RUNNING")
        drill.reaches(before, "COMPLETED")
    return drill.over(run, "preempted ten times in a row while starting", 10, alone)


def failing(drill: Drill, alone: dict[str, str]) -> Row:
    """The stage is killed at each start, before its first step."""
    run = drill.submit("failing")
    blows = 0
    while drill.jobs_of(run):
        for process in drill.processes(run, "train"):
            if process.name().startswith("python") and "begin" not in process.cmdline():
                process.kill()
                blows += 1
                time.sleep(1)
        time.sleep(0.2)
    return drill.over(run, "the training is killed at each start", blows, alone)


def shell_killed(drill: Drill, alone: dict[str, str]) -> Row:
    """SIGKILL to the batch shell, and so to its job, in the middle of training."""
    run = drill.submit("shell")
    drill.kill_shell(run)
    return drill.over(run, "SIGKILL to the batch shell", 1, alone)


def shell_of_study_killed(drill: Drill, alone: dict[str, str]) -> Row:
    """The same of a run of a study: the job that compares its runs has to resume it."""
    grid = "grid: {seed: [0, 1]}"
    (drill.folder / "pair.yaml").write_text(f"name: pair\nsweep: {{config: toy.yaml, {grid}}}\n")
    drill.program("submit", "pair.yaml", "--cluster", "low.yaml")
    study, run = (RunPaths(drill.folder / "runs" / name) for name in ("pair", "pair-seed_0"))
    drill.kill_shell(run)
    drill.gone(study, "a study whose run lost its batch shell")
    compared = read_stage(study, "report")
    row = drill.over(run, "SIGKILL to the batch shell of a run of a study", 1, alone)
    told = f"{row.end}; comparison {compared.state}, of {len(compared.output['tested'])} runs"
    return replace(row, end=told)


def rebooted(drill: Drill, alone: dict[str, str]) -> Row:
    """A node loses its power in the middle of training, and comes back."""
    run = drill.submit("reboot")
    drill.trains(run)
    node = drill.slurm("squeue", "-h", "-j", drill.job(run), "-o", "%N")
    drill.cluster.kill_node(node)
    time.sleep(3)
    drill.cluster.start_node(node)
    return drill.over(run, "the node's daemons and all processes killed", 1, alone)


def submitting(drill: Drill, alone: dict[str, str]) -> Iterator[Row]:
    """The submitting program is killed at ten moments; then the same command comes again.

    Jobs are held meanwhile, so that all that was queued can be counted.
    """
    held = drill.folder / "held.yaml"
    held.write_text(drill.profile.read_text().replace("extra: {", "extra: {hold: true, "))
    begun = time.monotonic()
    drill.program("submit", "toy.yaml", "name=timed", "--cluster", "held.yaml")
    took = time.monotonic() - begun
    runs = [RunPaths(drill.folder / "runs" / f"killed{number}") for number in range(10)]
    left, told, whole = [], 0, 0
    for run in runs:
        words = ["submit", "toy.yaml", f"name={run.root.name}", "--cluster", "held.yaml"]
        process = subprocess.Popen(
            [sys.executable, "-m", "cardamage", *words],
            cwd=drill.folder,
            env={**drill.environment, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(took * drill.chance.uniform(0.2, 1))
        process.kill()
        process.wait()
        left.append(len(drill.jobs_of(run)))
        again = drill.program(*words, check=False)
        whole += "is being run already" in again.stderr
        told += "was cut off" in again.stderr
        assert len(drill.jobs_of(run)) == len(STAGES), (run, again.stderr)
    for run in runs:
        drill.slurm("scontrol", "release", ",".join(drill.jobs_of(run)))
    rows = [drill.over(run, run.root.name, 1, alone) for run in runs]
    assert all((row.end, row.equal) == ("complete", "yes") for row in rows), rows
    yield Row(
        "SIGKILL to submit at ten moments, then once more",
        10,
        "-",
        f"jobs left by the kill: {left}; {whole} were whole, {told} told to be cut off; complete",
        "yes",
    )


def main() -> None:
    """Run the cases, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of cases; default: all")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--node", default="n0", help="where the runs go")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    with running() as cluster:
        drill = Drill(folder, cluster, arguments.seed, arguments.node)
        drill.program("submit", "toy.yaml", "name=alone", "--cluster", "local")
        alone = results(RunPaths(folder / "runs" / "alone"))
        print("| case | blows | starts | end | equal |")
        print("| --- | ---: | --- | --- | --- |", flush=True)
        for case in (preempted, failing, shell_killed, shell_of_study_killed, rebooted, submitting):
            if arguments.only and case.__name__ not in arguments.only:
                continue
            found = case(drill, alone)
            for row in [found] if isinstance(found, Row) else found:
                print("| " + " | ".join(map(str, row.__dict__.values())) + " |", flush=True)


if __name__ == "__main__":
    main()
