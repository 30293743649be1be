"""Processes of a SLURM step meet: real processes, with the variables that SLURM gives each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from cardamage.training.distributed import start_accelerator

accelerator = start_accelerator("no")
total = accelerator.reduce(torch.tensor(accelerator.process_index + 1.0))
print(accelerator.process_index, accelerator.num_processes, total.item())
accelerator.end_training()
"""
LONELY = """
from cardamage.training import distributed as rendezvous
from cardamage.errors import run_program

run_program(lambda: rendezvous.join(timeout_s=1))
"""


def start(
    program: str, rank: int, meeting: Path | None, *, restart: int = 0, **more: str
) -> subprocess.Popen[str]:
    """A task of a step of three tasks on two nodes; there is no torchrun around it."""
    slurm = {
        "SLURM_JOB_ID": "12",
        "SLURM_RESTART_COUNT": str(restart),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_LAUNCH_NODE_IPADDR": "192.0.2.1",  # leads nowhere: the next address is tried
    }
    if meeting:
        slurm["CARDAMAGE_RENDEZVOUS"] = str(meeting)
    inherited = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**inherited, "OMP_NUM_THREADS": "1", **slurm, **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(*processes: subprocess.Popen[str]) -> list[str]:
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), ended
    return [output.strip() for output, _ in ended]


@pytest.mark.distributed
def test_tasks_meet_and_leave_no_file(tmp_path):
    (tmp_path / "rendezvous-12.0.0.json").write_text("of the start before, which was killed")
    (tmp_path / "rendezvous-13.0.0.json").write_text("of another job")
    tasks = [start(PROGRAM, rank, tmp_path, restart=1) for rank in (0, 1)]
    assert printed(*tasks) == ["0 2 3.0", "1 2 3.0"]
    assert [path.name for path in tmp_path.iterdir()] == ["rendezvous-13.0.0.json"]


@pytest.mark.distributed
def test_tasks_whom_nobody_asked_to_meet_work_alone(tmp_path):
    task = start(PROGRAM, 1, None)
    output, errors = task.communicate(timeout=120)
    assert (task.returncode, output) == (0, "0 1 1.0\n")
    assert "set CARDAMAGE_RENDEZVOUS to a folder" in errors


@pytest.mark.distributed
def test_inside_torchrun_nothing_changes(tmp_path):
    task = start(
        PROGRAM,
        1,
        tmp_path,
        RANK="0",
        WORLD_SIZE="1",
        LOCAL_RANK="0",
        LOCAL_WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    )
    assert printed(task) == ["0 1 1.0"]


@pytest.mark.parametrize(
    ("rank", "line"),
    [
        (0, "error: process 0 of 2 did not meet the others within 1 s"),
        (1, "error: process 0 did not show up within 1 s: "),
    ],
)
def test_a_task_that_waits_in_vain_says_so_in_one_line(tmp_path, rank, line):
    task = start(LONELY, rank, tmp_path)
    _, errors = task.communicate(timeout=180)
    assert task.returncode == 1
    assert errors.splitlines()[-1].startswith(line), errors
    assert "Traceback" not in errors
