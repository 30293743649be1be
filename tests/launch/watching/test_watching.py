"""status, logs and cancel, on runs of fake stages."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from cardamage.launch.watching.record import read_launch, tagged
from cardamage.runs.paths import StudyPaths
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.runs.study import StudyRecord, open_study
from cardamage.runs.tables import write_table
from tests.helpers.fake_runs import FakeRun, until
from tests.helpers.markers import write_stage

pytestmark = pytest.mark.slow  # each starts real stages


def status(program, fake: FakeRun) -> dict:
    (of_run,) = json.loads(
        program.succeeds("launch/status.py", "fake", "--json", "--runs-dir", fake.run.root.parent)
    )
    return of_run


def in_runs(fake: FakeRun) -> tuple[str, str]:
    return "--runs-dir", str(fake.run.root.parent)


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return line.split()


def test_status_of_an_empty_folder(program):
    said = program.succeeds("launch/status.py")
    assert said.startswith("there are no runs in ")
    assert "--runs-dir" in said
    assert json.loads(program.succeeds("launch/status.py", "--json")) == []


def test_status_of_a_running_run(program, fake):
    fake.start(pack="works", train="waits", test="works")
    fake.await_log("train", "at work")
    of_run = status(program, fake)
    states = {stage: of_stage["state"] for stage, of_stage in of_run["stages"].items()}
    assert states == {"pack": "done", "train": "running", "test": "waiting", "report": "waiting"}
    assert of_run["launcher"] == "here"
    assert of_run["stages"]["train"]["pid"] == read_stage(fake.run, "train").pid
    cells = row(program.succeeds("launch/status.py", *in_runs(fake)), "fake")
    assert cells[1:6] == ["done", "running", "waiting", "waiting", "0/2"]
    assert str(of_run["stages"]["train"]["pid"]) in cells


def test_status_shows_speed_and_time_left_of_the_present_attempt(program, fake):
    fake.launch(train="works")
    assert status(program, fake)["speed"] is None  # nothing runs any more
    record = read_stage(fake.run, "train")
    write_stage(fake.run, replace(record, state="running", host="elsewhere"))
    of_run = status(program, fake)
    assert of_run["speed"] == {"per_second": 4.0, "unit": "images"}
    assert 0 < of_run["seconds_left"] <= 30
    write_stage(fake.run, replace(record, state="running", host="elsewhere", started="2999-01-01"))
    assert status(program, fake)["speed"] is None


def test_status_shows_the_best_epoch_by_the_configs_score(program, fake):
    fake.make()
    rows = [{"epoch": 1, "val_miou": 0.25}, {"epoch": 2, "val_miou": 0.5}]
    write_table(fake.run.metrics, rows)
    fake.run.checkpoints.mkdir()
    fake.run.checkpoint(2).touch()
    of_run = status(program, fake)
    assert of_run["best"] == {"epoch": 2, "score": "miou", "value": 0.5}
    assert (of_run["epoch"], of_run["epochs"]) == (2, 2)
    out = program.succeeds("launch/status.py", fake.run.root)
    assert "miou 0.500 (epoch 2)" in out


def test_status_names_the_failed_stage_its_error_and_its_log(program, fake):
    fake.launch(pack="works", train="fails", test="works")
    out = program.succeeds("launch/status.py", *in_runs(fake))
    assert row(out, "fake")[1:5] == ["done", "failed", "waiting", "waiting"]
    root = fake.run.root
    assert f"{root}: train failed: the disk is full; log: {root}/logs/train.log" in out


def test_status_calls_a_stage_lost_whose_process_is_gone(program, fake):
    fake.start(train="waits")
    fake.await_log("train", "at work")
    fake.signal(signal.SIGKILL)
    fake.end()
    assert status(program, fake)["launcher"] is None
    assert status(program, fake)["stages"]["train"]["state"] == "running"
    for pid in tagged(read_launch(fake.run).tag):
        os.kill(pid, signal.SIGKILL)
    until(lambda: status(program, fake)["stages"]["train"]["state"] == "lost")
    assert "train is lost: its process" in program.succeeds("launch/status.py", *in_runs(fake))


def test_one_damaged_run_does_not_hide_the_others(program, fake):
    fake.launch(pack="works")
    other = fake.run.root.parent / "other"
    other.mkdir()
    (other / "config.yaml").write_text("name: [")
    (fake.run.root / "stages" / "train.json").write_text("{")
    out = program.succeeds("launch/status.py", *in_runs(fake))
    assert row(out, "fake")[1:3] == ["done", "failed"]
    assert "train.json is damaged; delete it and start the stage again" in out
    assert f"{other}/config.yaml" in out


@pytest.mark.parametrize("command", ["status", "logs", "cancel"])
def test_unknown_run_names_the_nearest(program, fake, command: str):
    fake.make()
    error = program.refuses(f"launch/{command}.py", "fkae", *in_runs(fake))
    assert error.startswith('error: there is no run "fkae"')
    assert 'did you mean "fake"?' in error


def test_logs_prints_the_last_stage_that_ran_or_the_one_named(program, fake):
    fake.launch(pack="works", train="fails")
    shown = program.succeeds("launch/logs.py", fake.run.root)
    assert shown == fake.run.log("train").read_text()
    assert "pack at work" in program.succeeds("launch/logs.py", "fake", "pack", *in_runs(fake))


def test_logs_of_what_never_ran(program, fake):
    fake.make()
    error = program.refuses("launch/logs.py", fake.run.root)
    assert "no stage was started yet" in error
    fake.launch(pack="works")
    assert "stage test has no log" in program.refuses("launch/logs.py", fake.run.root, "test")
    assert "there are: pack, train" in program.refuses("launch/logs.py", fake.run.root, "tset")


def test_logs_follows_a_stage_to_its_end(program, fake):
    fake.start(pack="works", train="waits")
    until(fake.run.launch.is_file)
    following = subprocess.Popen(
        [sys.executable, program.script("launch/logs.py"), fake.run.root, "-f", "train"],
        stdout=subprocess.PIPE,
        text=True,
    )
    fake.await_log("train", "at work")
    assert following.poll() is None
    fake.signal(signal.SIGTERM)
    fake.end()
    assert following.communicate(timeout=120)[0] == fake.run.log("train").read_text()
    assert following.returncode == 0


def test_cancel_lets_the_stage_save_and_cancels_what_waits(program, fake):
    fake.start(pack="works", train="waits through a launcher", test="works")
    fake.await_log("train", "at work")
    out = program.succeeds("launch/cancel.py", "fake", *in_runs(fake))
    assert out == f"{fake.run.root}: pack done, train stopped, test cancelled\n"
    assert fake.end()[0] == 75
    assert fake.states() == {"pack": "done", "train": "stopped", "test": "cancelled"}
    assert not fake.run.cancel_request.exists()


def test_cancel_that_is_not_heeded_says_so_and_kill_ends_it(program, fake):
    fake.start(train="is stubborn")
    fake.await_log("train", "child started")
    result = program("launch/cancel.py", fake.run.root, "--timeout", 1)
    assert result.returncode == 1
    assert f"cardamage cancel --kill {fake.run.root}" in result.stderr
    program.succeeds("launch/cancel.py", fake.run.root, "--kill")
    assert fake.end()[0] == 75
    assert tagged(read_launch(fake.run).tag) == []


@pytest.mark.parametrize(
    ("behaviour", "printed", "options", "after"),
    [
        ("waits", "at work", (), "saved after step 7; start again to go on"),
        ("waits", "at work", ("--kill",), "ended at once"),
    ],
)
def test_cancel_of_a_stage_that_outlived_its_launcher(
    program, fake, behaviour: str, printed: str, options: tuple[str, ...], after: str
):
    fake.start(train=f"{behaviour} through a launcher", test="works")
    fake.await_log("train", printed)
    fake.signal(signal.SIGKILL)
    fake.end()
    out = program.succeeds("launch/cancel.py", fake.run.root, *options)
    assert out == f"{fake.run.root}: train stopped, test cancelled\n"
    assert read_stage(fake.run, "train").error == after
    assert tagged(read_launch(fake.run).tag) == []


def test_cancel_of_a_run_that_waits_for_another_leaves_the_other_alone(program, fake):
    fake.start(configs=("fake", "second"), train="waits")
    fake.await_log("train", "at work")
    out = program.succeeds("launch/cancel.py", "second", *in_runs(fake))
    assert out.endswith("second: train cancelled\n")
    assert fake.states() == {"train": "running"}
    program.succeeds("launch/cancel.py", "fake", *in_runs(fake))
    status, out, _ = fake.end()
    assert (status, len(out.splitlines())) == (75, 2)


def test_cancel_when_nothing_runs(program, fake):
    fake.launch(pack="works")
    out = program.succeeds("launch/cancel.py", fake.run.root)
    assert out == f"{fake.run.root}: nothing of it runs or waits\n"


def test_cancel_on_another_machine(program, fake):
    fake.launch(pack="works")
    record = read_stage(fake.run, "pack")
    write_stage(fake.run, replace(record, state="running", host="elsewhere"))
    assert "runs on elsewhere, and this is" in program.refuses("launch/cancel.py", fake.run.root)


def test_a_study_stands_for_its_runs(program, fake):
    runs_dir = fake.run.root.parent
    study = StudyPaths(runs_dir / "both")
    open_study(study, StudyRecord("both", "study.yaml", ("fake", "second", "never made")))
    fake.start(configs=("fake", "second"), pack="works", train="waits")
    fake.await_log("train", "at work")
    shown = json.loads(program.succeeds("launch/status.py", "both", "--json", *in_runs(fake)))
    assert [run["run"] for run in shown] == ["fake", "second"]
    said = program.succeeds("launch/cancel.py", "both", "fake", *in_runs(fake)).splitlines()
    assert said == [
        f"{runs_dir / 'fake'}: pack done, train stopped",
        f"{runs_dir / 'second'}: pack cancelled, train cancelled",  # it did not begin meanwhile
        f"{study.root}: nothing of it runs or waits",
    ]
    assert fake.end()[0] == 75


def test_the_log_of_a_study_is_that_of_its_comparison(program, fake):
    study = StudyPaths(fake.run.root.parent / "both")
    open_study(study, StudyRecord("both", "study.yaml", ("fake", "second")))
    write_stage(study, StageRecord("report", "done", started="2026-01-01T00:00:00+00:00"))
    study.log("report").write_text("compared\n")
    assert program.succeeds("launch/logs.py", "both", *in_runs(fake)) == "compared\n"
