"""Training killed for real, and gone on with: the outcome is that of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cardamage.data.shards.order import batch_at
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.recorded_train import PROGRAM

EPOCHS, BATCH, IMAGES = 4, 7, 22
OPTIONS = (
    f"train.epochs={EPOCHS}",
    f"train.batch_size={BATCH}",
    "augment=[{name: random_resized_crop, on_damage: 1}, {name: colour}, {name: noise}]",
)


@pytest.fixture
def undisturbed(toy):
    """A run of the toy experiment that nobody disturbed."""
    toy.succeeds("jobs/pack.py", "toy.yaml", "name=undisturbed", *OPTIONS)
    toy.succeeds(PROGRAM, "toy.yaml", "name=undisturbed", *OPTIONS)
    return RunPaths(toy.folder / "runs" / "undisturbed")


def outcome(run):
    """The bytes of everything that training leaves for other stages."""
    files = [run.metrics, *run.finished_checkpoints().values()]
    return {path.name: path.read_bytes() for path in files}


def newest(run):
    return max(run.states(), default=0)


def kill_after(toy, run, step, *options, processes=1):
    """Start training in ``processes`` and kill all of them once the state of ``step`` is there."""
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    script = [str(toy.script(PROGRAM)), "toy.yaml", f"name={run.root.name}", *options]
    command = [sys.executable, *(launcher if processes > 1 else []), *script, "train.save_steps=1"]
    with subprocess.Popen(
        command,
        cwd=toy.folder,
        env={**toy.environment, "ACCELERATE_USE_CPU": "true"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 120
        while newest(run) < step:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.002)
        kill_group(process.pid)
    assert read_stage(run, "train").state == "running"


def kill_group(leader):
    """SIGKILL to a process and its children, which torchrun starts in sessions of their own."""
    children = Path(f"/proc/{leader}/task/{leader}/children").read_text().split()
    for pid in (leader, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    while any(Path(f"/proc/{child}").exists() for child in children):  # it takes them a moment
        time.sleep(0.01)


def test_a_run_killed_twice_within_an_epoch_ends_with_the_same_bytes(toy, undisturbed):
    run = RunPaths(toy.folder / "runs" / "killed")
    toy.succeeds("jobs/pack.py", "toy.yaml", "name=killed", *OPTIONS)
    kill_after(toy, run, 2, *OPTIONS)
    kill_after(toy, run, newest(run) + 2, *OPTIONS)
    step, finished = newest(run), run.finished_checkpoints()
    assert 0 < step < -(-IMAGES * EPOCHS // BATCH)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in finished.values()}
    assert len(run.states()) in (2, 3)  # three where it was killed before it removed the oldest
    toy.succeeds("jobs/train.py", "toy.yaml", "name=killed", *OPTIONS)
    assert outcome(run) == outcome(undisturbed)
    for path, written in before.items():  # what was finished is not written again
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == written
    assert list(run.resume.glob(".*")) == []
    assert len(run.states()) == 2


@pytest.mark.distributed
def test_processes_whose_launcher_is_killed_work_to_the_end_and_keep_others_out(toy):
    epochs = 15  # enough to be at work still when another start comes
    options = ("name=orphaned", f"train.epochs={epochs}", "train.save_steps=1")
    run = RunPaths(toy.folder / "runs" / "orphaned")
    toy.succeeds("jobs/pack.py", "toy.yaml", *options)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    with subprocess.Popen(
        [sys.executable, *launcher, str(toy.script("jobs/train.py")), "toy.yaml", *options],
        cwd=toy.folder,
        env={**toy.environment, "ACCELERATE_USE_CPU": "true"},
        stderr=subprocess.DEVNULL,
    ) as process:
        while newest(run) < 1:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
    record = read_stage(run, "train")
    refused = toy.refuses("jobs/train.py", "toy.yaml", *options)
    assert f"process {record.pid} on {record.host}" in refused
    while read_stage(run, "train").state == "running":
        assert Path(f"/proc/{record.pid}").exists()
        time.sleep(0.02)
    assert read_stage(run, "train").state == "done"
    assert list(run.finished_checkpoints()) == list(range(1, epochs + 1))
    assert len(run.metrics.read_text().splitlines()) == 1 + epochs


def consumed(run):
    """Keys by place in each global batch, from what every process wrote down of itself.

    A step done again after a kill, perhaps by other processes, has to have had the same samples.
    """
    steps = {}
    for path in run.logs.glob("samples-rank*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            batch = steps.setdefault(record["step"], {})
            for place, key in enumerate(record["keys"], start=record["first"]):
                assert batch.setdefault(place, key) == key
    return {step: [batch[place] for place in range(BATCH)] for step, batch in steps.items()}


@pytest.mark.distributed
def test_global_batches_stay_the_same_on_one_two_three_and_one_process(toy, undisturbed):
    run = RunPaths(toy.folder / "runs" / "elastic")
    toy.succeeds("jobs/pack.py", "toy.yaml", "name=elastic", *OPTIONS)
    kill_after(toy, run, 2, *OPTIONS)
    kill_after(toy, run, newest(run) + 2, *OPTIONS, processes=2)
    kill_after(toy, run, newest(run) + 2, *OPTIONS, processes=3)
    toy.succeeds(PROGRAM, "toy.yaml", "name=elastic", *OPTIONS)
    ranks = sorted(path.name for path in run.logs.glob("samples-rank*.jsonl"))
    assert ranks == [f"samples-rank{rank}.jsonl" for rank in range(3)]
    found = consumed(run)
    assert found == consumed(undisturbed)
    assert sorted(found) == list(range(-(-IMAGES * EPOCHS // BATCH)))
    for step, keys in found.items():
        assert keys == [f"{number:08d}" for number in batch_at(0, IMAGES, BATCH, step)[0]]
    assert list(run.finished_checkpoints()) == list(range(1, EPOCHS + 1))


def test_a_run_stopped_at_rungs_ends_with_the_same_bytes(toy):
    options = (*OPTIONS, "schedule={name: cosine, warmup_epochs: 1}")
    runs = [RunPaths(toy.folder / "runs" / name) for name in ("straight", "stopped")]
    for run in runs:
        toy.succeeds("jobs/pack.py", "toy.yaml", f"name={run.root.name}", *options)
    straight, stopped = runs
    toy.succeeds("jobs/train.py", "toy.yaml", "name=straight", *options)
    for rung in (1, 3, EPOCHS):
        stopped.rung.write_text(json.dumps({"epoch": rung}))
        for _ in range(2):  # the second time there is nothing to do
            toy.succeeds("jobs/train.py", "toy.yaml", "name=stopped", *options)
        marker = read_stage(stopped, "train")
        assert (marker.state, marker.output["epochs"]) == ("done", rung)
        assert [*stopped.finished_checkpoints()] == [*range(1, rung + 1)]
        assert bool(stopped.states()) == (rung < EPOCHS)
    assert outcome(stopped) == outcome(straight)
    assert marker.attempts == 3
