import csv
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cardamage.data.shards.order import batch_at
from cardamage.evaluation.metrics import scores
from cardamage.evaluation.results import read_result
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.system.console import read_events
from cardamage.training.stopping import Request, StopRequests
from tests.helpers.markers import write_stage
from tests.helpers.recorded_train import PROGRAM, samples_file

EPOCHS = 3


def run_of(program, name="toy"):
    return RunPaths(program.folder / "runs" / name)


def rows(run):
    with run.metrics.open() as stream:
        return list(csv.DictReader(stream))


def consumed(run, processes):
    """Keys by step, process after process, as the training loop wrote them down."""
    steps = {}
    for process in range(processes):
        for line in samples_file(run, process).read_text().splitlines():
            record = json.loads(line)
            steps.setdefault(record["step"], []).extend(record["keys"])
    return steps


def samples(run):
    shards = Path(read_stage(run, "pack").output["shards"])
    return json.loads((shards / "manifest.json").read_text())["splits"]["train"]["samples"]


def same_training(a, b):
    """Whether two runs have the same metrics and weights of every epoch, to the last bit."""
    assert a.metrics.read_text() == b.metrics.read_text()
    kept = [
        {p.name: p.read_bytes() for p in r.validation_counts(1).parent.iterdir()} for r in (a, b)
    ]
    assert kept[0] == kept[1]
    assert a.finished_checkpoints().keys() == b.finished_checkpoints().keys()
    for epoch, path in a.finished_checkpoints().items():
        left, right = load_file(path), load_file(b.checkpoint(epoch))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[name], right[name]) for name in left)
    return True


@pytest.fixture
def trained(toy):
    """The toy experiment trained in one go."""
    toy.succeeds("jobs/train.py", "toy.yaml", f"train.epochs={EPOCHS}")
    return toy


def test_training_leaves_a_row_and_a_checkpoint_an_epoch(trained):
    run = run_of(trained)
    table = rows(run)
    assert [int(row["epoch"]) for row in table] == [1, 2, 3]
    assert list(run.finished_checkpoints()) == [1, 2, 3]
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    assert list(table[0])[:9] == [
        "epoch",
        "train_loss",
        "val_loss",
        "train_dice",
        "val_dice",
        "train_iou",
        "val_iou",
        "train_accuracy",
        "val_accuracy",
    ]
    kept = read_result(run.validation_counts(3))
    found = scores(kept.counts, kept.loss, kept.class_names)
    assert [repr(found[name]) for name in ("loss", "dice")] == [
        table[-1][f"val_{name}"] for name in ("loss", "dice")
    ]
    marker = read_stage(run, "train")
    found = marker.state, marker.exit_status, marker.output
    assert found == ("done", 0, {"epochs": 3, "precision": "no"})
    epochs = [event for event in read_events(run.events) if event["event"] == "epoch"]
    assert [event["epoch"] for event in epochs] == [1, 2, 3]
    assert all(0 <= event["data_wait_share"] < 1 for event in epochs)
    # torch alone takes 100 MB, and no machine of ours has a TB
    assert all(10**8 < event["peak_memory_bytes"] < 10**12 for event in epochs)


def test_the_same_command_again_changes_nothing(trained):
    run = run_of(trained)
    files = [run.metrics, *run.finished_checkpoints().values()]
    before = [(path.stat().st_mtime_ns, path.read_bytes()) for path in files[1:]]
    table = run.metrics.read_text()
    trained.succeeds("jobs/train.py", "toy.yaml", f"train.epochs={EPOCHS}")
    assert [(path.stat().st_mtime_ns, path.read_bytes()) for path in files[1:]] == before
    assert run.metrics.read_text() == table


