"""What is remembered of the starts of a run: each that did work, and none that did not."""

import json
import os
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cardamage.errors import RunError, Stopped
from cardamage.runs import provenance as module
from cardamage.runs.attempts import begin_attempt, cost, read_attempts
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import record_attempt
from cardamage.runs.stages import NothingToDo, copy_to, fail, read_stage, running
from cardamage.system.files import write_json


@pytest.fixture
def run(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "run")


@pytest.fixture
def commit(monkeypatch: pytest.MonkeyPatch):
    """Sets the commit that the code of a start is at."""

    def at(name: str) -> None:
        monkeypatch.setattr(module, "git_state", lambda _: {"commit": name, "patch": ""})

    at("a")
    return at


def train(run: RunPaths, step: int, *, stops: bool = False) -> None:
    """A start of training that saves at ``step``."""
    ends = pytest.raises(Stopped) if stops else nullcontext()
    with ends, running(run, "train"):
        record_attempt(run, "train", devices="a card", processes=2)
        write_json(run.progress, {"epoch": 1, "step": step})
        if stops:
            raise Stopped("saved")


def test_three_pieces_at_two_commits_are_all_told(run: RunPaths, commit):
    train(run, 5, stops=True)
    commit("b")
    train(run, 9, stops=True)
    train(run, 12)
    found = read_attempts(run)
    assert [(a.begun_at, a.ended_at, a.state) for a in found] == [
        (0, 5, "stopped"),
        (5, 9, "stopped"),
        (9, 12, "done"),
    ]
    assert {(a.stage, a.devices, a.processes) for a in found} == {("train", "a card", 2)}
    told = json.loads(run.provenance.read_text())
    commits = [told["codes"][a.code]["git"]["commit"] for a in found]
    assert commits == ["a", "b", "b"]
    assert len(told["codes"]) == 2
    assert told["git"]["commit"] == "b"


def test_what_tests_and_reports_is_not_taken_for_what_trained(run: RunPaths, commit):
    train(run, 5)
    commit("b")
    with running(run, "report"):
        record_attempt(run, "report")
    told = json.loads(run.provenance.read_text())
    assert told["git"]["commit"] == "a"
    assert [a["stage"] for a in told["attempts"]] == ["train", "report"]


def test_cost_is_the_sum_over_attempts(run: RunPaths, commit):
    for seconds in (30, 12):
        train(run, 5, stops=True)
        told = json.loads(run.provenance.read_text())
        last = told["attempts"][-1]
        began = datetime.fromisoformat(last["ended"]) - timedelta(seconds=seconds)
        last.update(started=began.isoformat(), seconds=seconds)
        write_json(run.provenance, told)
    assert cost(read_attempts(run)) == 42
    assert cost(read_attempts(run), "train") == 42
    assert cost(read_attempts(run), "test") is None


def test_a_start_that_was_killed_unseen_ends_when_it_last_wrote(run: RunPaths, commit):
    began = "2026-01-01T10:00:00+00:00"
    run.stage("train").parent.mkdir(parents=True)
    begin_attempt(run, "train", module.provenance(), started=began)
    write_json(run.progress, {"epoch": 1, "step": 7})
    last = datetime.fromisoformat(began).timestamp() + 33
    os.utime(run.progress, (last, last))
    train(run, 9)
    killed, after = read_attempts(run)
    assert (killed.state, killed.seconds, killed.ended_at) == ("lost", 33, 7)
    assert (after.begun_at, after.state) == (7, "done")


def test_the_launcher_ends_the_attempt_of_a_stage_that_died(run: RunPaths, commit):
    run.stage("train").parent.mkdir(parents=True)
    begin_attempt(run, "train", module.provenance(), started="2026-01-01T10:00:00+00:00")
    fail(run, replace(read_stage(run, "train"), state="running"), "killed", "fault")
    (found,) = read_attempts(run)
    assert (found.state, found.ended is not None) == ("failed", True)


def test_a_stage_with_nothing_to_do_leaves_every_byte(run: RunPaths, commit):
    with running(run, "pack") as output:
        record_attempt(run, "pack")
        output["shards"] = "x"
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    with running(run, "pack"):
        raise NothingToDo
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before


def test_a_shared_stage_reaches_those_that_lack_it_and_leaves_the_others(
    run: RunPaths, tmp_path: Path, commit
):
    with running(run, "pack") as output:
        output["shards"] = "x"
    one, two = (RunPaths(tmp_path / name) for name in ("one", "two"))
    for other in (one, two):
        other.root.mkdir()
    copy_to([one], run, "pack")
    before = one.stage("pack").read_bytes()
    with running(run, "pack"):
        raise NothingToDo
    copy_to([one, two], run, "pack")
    assert one.stage("pack").read_bytes() == before
    assert read_stage(two, "pack").output == {"shards": "x"}
    assert read_attempts(two) == []


def test_damage_is_refused_by_readers_and_mended_by_the_next_start(run: RunPaths, commit):
    train(run, 5)
    run.provenance.write_text("{")
    with pytest.raises(RunError, match="delete it"):
        read_attempts(run)
    train(run, 9)
    assert [a.ended_at for a in read_attempts(run)] == [9]


def test_a_place_that_cannot_be_written_is_no_failure(run: RunPaths, commit):
    with running(run, "train"):
        run.provenance.mkdir()
        record_attempt(run, "train")
    assert read_stage(run, "train").state == "done"
