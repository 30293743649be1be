"""Small experiments submitted to the test cluster."""

import time

import pytest

from cardamage.launch.watching.record import read_launch
from cardamage.runs.paths import STAGES, RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.programs import Program
from tests.helpers.slurm_commands import Slurm

TOY = """\
name: toy
data:
  source: synthetic
  synthetic: {images: 24, size: 48}
  classes: [scratch, dent, broken lamp]
  image_size: [32, 32]
model: {name: segnet2}
optim: {name: adam, lr: 0.003}
train: {epochs: 2, batch_size: 4}
"""
ONE_NODE = """\
backend: slurm
all_stages: {cpus_per_task: 1, time_minutes: 5}
"""
TWO_NODES = f"{ONE_NODE}train: {{nodes: 2}}\n"


def run_of(program: Program, name: str = "toy") -> RunPaths:
    """A run in the folder of the programs."""
    return RunPaths(program.folder / "runs" / name)


def jobs_of(run: RunPaths) -> dict[str, str]:
    """The jobs of a run, as they are by now."""
    launch = read_launch(run)
    assert launch is not None
    return launch.jobs


def wait_until_over(slurm: Slurm, run: RunPaths, timeout_s: float = 300) -> None:
    """Wait until no job of a run is queued or runs."""
    deadline = time.monotonic() + timeout_s
    # By the ids of arrays: an element that runs has one of its own.
    while left := {job.partition("_")[0] for job in jobs_of(run).values()} & {
        *slurm.output("squeue", "-h", "-o", "%F").split()
    }:
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text() for path in run.logs.iterdir())
            pytest.fail(f"jobs {left} are not over\n{slurm.output('squeue')}\n{logs}")
        time.sleep(0.5)


def states(run: RunPaths) -> list[str]:
    """How the four stages stand by their markers."""
    return [read_stage(run, stage).state for stage in STAGES]
