"""Several processes of which one fails: all of them end for its reason."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import Accelerator

from cardamage.errors import DataError
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.training.failures import propagate_first_failure

PROGRAM = """
import sys
from pathlib import Path
import torch
from cardamage.training.distributed import start_accelerator
from cardamage.errors import ConfigError, run_program
from cardamage.runs.paths import RunPaths
from cardamage.training.failures import propagate_first_failure
from cardamage.runs.stages import running

def main():
    accelerator = start_accelerator("no")
    with (
        running(RunPaths(Path("run")), "train", main_process=accelerator.is_main_process),
        propagate_first_failure(accelerator),
    ):
        accelerator.wait_for_everyone()
        if accelerator.process_index == 1:
            FAIL
        torch.distributed.all_reduce(torch.ones(1))

run_program(main)
"""


def end_of(folder: Path, fail: str) -> list[tuple[int, str]]:
    """What two processes end with, of which the second does ``fail``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("FAIL", fail)],
            cwd=folder,
            env={**os.environ, **shared, "ACCELERATE_USE_CPU": "1", "RANK": rank}
            | {"LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


@pytest.mark.distributed
def test_all_end_for_the_reason_of_the_one_that_failed_first(tmp_path: Path) -> None:
    (status, said), (other, first) = end_of(tmp_path, 'raise ConfigError("too large; lower it")')
    assert (status, other) == (2, 2)
    assert first.endswith("error: too large; lower it\n")
    assert said.endswith("error: process 1: too large; lower it\n")
    assert "Traceback" not in said + first
    record = read_stage(RunPaths(tmp_path / "run"), "train")
    assert (record.error_class, record.error) == ("user", "process 1: too large; lower it")


def test_one_process_fails_as_ever() -> None:
    accelerator = Accelerator(cpu=True)
    for error in (DataError("a shard"), RuntimeError("a defect")):
        with pytest.raises(type(error)) as raised, propagate_first_failure(accelerator):
            raise error
        assert raised.value is error
