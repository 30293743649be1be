"""Kill a halving search at random moments, and compare it with one left alone.

Both are the same 12 trials on a drawn dataset. The one is submitted once; of the other, by turns,
the process that submits and decides and the stage that is at work get a SIGKILL, and the same
command goes on. The decisions, the ranking and the bytes of every checkpoint have to be the same.

With ``--slurm`` the other is submitted once to the cluster of the tests, as root on Debian, and by
turns the stage processes of a job, the batch shell of a job and that of one that decides get it.
"""

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random

import psutil

from tests.helpers.cluster import Cluster, running

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """\
name: toy
data:
  source: synthetic
  synthetic: {images: 64, size: 64}
  classes: [scratch, dent, broken lamp]
  image_size: [48, 48]
model: {name: segnet2}
optim: {name: adam, lr: 0.003}
schedule: {name: cosine}
train: {epochs: 6, batch_size: 4, save_steps: 2}
test: {select_by: loss}
"""
SEARCH = """\
name: found
sweep:
  config: toy.yaml
  space:
    optim.lr: {low: 1e-4, high: 1e-1, log: true}
    optim.name: [adam, sgd]
    train.batch_size: {low: 4, high: 8, step: 4}
  search: {method: tpe, trials: 12, parallel: 6}
  halving: {rungs: [1, 3], keep: 0.33}
"""
PROFILE = """\
backend: slurm
all_stages: {cpus_per_task: 1, time_minutes: 30}
"""


def main() -> None:
    """Run both searches and print the table; exit 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--slurm", action="store_true", help="kill jobs of a real SLURM")
    parser.add_argument("--work", type=Path, help="where both lie, and stay")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="search-drill-"))
    if submit(work / "alone").wait():
        sys.exit(f"the undisturbed search failed; see {work / 'alone' / 'log'}")
    total = checkpoints(work / "alone")
    disturb = disturbed_on_slurm if arguments.slurm else disturbed
    kills = disturb(work / "killed", arguments.kills, total, Random(arguments.seed))
    print("| kill | of | round | epochs trained |\n|---:|---|---:|---:|")
    for number, (what, round_, epochs) in enumerate(kills, start=1):
        print(f"| {number} | {what} | {round_} | {epochs} of {total} |")
    left, right = (outcome(work / name / "runs") for name in ("alone", "killed"))
    different = sorted(name for name in {**left, **right} if left.get(name) != right.get(name))
    print(f"{len(left)} files compared, {len(different)} differ: {', '.join(different) or 'none'}")
    sys.exit(bool(different))


def submit(folder: Path, cluster: str = "local", **more: str) -> subprocess.Popen[bytes]:
    """Submit the search in a folder, where it goes on if it was begun; ``more`` variables."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.yaml").write_text(EXPERIMENT)
    (folder / "search.yaml").write_text(SEARCH)
    environment = {**os.environ, **more, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cardamage", "submit", "search.yaml", "--cluster", cluster]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def disturbed(folder: Path, kills: int, total: int, random: Random) -> list[tuple[str, int, int]]:
    """Submit a search to its end through kills: of what, in which round, after how many epochs.

    Each comes up to ten seconds after a random number of the ``total`` epochs is trained.
    """
    moments = sorted(random.uniform(0, total - 1) for _ in range(kills))
    done: list[tuple[str, int, int]] = []
    process = submit(folder)
    for number, moment in enumerate(moments):
        while process.poll() is None and checkpoints(folder) < moment:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 10))
        what = ("the submitting process", "the stage at work", "both")[number % 3]
        stages = children(process.pid)
        done.append((what, decided(folder), checkpoints(folder)))
        victims = {"the submitting process": [process.pid], "the stage at work": stages}
        for pid in victims.get(what, [process.pid, *stages]):
            os.kill(pid, signal.SIGKILL)
        if what != "the stage at work":
            process.wait()
            while left_at_work(stages):  # a stage that outlives its launcher keeps others out
                time.sleep(0.1)
            process = submit(folder)
    for _ in range(5):
        if process.wait() == 0:
            break
        process = submit(folder)
    return done


def disturbed_on_slurm(
    folder: Path, kills: int, total: int, random: Random
) -> list[tuple[str, int, int]]:
    """The same on SLURM, where the jobs go on by themselves after one submission."""
    moments = sorted(random.uniform(0, total - 1) for _ in range(kills))
    done: list[tuple[str, int, int]] = []
    with running() as cluster:
        folder.mkdir(parents=True)
        (folder / "site.yaml").write_text(PROFILE)
        if submit(folder, "site.yaml", **cluster.environment).wait():
            sys.exit(f"the search was not submitted; see {folder / 'log'}")
        for number, moment in enumerate(moments):
            while jobs_of(cluster) and checkpoints(folder) < moment:
                time.sleep(0.5)
            what = ("the stage of a job", "a batch shell", "that of a decision")[number % 3]
            if what != "that of a decision":
                time.sleep(random.uniform(0, 10))
            while (found := jobs_of(cluster)) and not kill_in_job(what, found, random):
                time.sleep(0.5)
            done.append((what, decided(folder), checkpoints(folder)))
        while jobs_of(cluster):
            time.sleep(1)
    return done


def jobs_of(cluster: Cluster) -> list[list[str]]:
    """The jobs of the search that wait or run: id, state and name."""
    lines = cluster.output("squeue", "-hr", "-o", "%A %T %j").splitlines()
    return [words for line in lines if (words := line.split())[-1].startswith("found")]


def kill_in_job(what: str, jobs: list[list[str]], random: Random) -> bool:
    """Kill the batch shell of a job that runs, or its stage; whether there was one."""
    wanted = "found-decide" if what == "that of a decision" else "found-train"
    running = [job for job, state, name in jobs if state == "RUNNING" and name == wanted]
    random.shuffle(running)
    for job in running:
        for process in psutil.process_iter(["cmdline", "name"]):
            words = process.info["cmdline"] or []
            is_shell = any("slurm_script" in word for word in words)
            is_stage = process.info["name"].startswith("python") and {"cardamage", "train"} <= {
                *words
            }
            if not (is_stage if what == "the stage of a job" else is_shell):
                continue
            with suppress(psutil.Error):
                if process.environ().get("SLURM_JOB_ID") == job:
                    process.kill()
                    return True
    return False


def checkpoints(folder: Path) -> int:
    """The epochs that all trials together have trained."""
    return len([*folder.glob("runs/*/checkpoints/epoch-*.safetensors")])


def children(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def left_at_work(pids: list[int]) -> bool:
    """Whether one of the processes is there yet."""
    return any(Path(f"/proc/{pid}/cmdline").is_file() and _is_alive(pid) for pid in pids)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def decided(folder: Path) -> int:
    """The round that was decided last, from 1; 0 before the first."""
    path = folder / "runs" / "found" / "search.json"
    return len(json.loads(path.read_text())["rounds"]) if path.is_file() else 0


def outcome(runs: Path) -> dict[str, str]:
    """What has to be the same: decisions, metrics, test tables and checkpoints, as hashes."""
    patterns = ("*/checkpoints/*.safetensors", "*/metrics.csv", "*/test/*.csv")
    files = [path for pattern in patterns for path in sorted(runs.glob(pattern))]
    found = {str(p.relative_to(runs)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    record = json.loads((runs / "found" / "search.json").read_text())
    found["decisions"] = json.dumps([record["rounds"], record["values"]])
    summary = (runs / "found" / "report" / "summary.md").read_text()
    found["ranking"] = "\n".join(re.findall(r"^\| \d+ \| found-.*$", summary, re.MULTILINE))
    return found


if __name__ == "__main__":
    main()
