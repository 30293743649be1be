"""Stage markers: what they say while a stage runs and however it ends."""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cardamage.errors import CardamageError, ConfigError, MachineFault, RunError, Stopped
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import (
    StageRecord,
    cancel,
    copy_to,
    fail,
    is_lost,
    now,
    read_stage,
    require,
    running,
    stop,
    wait,
)
from tests.helpers.markers import write_stage


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


def test_an_interrupt_between_the_marker_and_the_body_is_a_stop(run: RunPaths):
    entered = running(run, "report")
    entered.__enter__()
    assert read_stage(run, "report").state == "running"
    del entered  # as where an interrupt strikes before `with` has it: the body never begins
    assert read_stage(run, "report").state == "stopped"
    assert not run.lock("report").exists()


def test_without_a_marker_a_stage_waits(run: RunPaths):
    assert read_stage(run, "train") == StageRecord("train", state="waiting", attempts=0)


def test_done_stage(run: RunPaths):
    with running(run, "pack") as output:
        during = read_stage(run, "pack")
        output["shards"] = "shards/x"
    assert (during.state, during.attempts, during.pid) == ("running", 1, os.getpid())
    assert during.host == socket.gethostname()
    assert not is_lost(during)
    after = read_stage(run, "pack")
    assert (after.state, after.exit_status, after.error) == ("done", 0, None)
    assert after.output == {"shards": "shards/x"}
    assert after.started == during.started
    assert after.ended is not None
    assert after.ended >= after.started


@pytest.mark.parametrize(
    ("error", "state", "exit_status", "error_class", "text"),
    [
        (ConfigError("lr is 0;\n  give more"), "failed", 2, "user", r"lr is 0;\n give more"),
        (CardamageError("the disk is full"), "failed", 1, "final", "the disk is full"),
        (MachineFault("a process was killed"), "failed", 1, "fault", "a process was killed"),
        (ValueError("bad"), "failed", 1, "fault", "ValueError: bad"),
        (KeyError(), "failed", 1, "fault", "KeyError: KeyError"),
        (Stopped("saved"), "stopped", 75, "stopped", "saved"),
        (KeyboardInterrupt(), "stopped", 75, "stopped", "KeyboardInterrupt"),
    ],
)
def test_failed_stage_says_why_and_the_error_goes_on(
    run: RunPaths,
    error: BaseException,
    state: str,
    exit_status: int,
    error_class: str,
    text: str,
):
    with pytest.raises(type(error)), running(run, "train"):
        raise error
    record = read_stage(run, "train")
    assert (record.state, record.exit_status, record.error_class, record.error) == (
        state,
        exit_status,
        error_class,
        text,
    )


def test_starts_are_counted_and_the_last_error_is_forgotten(run: RunPaths):
    with pytest.raises(ValueError, match="bad"), running(run, "train"):
        raise ValueError("bad")
    with running(run, "train"):
        pass
    record = read_stage(run, "train")
    assert (record.attempts, record.state, record.error) == (2, "done", None)


def test_other_processes_write_nothing(run: RunPaths):
    with running(run, "train", main_process=False) as output:
        output["epochs"] = 1
    assert not run.stage("train").exists()


