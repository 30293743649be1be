"""What a process reads of the SLURM job it runs in."""

import os

import pytest

from cardamage.system.job import Job, Step, current_job, current_step


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("SLURM_"):
            monkeypatch.delenv(name)


def test_outside_slurm_there_is_neither_job_nor_step():
    assert current_job() is None
    assert current_step() is None


def test_a_batch_script_is_in_a_job_and_in_no_step(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert current_job() == Job("7", "7", 2, "", 0, 0)
    assert current_step() is None


def test_an_element_of_an_array_has_its_own_id_and_the_name_people_write(
    monkeypatch: pytest.MonkeyPatch,
):
    given = {"JOB_ID": "14", "ARRAY_JOB_ID": "12", "ARRAY_TASK_ID": "1", "JOB_NODELIST": "n[1-2]"}
    for name, value in {**given, "CPUS_PER_TASK": "4", "GPUS_ON_NODE": "1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert current_job() == Job("14", "12_1", 0, "n[1-2]", 4, 1)


def test_a_task_knows_its_place_in_the_step(monkeypatch: pytest.MonkeyPatch):
    given = {"STEP_ID": "0", "PROCID": "3", "LOCALID": "1", "STEP_NUM_TASKS": "4"}
    for name, value in {**given, "STEP_NUM_NODES": "2", "LAUNCH_NODE_IPADDR": "10.0.0.1"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert current_step() == Step("0", 3, 1, 4, 2, "10.0.0.1")
