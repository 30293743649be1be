"""Where a process may run, beside what SLURM was asked for."""

import os

import pytest
import torch
from accelerate import Accelerator

from cardamage.system.console import log
from cardamage.training.distributed import check_placement

CORE = min(os.sched_getaffinity(0))


@pytest.fixture
def accelerator(monkeypatch):
    """An Accelerator of a process that may use one core, on node n7."""
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORE})
    yield Accelerator(cpu=True)
    os.sched_setaffinity(0, before)


@pytest.fixture
def logged(caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO", logger=log.name)
    return caplog


def test_cores_and_gpus_are_logged(accelerator, logged, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_placement(accelerator)
    line = f"process 0 on n7: 1 core ({CORE}), cpu of 2 visible GPUs"
    assert [(r.levelname, r.getMessage()) for r in logged.records] == [("INFO", line)]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("SLURM_CPUS_PER_TASK", "4", "SLURM was asked for 4 cores, so it is slower than it"),
        ("SLURM_GPUS_ON_NODE", "2", "SLURM gave its node 2 GPUs; do the driver and torch's"),
    ],
)
def test_less_than_was_asked_for_is_warned_about(
    accelerator, logged, monkeypatch, name, value, problem
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(name, value)
    check_placement(accelerator)
    assert logged.records[-1].levelname == "WARNING"
    assert f"process 0 on n7: 1 core ({CORE}), no GPU visible: {problem}" in logged.text


def test_cores_that_nothing_withholds_are_warned_about(logged, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {5, 0, 2, 1})
    check_placement(Accelerator(cpu=True))
    assert "4 cores (0-2, 5)" in logged.text
    assert "SLURM was asked for 1 core, and it is not held to that" in logged.text


def test_outside_slurm_nothing_is_asked(accelerator, logged, monkeypatch):
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    check_placement(accelerator)
    assert [record.levelname for record in logged.records] == ["INFO"]
