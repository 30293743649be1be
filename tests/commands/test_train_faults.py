"""What can go wrong while training runs, brought about for real: one clear line, nothing lost."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from cardamage.data.shards.order import batch_at
from cardamage.data.shards.reader import ShardReader
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.training.state import read_state
from tests.helpers.recorded_train import PROGRAM, samples_file

BATCH, IMAGES = 8, 22


def start(toy, *options, **popen):
    """Start training as a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(toy.script(PROGRAM)), "toy.yaml", *options],
        cwd=toy.folder,
        env=toy.environment,
        stderr=subprocess.PIPE,
        text=True,
        **popen,
    )


def packed(toy, *options):
    """The run of options whose first is its name, packed."""
    toy.succeeds("jobs/pack.py", "toy.yaml", *options)
    return RunPaths(toy.folder / "runs" / options[0].removeprefix("name="))


def await_first_step(run, has_ended):
    """Return while the first step is under way, or when training has ended before."""
    while not samples_file(run, 0).exists():
        if has_ended():
            return
        time.sleep(0.002)


def disturbed(toy, run, disturb, *options):
    """Train in this process, with ``disturb`` called in another thread from the first step on.

    It is told how to find out whether training has ended. Its signals reach nothing but training.
    """
    ended = threading.Event()

    def wait_and_disturb():
        await_first_step(run, ended.is_set)
        disturb(ended.is_set)

    numbers = (signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    thread = threading.Thread(target=wait_and_disturb)
    thread.start()
    try:
        return toy.inside(PROGRAM, "toy.yaml", *options)
    finally:
        ended.set()
        thread.join()
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def send(number):
    os.kill(os.getpid(), number)


def the_error(stderr):
    """The one line that says what went wrong."""
    assert "Traceback" not in stderr
    (line,) = [line for line in stderr.splitlines() if line.startswith("error: ")]
    return line


def files_of_step(run, step):
    """The original names of the images of a step, from 0."""
    with ShardReader(Path(read_stage(run, "pack").output["shards"]), "train") as reader:
        samples = batch_at(0, len(reader), BATCH, step)[0]
        return [reader.info(int(sample))["file_name"] for sample in samples]


def test_a_loss_that_explodes_names_its_images_and_leaves_the_state_before_it(toy):
    options = ("name=wild", "optim={name: sgd, lr: 1e30}", "train.save_steps=1")
    run = packed(toy, *options)
    result = toy.inside("jobs/train.py", "toy.yaml", *options)
    assert result.returncode == 1
    line = the_error(result.stderr)
    # The weights of the first update overflow in the second step, or make its loss overflow.
    assert "step 2" in line
    assert all(name in line for name in files_of_step(run, 1))
    assert "lower optim.lr, which is 1e+30" in line
    assert read_stage(run, "train").error_class == "final"
    assert not run.finished_checkpoints()
    states = run.states()
    assert states
    for path in states.values():
        weights = read_state(path)["weights"]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    assert line.endswith("start a new run")  # no epoch had ended


def test_a_stop_in_an_epoch_whose_loss_is_not_finite_saves_no_such_weights(toy):
    options = ("name=wild", "optim={name: sgd, lr: 1e30}", "train.epochs=900")
    run = packed(toy, *options)
    ended = disturbed(toy, run, lambda _: send(signal.SIGTERM), *options)
    assert "Traceback" not in ended.stderr
    assert ended.returncode in (1, 75)  # 75 where it was asked before such a loss was seen
    for path in run.states().values():
        weights = read_state(path)["weights"]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    if ended.returncode == 1:
        assert "not finite" in ended.stderr or "loss became" in ended.stderr


@pytest.mark.parametrize("why", ["SIGUSR1", "train.save_minutes=1e-5", "train.save_steps=1"])
def test_training_saves_within_an_epoch_and_goes_on(toy, why):
    options = ("name=asked", "train.epochs=4000", *([why] if "=" in why else []))
    run = packed(toy, *options)
    ends, found = {-(-IMAGES * epoch // BATCH) for epoch in range(4000)}, set()

    def ask(has_ended):
        while not found and not has_ended():
            if why == "SIGUSR1":
                send(signal.SIGUSR1)
            time.sleep(0.02)
            found.update(set(run.states()) - ends)
        send(signal.SIGTERM)

    assert disturbed(toy, run, ask, *options).returncode == 75
    assert found


def test_a_stop_while_validating_keeps_the_epoch_and_validation_is_what_comes_next(toy):
    options = (
        "train.epochs=2",
        f"train.batch_size={IMAGES}",
        "model.name=segnet3",
        "test.batch_size=1",
    )
    whole, run = packed(toy, "name=whole", *options), packed(toy, "name=late", *options)
    toy.succeeds("jobs/train.py", "toy.yaml", "name=whole", *options)
    # The signal comes in the one step of the first epoch.
    stopped = disturbed(toy, run, lambda _: send(signal.SIGTERM), "name=late", *options)
    assert stopped.returncode == 75
    assert "stopped: saved at step 1, in epoch 1" in stopped.stderr
    assert list(run.states()) == [1]
    assert not run.metrics.exists()
    toy.succeeds(PROGRAM, "toy.yaml", "name=late", *options)
    steps = [json.loads(line)["step"] for line in samples_file(run, 0).read_text().splitlines()]
    assert steps == [0, 1]
    assert run.metrics.read_bytes() == whole.metrics.read_bytes()
    for epoch in (1, 2):
        assert run.checkpoint(epoch).read_bytes() == whole.checkpoint(epoch).read_bytes()


def test_a_shard_that_is_damaged_while_training_runs_ends_it_in_one_line(toy):
    shards = f"data.shards_dir={toy.folder / 'shards of its own'}"
    options = ("name=rotten", "train.epochs=4000", shards)
    run = packed(toy, *options)
    (tar,) = Path(toy.folder / read_stage(run, "pack").output["shards"]).glob("train/*.tar")

    def rot(_):
        with tar.open("rb+") as stream:  # as a disk does it: in place, the size stays
            stream.seek(1024)
            stream.write(bytes(tar.stat().st_size - 2048))

    ended = disturbed(toy, run, rot, *options)
    assert ended.returncode == 2, ended.stderr
    line = the_error(ended.stderr)
    assert "000000.tar: sample" in line
    assert "other bytes in its" in line


def test_a_state_that_cannot_be_written_ends_training_and_the_one_before_stays(toy):
    options = ("name=full", "train.epochs=300", "train.save_steps=1")
    run = packed(toy, *options)
    with start(toy, *options) as process:
        while not run.states():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        # The kernel refuses to make any file of this process larger, as a full disk would.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        _, stderr = process.communicate(timeout=120)
    assert process.returncode in (1, 2), stderr
    line = the_error(stderr)
    assert "state-" in line
    assert "File too large" in line
    assert read_stage(run, "train").state == "failed"
    states = run.states()
    assert states
    for step, path in states.items():
        assert read_state(path)["step"] == step
    assert not list(run.resume.glob(".*.part"))
    epochs = max(states) * BATCH // IMAGES + 1
    toy.succeeds("jobs/train.py", "toy.yaml", *options, f"train.epochs={epochs}")
    assert list(run.finished_checkpoints()) == list(range(1, epochs + 1))


def test_running_out_of_memory_ends_in_one_line_that_says_what_to_lower(toy):
    options = ("name=large", "model.name=segnet1")
    run = packed(toy, *options)
    with start(toy, *options) as process:
        await_first_step(run, lambda: process.poll() is not None)
        status = Path(f"/proc/{process.pid}/status").read_text()
        used = 1024 * int(re.search(r"VmSize:\s+(\d+) kB", status)[1])
        limit = used + (64 << 20)  # gradients and Adam's state of 47 M parameters are to come
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2, stderr
    line = the_error(stderr)
    assert "error: out of memory (" in line
    assert "lower train.micro_batch_size, which is 8" in line
    assert "data.image_size, which is [32, 32]" in line
    assert read_stage(run, "train").error_class == "user"
