"""What attempts took beside time, added up."""

import sys
from contextlib import suppress

import pytest

from cardamage.runs.attempts import queued, read_attempts, total_usage
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import record_attempt
from cardamage.runs.stages import read_stage, running
from cardamage.runs.usage import Usage, usage_of_attempt, usage_words, write_usage
from cardamage.system.files import write_json


@pytest.fixture
def run(tmp_path):
    run = RunPaths(tmp_path / "cars")
    run.stage("train").parent.mkdir(parents=True)
    return run


def test_processes_of_one_attempt_are_added_up(run):
    one = Usage(100, 50, gpu_use=0.5, gpu_joules=10.0, cpu_joules=7.0)
    other = Usage(200, 60, gpu_use=0.7, gpu_joules=20.0, cpu_joules=7.0)
    write_usage(run, "train", 0, started="now", host="n0", usage=one)
    write_usage(run, "train", 1, started="now", host="n0", usage=other)
    write_usage(run, "train", 2, started="before", host="n1", usage=other)
    found = usage_of_attempt(run, "train", "now")
    # Memory and GPUs are each process's own, the processors' energy is the machine's.
    assert found == Usage(300, 60, gpu_use=pytest.approx(0.6), gpu_joules=30.0, cpu_joules=7.0)
    assert usage_of_attempt(run, "test", "now") == Usage()


def test_a_killed_attempt_keeps_what_was_measured_so_far(run):
    for bytes_held in (300, 200):
        with suppress(SystemExit), running(run, "train"):
            record_attempt(run, "train")
            usage = Usage(bytes_held, cpu_joules=10.0)
            started = read_stage(run, "train").started
            write_usage(run, "train", 0, started=started, host="n0", usage=usage)
            sys.exit()
    attempts = read_attempts(run)
    assert [attempt.usage.memory_bytes for attempt in attempts] == [300, 200]
    assert total_usage(attempts) == Usage(300, cpu_joules=20.0)
    assert queued(attempts) is None  # no SLURM


def test_time_in_the_queue_counts_from_when_a_stage_could_begin(run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    write_json(run.launch, {"started": "2026-01-01T00:00:00+00:00"})
    write_json(run.stage("pack"), {"ended": "2026-01-01T00:05:00+00:00"})
    monkeypatch.setattr("cardamage.runs.stages.now", lambda: "2026-01-01T00:06:30+00:00")
    with running(run, "train"):
        record_attempt(run, "train")
    assert queued(read_attempts(run)) == 90


def test_words_leave_out_what_is_not_known():
    assert usage_words(Usage()) == []
    words = usage_words(Usage(1_500_000_000, gpu_use=0.874, gpu_joules=7_200_000.0))
    assert words == ["1.5 GB of memory", "GPU busy 87 %", "GPUs 2.00 kWh"]
