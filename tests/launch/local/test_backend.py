"""The local backend on fake stages: order, outcomes, stopping, and nothing left behind."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
from dataclasses import asdict, replace
from functools import partial

import pytest

from cardamage.launch.watching.record import new_launch, read_launch, tagged
from cardamage.runs.stages import read_stage
from cardamage.system.files import write_json
from tests.helpers.fake_runs import until

pytestmark = pytest.mark.slow  # each starts real stages

DIED = "its process ended before its work was done, with exit status 1"
ALL_WORK = {"pack": "works", "train": "works", "test": "works", "report": "works"}


def left_behind(fake) -> list[int]:
    launch = read_launch(fake.run)
    assert launch is not None
    return tagged(launch.tag)


def test_stages_run_in_order_and_are_logged(fake):
    status, out, err = fake.launch(**ALL_WORK)
    assert (status, out) == (0, "0 \n"), err
    assert list(fake.states().values()) == ["done"] * 4
    begun = [line for line in err.splitlines() if line.endswith("starts")]
    assert begun == [f"fake {stage}: starts" for stage in ALL_WORK]
    header, *output = fake.run.log("train").read_text().splitlines()
    assert "attempt 1: " in header
    assert "'" + str(fake.folder) not in header  # the command is relative, as it was given
    assert output == ["train at work", "train at its end"]
    assert left_behind(fake) == []


def test_epochs_are_shown_as_lines_where_there_is_no_terminal(fake):
    _, _, err = fake.launch(**ALL_WORK)
    assert "fake train: epoch 1/2, val_miou 0.500" in err.splitlines()


def read_terminal(reader: int) -> str:
    """What one read gives, 4,096 bytes at most; nothing at the end."""
    try:
        return os.read(reader, 4096).decode(errors="replace")
    except OSError:
        return ""


def test_on_a_terminal_there_is_a_bar(fake):
    reader, terminal = pty.openpty()
    fake.start(terminal=terminal, train="works")
    status, *_ = fake.end()
    os.close(terminal)
    shown = "".join(iter(partial(read_terminal, reader), ""))
    assert status == 0
    assert "━" in shown
    assert "fake train: epoch 1/2" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_launch_is_on_record(fake):
    fake.launch(pack="works")
    launch = read_launch(fake.run)
    assert launch is not None
    assert (launch.backend, launch.host) == ("local", socket.gethostname())
    assert launch.stages["pack"][-2:] == ["pack", "works"]
    assert launch.ended is not None


FAULTS = ("breaks", "crashes early", "dies", "dies through a launcher")


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        ("refuses", 2, "the class is unknown; name another"),
        ("fails", 1, "the disk is full"),
        ("breaks", 1, "RuntimeError: a defect"),
        ("refuses early", 2, "batch_size is 0; give 1 or more"),
        ("refuses through a launcher", 2, "the class is unknown; name another"),
        ("refuses early through a launcher", 2, "batch_size is 0; give 1 or more"),
        (
            "crashes early",
            1,
            f"{DIED}; the last it said: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("dies", 1, "its process was ended by SIGKILL; the last it said: train at work"),
        ("dies through a launcher", 1, f"{DIED}; the last it said: train at work"),
    ],
)
def test_failed_stage_ends_the_run(fake, behaviour: str, status: int, error: str):
    found, out, _ = fake.launch(pack="works", train=behaviour, test="works", report="works")
    assert found == status
    assert out == f"{status} {error}\n"
    assert fake.states() == {
        "pack": "done",
        "train": "failed",
        "test": "waiting",
        "report": "waiting",
    }
    record = read_stage(fake.run, "train")
    assert (record.attempts, record.exit_status) == (1, status)
    said_on_purpose = "user" if status == 2 else "final"
    assert record.error_class == ("fault" if behaviour in FAULTS else said_on_purpose)
    assert not fake.run.log("test").exists()


def test_launching_again_tries_again_and_appends_to_the_log(fake):
    fake.launch(pack="works", train="fails")
    status, _, err = fake.launch(pack="works", train="works")
    assert status == 0, err
    assert read_stage(fake.run, "train").attempts == 2
    log = fake.run.log("train").read_text()
    assert [f"attempt {n}: " in log for n in (1, 2, 3)] == [True, True, False]


def test_children_that_a_stage_leaves_are_ended(fake):
    fake.start(pack="leaves a child")
    fake.await_log("pack", "at its end")
    assert fake.end()[0] == 0
    assert left_behind(fake) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_lets_the_stage_save(fake, number: signal.Signals):
    fake.start(pack="works", train="waits through a launcher", test="works")
    fake.await_log("train", "at work")
    fake.signal(number)
    status, out, err = fake.end()
    assert (status, out) == (75, "75 saved after step 7; start again to go on\n"), err
    assert "stopping after the current step" in err
    assert fake.states() == {"pack": "done", "train": "stopped", "test": "cancelled"}
    assert left_behind(fake) == []
    assert fake.launch(train="works", test="works")[0] == 0
    assert fake.states() == {"pack": "done", "train": "done", "test": "done"}


def test_second_signal_ends_everything_at_once(fake):
    fake.start(train="is stubborn through a launcher", test="works")
    fake.await_log("train", "child started")
    fake.signal(signal.SIGINT)
    assert fake.launcher is not None
    with pytest.raises(subprocess.TimeoutExpired):
        fake.launcher.wait(1.5)
    assert len(left_behind(fake)) >= 2
    fake.signal(signal.SIGINT)
    status, out, _ = fake.end()
    assert (status, out) == (75, "75 ended at once, as asked\n")
    assert fake.states() == {"train": "stopped", "test": "cancelled"}
    assert left_behind(fake) == []


def test_signal_before_the_stage_came_to_its_marker(fake):
    fake.start(train="never begins through a launcher", test="works")
    fake.await_log("train", "here")
    fake.signal(signal.SIGINT)
    status, out, _ = fake.end()
    assert (status, out) == (75, "75 stopped before it had begun\n")
    assert fake.states() == {"train": "stopped", "test": "cancelled"}
    assert left_behind(fake) == []


def test_runs_follow_each_other_and_one_failure_keeps_no_other_from_running(fake):
    fake.start(configs=("fake", "second"), pack="works", train="fails")
    status, out, err = fake.end()
    assert (status, out) == (1, "1 the disk is full\n" * 2)
    assert "2 of 2 runs are over" in err
    second = json.loads((fake.folder / "runs" / "second" / "stages" / "train.json").read_text())
    assert second["state"] == "failed"


def test_runs_that_were_only_stopped_are_not_called_over(fake):
    fake.start(configs=("fake", "second", "third"), train="waits")
    fake.await_log("train", "at work")
    fake.signal(signal.SIGINT)
    status, _, err = fake.end()
    assert status == 75
    assert "runs are over" not in err


def test_a_run_at_work_is_refused_and_then_none_starts(fake):
    fake.start(train="waits")
    fake.await_log("train", "at work")
    first = fake.launcher
    fake.start(configs=("second", "fake"), pack="works")
    status, _, err = fake.end()
    assert status == 2
    assert f"is being run already, by process {first.pid}" in err
    assert "cardamage cancel runs/fake" in err
    assert not (fake.folder / "runs" / "second" / "logs" / "pack.log").exists()
    second = json.loads((fake.folder / "runs" / "second" / "launch.json").read_text())
    assert second["ended"]  # what was claimed is given back
    fake.launcher = first
    fake.signal(signal.SIGTERM)
    assert fake.end()[0] == 75


@pytest.mark.parametrize(
    ("behaviour", "printed", "error"),
    [
        ("waits", "at work", "stage train of runs/fake is running already, as process "),
        ("never begins", "here", "runs/fake: its launcher is gone, but process "),
    ],
)
def test_stage_that_outlives_its_launcher_keeps_the_run(
    fake, behaviour: str, printed: str, error: str
):
    fake.start(train=behaviour)
    fake.await_log("train", printed)
    fake.signal(signal.SIGKILL)
    fake.end()
    status, _, err = fake.launch(train="works")
    assert status == 2
    assert error in err


def test_launcher_whose_process_id_was_used_again_is_taken_over(fake):
    fake.make()
    launch = new_launch("local", "local", [], {})
    assert launch.pid == os.getpid()
    write_json(fake.run.launch, asdict(replace(launch, born="an earlier process")))
    assert fake.launch(pack="works")[0] == 0


def test_launcher_of_another_machine_is_not_taken_over(fake):
    fake.make()
    launch = new_launch("local", "local", [], {})
    write_json(fake.run.launch, asdict(replace(launch, host="elsewhere")))
    status, _, err = fake.launch(pack="works")
    assert status == 2
    assert f"by process {launch.pid} on elsewhere" in err
    assert "if that machine is gone, delete runs/fake/launch.json" in err


def test_one_of_two_launchers_that_come_together_is_refused(fake):
    fake.make()
    fake.start(pack="waits")
    first = fake.launcher
    fake.start(pack="waits")
    second = fake.launcher
    until(lambda: first.poll() is not None or second.poll() is not None)
    refused, kept = (first, second) if first.poll() is not None else (second, first)
    assert refused.returncode == 2
    assert kept.poll() is None
    refused.communicate()
    fake.launcher = kept
