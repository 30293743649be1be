"""What squeue and sacct print, as recorded from a real SLURM, and what is made of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from cardamage.launch.watching.overview import _overview
from cardamage.launch.watching.queue import (
    JobState,
    Queue,
    ask_accounting,
    ask_queue,
    cluster_name,
    parse_accounting,
    parse_queue,
)
from cardamage.launch.watching.record import new_launch
from cardamage.runs.stages import StageRecord
from tests.helpers.fake_runs import FakeRun
from tests.helpers.markers import write_stage

SQUEUE = """\
69_1|69|PENDING|JobArrayTaskLimit||0|N/A|main||
69_2|69|PENDING|JobArrayTaskLimit||0|N/A|main||
70|70|PENDING|Dependency||0|N/A|main,long|(null)|
75|75|PENDING|BeginTime||1|2026-11-22T15:52:26|main||
68|68|RUNNING|None|n0|0|2026-11-22T15:50:26|main|a|b|
69_0|72|RUNNING|None|n[0-1]|0|2026-11-22T15:50:26|main||
66|66|COMPLETED|None|n0|0|2026-11-22T15:40:01|main||
"""

SACCT = """\
68|RUNNING
66|COMPLETED
65|CANCELLED by 1000
69_0|NODE_FAIL
69_[1-2]|PENDING
"""


def test_squeue(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "UTC")
    found = parse_queue(SQUEUE)
    assert found["70"] == JobState("PENDING", "Dependency", partition="main,long", comment="")
    assert found["68"] == JobState("RUNNING", nodes="n0", partition="main", comment="a|b")
    assert (
        found["69_0"]
        == found["72"]
        == JobState("RUNNING", nodes="n[0-1]", partition="main", comment="")
    )
    assert found["75"].restarts == 1
    assert found["75"].starts.endswith("+00:00")
    assert found["70"].is_queued
    assert found["68"].is_running
    assert not found["66"].is_there
    assert "69" not in found


def test_squeue_of_nothing_or_noise():
    assert parse_queue("") == {}
    assert parse_queue("slurm_load_jobs error\n\n") == {}


def test_sacct_tells_only_what_has_ended():
    found = {job: state.state for job, state in parse_accounting(SACCT).items()}
    assert found == {"66": "COMPLETED", "65": "CANCELLED", "69_0": "NODE_FAIL"}


def test_a_job_of_the_same_id_is_not_ours_under_another_comment_or_on_another_cluster():
    queue = Queue(parse_queue(SQUEUE), cluster="big")
    assert queue.of("big", "a|b").find("68").is_running
    assert queue.of(None, "cardamage-1").find("68") is None
    assert queue.of("big", "cardamage-1").find("69") is None
    other = queue.of("small", "a|b")
    assert other.problem == "its jobs are on the cluster small, and this one is big"
    assert other.find("68") is None


def test_an_array_stands_as_the_element_with_most_to_do():
    queue = Queue(parse_queue(SQUEUE))
    assert queue.find("69").is_running
    assert queue.find("69_2").reason == "JobArrayTaskLimit"
    assert Queue({"5_0": JobState("COMPLETED"), "5_1": JobState("FAILED")}).find("5").state == (
        "FAILED"
    )


def test_of_jobs_that_share_a_stage_the_one_to_look_at():
    queue = Queue(parse_queue(SQUEUE))
    assert queue.first(["66", "69_2", "70"])[0] == "69_2"
    assert queue.first(["69_0", "69_2", "70"])[0] == "69_0"
    assert queue.first(["66", "70"])[0] == "70"
    assert queue.first(["66", "99"]) == ("99", None)


def test_job_that_can_never_start_is_not_queued():
    job = JobState("PENDING", "DependencyNeverSatisfied")
    assert job.is_there
    assert not job.is_queued


def test_without_slurm_nothing_is_known_and_the_reason_is(tmp_path: Path, monkeypatch):
    assert ask_queue([]) == Queue()
    monkeypatch.setenv("PATH", str(tmp_path))
    queue = ask_queue(["1"])
    assert queue.problem == "this machine has no squeue"
    assert ask_accounting(queue, ["1"]) == queue


def test_the_name_of_the_cluster_is_asked_for_until_it_is_told_and_then_no_more(
    tmp_path: Path, monkeypatch
):
    scontrol, asked = tmp_path / "scontrol", tmp_path / "asked"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    scontrol.write_text(f"#!/bin/sh\necho >> {asked}\n")
    scontrol.chmod(0o755)
    assert cluster_name() is None
    scontrol.write_text(f"{scontrol.read_text()}echo 'ClusterName = big'\n")
    assert [cluster_name() for _ in range(3)] == ["big"] * 3
    assert asked.read_text().count("\n") == 2


def shown(fake: FakeRun, job: JobState | None, upstream: str = "done", **marker: object) -> str:
    """How train stands by its marker and its job, 12."""
    run = fake.make()
    write_stage(run, StageRecord("pack", state=upstream))
    write_stage(run, StageRecord("train", **marker))
    record = replace(new_launch("slurm", "slurm", [], {}), jobs={"pack": "11", "train": "12"})
    markers = {stage: StageRecord(stage) for stage in ("test", "report")}
    markers = {
        "pack": StageRecord("pack", state=upstream),
        "train": StageRecord("train", **marker),
        **markers,
    }
    queue = Queue({"12": job} if job else {})
    return _overview(run, record, None, markers, queue).stages["train"].state


RUNNING, PENDING = JobState("RUNNING", nodes="n0"), JobState("PENDING", "Priority")


@pytest.mark.parametrize(
    ("marker", "job", "expected"),
    [
        ("waiting", PENDING, "queued"),
        ("waiting", RUNNING, "running"),  # it has not come to its marker yet
        ("stopped", PENDING, "queued"),
        ("stopped", RUNNING, "running"),
        ("stopped", JobState("COMPLETING"), "stopped"),
        ("running", JobState("COMPLETING"), "running"),
        ("stopped", JobState("CANCELLED"), "stopped"),
        ("running", JobState("PENDING", "BeginTime", restarts=1), "queued"),
        ("done", RUNNING, "done"),
        ("done", None, "done"),
        ("failed", JobState("FAILED"), "failed"),
        ("failed", None, "failed"),
        ("waiting", JobState("CANCELLED"), "cancelled"),
        ("waiting", JobState("PENDING", "DependencyNeverSatisfied"), "cancelled"),
        ("waiting", JobState("FAILED"), "failed"),
        ("running", JobState("TIMEOUT"), "failed"),
        ("running", JobState("COMPLETED"), "lost"),
        ("running", None, "lost"),
        ("waiting", None, "lost"),
        ("cancelled", None, "cancelled"),
    ],
)
def test_state_by_marker_and_job(fake, marker: str, job: JobState | None, expected: str):
    assert shown(fake, job, state=marker) == expected


def test_forgotten_job_behind_a_failed_stage_was_cancelled(fake):
    assert shown(fake, None, upstream="failed") == "cancelled"