def test_job_id_is_on_record(run: RunPaths, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    with running(run, "train"):
        pass
    assert read_stage(run, "train").job_id == "77"


def test_require(run: RunPaths):
    message = "stage pack is waiting, and has to be done first; run cardamage pack x"
    with pytest.raises(RunError, match=re.escape(message)):
        require(run, "pack", "cardamage pack x")
    with running(run, "pack") as output:
        output["shards"] = "here"
    assert require(run, "pack", "cardamage pack x").output == {"shards": "here"}


@pytest.mark.parametrize("content", ["", "{", '{"stage": "train", "colour": "red"}', "[]"])
def test_damaged_marker(run: RunPaths, content: str):
    run.stage("train").parent.mkdir(parents=True)
    run.stage("train").write_text(content)
    with pytest.raises(RunError, match=r"train\.json is damaged; delete it"):
        read_stage(run, "train")


def test_stage_is_lost_when_its_process_is_gone(run: RunPaths):
    with running(run, "train"):
        record = read_stage(run, "train")
    assert not is_lost(record)
    assert is_lost(replace(record, born="an earlier process of this id"))
    assert is_lost(replace(record, born=None))
    assert not is_lost(replace(record, host="elsewhere", born=None))  # nobody can tell from here
    assert not is_lost(replace(record, state="done", born=None))


def test_every_transition_sets_state_status_class_and_time(run: RunPaths):
    record = StageRecord("train", state="running", attempts=2, started=now())
    run.root.mkdir()
    ends = {"failed": (2, "user"), "stopped": (75, "fault"), "cancelled": (None, None)}
    for state, (status, kind) in ends.items():
        match state:
            case "failed":
                fail(run, record, "no such class", "user")
            case "stopped":
                stop(run, record, "node n1 failed", "fault")
            case _:
                cancel(run, record)
        found = read_stage(run, "train")
        assert (found.state, found.exit_status, found.error_class) == (state, status, kind)
        assert found.ended
        assert found.attempts == 2
    wait(run, "train")
    assert read_stage(run, "train") == StageRecord("train", attempts=2)


def test_a_shared_stage_is_copied_by_its_own_process_alone(run: RunPaths, tmp_path: Path):
    other = RunPaths(tmp_path / "other")
    other.root.mkdir()
    with running(run, "pack"):
        pass
    copy_to([other], run, "pack")
    assert read_stage(other, "pack") == read_stage(run, "pack")
    write_stage(run, replace(read_stage(run, "pack"), pid=1, state="failed"))
    copy_to([other], run, "pack")
    assert read_stage(other, "pack").state == "done"


def test_marker_is_read_as_it_was_written(run: RunPaths):
    record = StageRecord("report", state="cancelled", ended=now(), output={"page": "ä.html"})
    run.root.mkdir()
    write_stage(run, record)
    assert read_stage(run, "report") == record


def test_times_are_utc():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", now())


SECOND = """
import sys
from pathlib import Path
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import running

with running(RunPaths(Path(sys.argv[1])), "train"):
    print("started")
"""


def test_a_stage_does_not_start_beside_itself(run: RunPaths):
    second = [sys.executable, "-c", SECOND, run.root]
    with running(run, "train"):
        before = read_stage(run, "train")
        refused = subprocess.run(second, capture_output=True, text=True, check=False)
        assert read_stage(run, "train") == before
    assert refused.stdout == ""
    assert re.search(
        rf"RunError: stage train of {run.root} is running already, by process {os.getpid()} on "
        rf"{re.escape(socket.gethostname())}, since [0-9T:+-]+; "
        rf"wait for it, or stop it: cardamage cancel",
        refused.stderr,
    )
    assert not run.lock("train").exists()
    assert subprocess.check_output(second, text=True) == "started\n"
    assert read_stage(run, "train").state == "done"


def test_what_a_killed_process_wrote_aside_is_removed(run: RunPaths):
    killed = SECOND.replace('print("started")', "os.kill(os.getpid(), 9)")
    killed = killed.replace("import sys", "import os, sys")
    process = subprocess.Popen([sys.executable, "-c", killed, run.root])
    process.wait()
    host = socket.gethostname()
    run.resume.mkdir()
    part = run.resume / f".state.pt.{host}.{process.pid}.part"
    others = run.resume / f".state.pt.{host}.1.part"
    for path in (part, others):
        path.write_bytes(b"half")
    with running(run, "train"):
        assert not part.exists()
        assert others.exists()
    assert read_stage(run, "train").attempts == 2


def test_a_marker_that_cannot_be_written_hides_no_error(run: RunPaths):
    with pytest.raises(ValueError, match="bad"), running(run, "train"):  # noqa: PT012 - as it comes
        shutil.rmtree(run.root)
        raise ValueError("bad")
    assert not run.root.exists()


def test_marker_that_cannot_be_written():
    run = RunPaths(Path("/proc/run"))
    with (
        pytest.raises(RunError, match=r"run/stages cannot be written .* --runs-dir"),
        running(run, "train"),
    ):
        pass
