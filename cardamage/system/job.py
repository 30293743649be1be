"""The SLURM job that this process belongs to: the one reader of ``SLURM_*``."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """An allocation.

    ``id`` is the job's own, which an element of an array has too; ``name`` is as people and SLURM's
    commands write it: ``12_3`` for an element of an array, whose own id may name the whole array.
    ``restarts`` counts requeues, ``nodes`` is as SLURM abbreviates names; CPUs and GPUs are 0
    where none were asked for.
    """

    id: str
    name: str
    restarts: int
    nodes: str
    cpus_per_task: int
    gpus_on_node: int


@dataclass(frozen=True)
class Step:
    """A step of a job, as started by ``srun``; ``tasks`` and ``nodes`` are the whole step's.

    The ``id`` is unique within one start of the job. ``launcher`` is the IPv4 address of the
    machine that ran ``srun``; None where SLURM hides it.
    """

    id: str
    rank: int
    local_rank: int
    tasks: int
    nodes: int
    launcher: str | None


def current_job() -> Job | None:
    """The job this process runs in; None outside SLURM."""
    if (number := os.environ.get("SLURM_JOB_ID")) is None:
        return None
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return Job(
        id=number,
        name=f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else number,
        restarts=_number("SLURM_RESTART_COUNT"),
        nodes=os.environ.get("SLURM_JOB_NODELIST", ""),
        cpus_per_task=_number("SLURM_CPUS_PER_TASK"),
        gpus_on_node=_number("SLURM_GPUS_ON_NODE"),
    )


def current_step() -> Step | None:
    """The step this process is a task of; None in a batch script and outside SLURM."""
    if (number := os.environ.get("SLURM_STEP_ID")) is None:
        return None
    return Step(
        id=number,
        rank=_number("SLURM_PROCID"),
        local_rank=_number("SLURM_LOCALID"),
        tasks=_number("SLURM_STEP_NUM_TASKS", 1),
        nodes=_number("SLURM_STEP_NUM_NODES", 1),
        launcher=os.environ.get("SLURM_LAUNCH_NODE_IPADDR"),
    )


def _number(name: str, default: int = 0) -> int:
    return int(os.environ.get(name) or default)