def test_a_run_trained_further_equals_one_trained_in_one_go(trained):
    trained.succeeds("jobs/pack.py", "toy.yaml", "name=pieces")
    for epochs in (1, 2, EPOCHS):
        trained.succeeds("jobs/train.py", "toy.yaml", "name=pieces", f"train.epochs={epochs}")
    assert same_training(run_of(trained), run_of(trained, "pieces"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_run_stopped_within_an_epoch_goes_on_as_if_it_had_not_been(trained, how):
    name = "stopped"
    trained.succeeds("jobs/pack.py", "toy.yaml", f"name={name}")
    script = str(trained.script(PROGRAM))
    command = [sys.executable, script, "toy.yaml", f"name={name}", f"train.epochs={EPOCHS}"]
    run = run_of(trained, name)
    with subprocess.Popen(
        command, cwd=trained.folder, env=trained.environment, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not samples_file(run, 0).exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(how)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 75, errors
    assert "Traceback" not in errors
    assert read_stage(run, "train").state == "stopped"
    saved = json.loads(run.progress.read_text())
    assert saved["step"] > 0
    assert saved["epoch"] == len(run.finished_checkpoints())
    trained.succeeds("jobs/train.py", "toy.yaml", f"name={name}", f"train.epochs={EPOCHS}")
    assert same_training(run_of(trained), run)


def test_a_run_stopped_before_its_first_step_has_no_checkpoint_of_epoch_0(trained, monkeypatch):
    trained.succeeds("jobs/pack.py", "toy.yaml", "name=early")
    run = run_of(trained, "early")
    with monkeypatch.context() as patch:
        patch.setattr(StopRequests, "agreed", lambda self, save_due: Request.STOP)
        stopped = trained.inside("jobs/train.py", "toy.yaml", "name=early")
    assert stopped.returncode == 75, stopped.stderr
    assert "saved at step 0" in stopped.stderr
    trained.succeeds("jobs/train.py", "toy.yaml", "name=early", f"train.epochs={EPOCHS}")
    assert same_training(run_of(trained), run)


def test_a_run_does_not_go_on_with_another_dataset(trained):
    trained.succeeds("jobs/pack.py", "toy.yaml", "name=half", "data.subset=0.5")
    run, half = run_of(trained), run_of(trained, "half")
    table = run.metrics.read_text()
    write_stage(run, replace(read_stage(half, "pack"), attempts=2))
    line = trained.refuses("jobs/train.py", "toy.yaml", "train.epochs=4")
    assert "state-00000009.pt was trained with another dataset" in line
    assert run.metrics.read_text() == table


@pytest.mark.distributed
def test_two_processes_consume_the_global_batches_of_one_and_test_to_the_same_counts(toy):
    toy.succeeds(PROGRAM, "toy.yaml")
    two = ("toy.yaml", "name=two", "train.micro_batch_size=3")
    toy.succeeds("jobs/pack.py", *two)
    toy.distributed(2, PROGRAM, *two)
    alone, together = consumed(run_of(toy), 1), consumed(run_of(toy, "two"), 2)
    assert alone == together
    n = samples(run_of(toy))
    assert len(alone) == math.ceil(2 * n / 8)
    for step, keys in alone.items():
        assert keys == [f"{number:08d}" for number in batch_at(0, n, 8, step)[0]]

    options = (*two, "test.split=valid", "test.batch_size=2")
    run = run_of(toy, "two")
    toy.succeeds("jobs/test.py", *options)
    counted = {epoch: read_result(run.test_counts("valid", epoch)) for epoch in (1, 2)}
    table = run.test_table("valid").read_text()
    # The second process is on a machine whose view of the disk is older, and lacks another result.
    shutil.copytree(toy.folder, toy.folder.with_name("older view"))
    run.test_counts("valid", 1).unlink()
    older = RunPaths(toy.folder.with_name("older view") / "runs" / "two")
    older.test_counts("valid", 2).unlink()
    seen_late = toy.folder / "seen_late.py"
    seen_late.write_text(
        "import os, runpy\n"
        "if os.environ['RANK'] == '1':\n"
        "    os.chdir('../older view')\n"
        f"runpy.run_path({str(toy.script('jobs/test.py'))!r}, run_name='__main__')\n"
    )
    toy.distributed(2, seen_late, *options)
    for epoch, expected in counted.items():
        found = read_result(run.test_counts("valid", epoch))
        assert np.array_equal(found.counts, expected.counts)
        assert found.maps == expected.maps
        assert len(found.damages.disagreements)
        assert np.array_equal(found.damages.disagreements, expected.damages.disagreements)
        assert np.array_equal(found.damages.counts, expected.damages.counts)
        assert np.array_equal(found.damages.reliability, expected.damages.reliability)
        assert found.keys.tolist() == expected.keys.tolist()
    assert run.test_table("valid").read_text() == table
    # Validation while training, on two processes, is the same evaluation of the same weights.
    with run.test_table("valid").open() as stream:
        tested = list(csv.DictReader(stream))
    for row, test_row in zip(rows(run), tested, strict=True):
        for score in ("dice", "iou", "accuracy", "mdice"):
            assert float(row[f"val_{score}"]) == pytest.approx(float(test_row[score]), abs=2e-3)


def test_only_checkpoints_without_a_result_are_tested_again(trained):
    run = run_of(trained)
    trained.succeeds("jobs/test.py", "toy.yaml", f"train.epochs={EPOCHS}")
    table = run.test_table("test").read_text()
    before = {epoch: run.test_counts("test", epoch).stat().st_mtime_ns for epoch in (1, 2, 3)}
    run.test_counts("test", 2).unlink()
    run.test_counts("test", 3).write_bytes(b"cut short")
    trained.succeeds("jobs/test.py", "toy.yaml", f"train.epochs={EPOCHS}")
    after = {epoch: run.test_counts("test", epoch).stat().st_mtime_ns for epoch in (1, 2, 3)}
    assert after[1] == before[1]
    assert after[2] > before[2]
    assert after[3] > before[3]
    assert run.test_table("test").read_text() == table
    assert [row["epoch"] for row in csv.DictReader(table.splitlines())] == ["1", "2", "3"]


def test_parts_of_the_checkpoints_are_tested_apart_and_then_collected(trained):
    run = run_of(trained)
    more = ("toy.yaml", f"train.epochs={EPOCHS}")
    trained.succeeds("jobs/test.py", *more, "--part", "1/2")
    assert [epoch for epoch in (1, 2, 3) if run.test_counts("test", epoch).exists()] == [2]
    output = read_stage(run, "test.1").output
    assert output.items() >= {"split": "test", "checkpoints": 1}.items()
    assert read_stage(run, "test").state == "waiting"
    trained.succeeds("jobs/test.py", *more, "--part", "0/2")
    assert not run.test_table("test").exists()
    before = [run.test_counts("test", epoch).stat().st_mtime_ns for epoch in (1, 2, 3)]
    trained.succeeds("jobs/test.py", *more)
    assert [run.test_counts("test", epoch).stat().st_mtime_ns for epoch in (1, 2, 3)] == before
    with run.test_table("test").open() as stream:
        assert [row["epoch"] for row in csv.DictReader(stream)] == ["1", "2", "3"]


@pytest.mark.parametrize("part", ["2/2", "-1/2", "1", "a/b", "0/0"])
def test_a_part_that_is_none_is_refused(toy, part):
    line = toy.refuses("jobs/test.py", "toy.yaml", f"--part={part}")
    assert line == f'error: --part "{part}": give I/K with I from 0 to K-1, as in 0/4'


def test_bfloat16_trains_on_a_cpu(toy):
    toy.succeeds("jobs/pack.py", "toy.yaml", "name=half", "train.mixed_precision=bf16")
    options = ("name=half", "train.mixed_precision=bf16", "train.epochs=1")
    toy.succeeds("jobs/train.py", "toy.yaml", *options)
    weights = load_file(run_of(toy, "half").checkpoint(1))
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["train.epochs=0"], r"train.epochs"),
        (["train.batch_size=400"], "400"),
        (["train.mixed_precision=fp16"], "needs a GPU"),
        (["name=other"], "stage pack is waiting"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(toy, overrides, expected):
    if "waiting" not in expected:
        overrides = [*overrides, "name=fresh"]
        if "fp16" in overrides[0]:
            toy.succeeds("jobs/pack.py", "toy.yaml", *overrides)
    line = toy.refuses("jobs/train.py", "toy.yaml", *overrides)
    if "400" not in expected:
        assert expected in line
    assert not run_of(toy, "fresh").metrics.exists()


def test_a_truncated_shard_is_refused_and_nothing_is_written(toy):
    run = run_of(toy)
    packed = Path(read_stage(run, "pack").output["shards"])
    shard = packed / "train" / "000000.tar"
    whole = shard.read_bytes()
    try:
        shard.write_bytes(whole[:-1024])
        line = toy.refuses("jobs/train.py", "toy.yaml")
    finally:
        shard.write_bytes(whole)
    assert "000000.tar" in line
    assert read_stage(run, "train").error_class == "user"
    assert not run.metrics.exists()
    assert not run.finished_checkpoints()


def test_a_checkpoint_of_another_run_is_refused_by_the_test_stage(trained):
    trained.succeeds("jobs/pack.py", "toy.yaml", "name=wide", "model.name=segnet3")
    options = ("name=wide", "model.name=segnet3", "train.epochs=1")
    trained.succeeds("jobs/train.py", "toy.yaml", *options)
    run, wide = run_of(trained), run_of(trained, "wide")
    run.checkpoint(2).write_bytes(wide.checkpoint(1).read_bytes())
    line = trained.refuses("jobs/test.py", "toy.yaml", f"train.epochs={EPOCHS}")
    assert "epoch-0002.safetensors" in line
    assert "segnet3" in line


def test_a_loss_that_explodes_ends_training_and_poisons_no_checkpoint(toy):
    options = ("name=wild", "optim.lr=1e30")
    toy.succeeds("jobs/pack.py", "toy.yaml", *options)
    result = toy.inside("jobs/train.py", "toy.yaml", *options)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "lower optim.lr" in result.stderr
    assert not run_of(toy, "wild").finished_checkpoints()
    assert read_stage(run_of(toy, "wild"), "train").state == "failed"


def test_the_same_config_twice_gives_the_same_bytes(toy):
    names, files = ("one", "two"), []
    for name in names:
        options = (f"name={name}", "train.deterministic=true")
        toy.succeeds("jobs/pack.py", "toy.yaml", *options)
        toy.succeeds("jobs/train.py", "toy.yaml", *options)
        run = run_of(toy, name)
        paths = [run.metrics, *run.finished_checkpoints().values(), *run.states().values()]
        files.append({path.name: path.read_bytes() for path in paths})
    assert len(files[0]) == 5
    assert files[0] == files[1]


def test_training_goes_on_from_the_older_state_where_the_newest_is_damaged(trained):
    run = run_of(trained)
    expected = {epoch: path.read_bytes() for epoch, path in run.finished_checkpoints().items()}
    table = run.metrics.read_bytes()
    assert list(run.states()) == [6, 9]
    newest = run.state(9)
    newest.write_bytes(newest.read_bytes()[:-500])
    run.checkpoint(3).unlink()
    result = trained.inside("jobs/train.py", "toy.yaml", f"train.epochs={EPOCHS}")
    assert result.returncode == 0, result.stderr
    assert {epoch: p.read_bytes() for epoch, p in run.finished_checkpoints().items()} == expected
    assert run.metrics.read_bytes() == table
    assert list(run.states()) == [6, 9]


def test_a_trained_run_keeps_its_config(trained):
    line = trained.refuses("jobs/train.py", "toy.yaml", "optim.lr=0.5")
    assert "another config (optim.lr: 0.003, not 0.5)" in line


def test_damaged_states_are_refused_and_the_run_is_left_as_it_was(trained):
    run = run_of(trained)
    for path in run.states().values():
        path.write_bytes(path.read_bytes()[:-500])
    table = run.metrics.read_text()
    line = trained.refuses("jobs/train.py", "toy.yaml", "train.epochs=4")
    assert "state-00000009.pt is damaged" in line
    for path in run.states().values():
        path.unlink()
    line = trained.refuses("jobs/train.py", "toy.yaml", "train.epochs=4")
    assert "are gone" in line
    assert run.metrics.read_text() == table
