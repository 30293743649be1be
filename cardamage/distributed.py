"""Starting the one Accelerator of a program: device, processes and precision."""

from __future__ import annotations

import os

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from cardamage import rendezvous
from cardamage.console import log
from cardamage.errors import CardamageError, ConfigError
from cardamage.processes import node_name, usable_cores


def start_accelerator(mixed_precision: str) -> Accelerator:
    """The Accelerator of this process, joined with those of the same launch.

    Args:
        mixed_precision: "no", "fp16" or "bf16".

    Raises:
        ConfigError: the device has no arithmetic of that precision.
        CardamageError: fewer processes joined than were started.
    """
    if rendezvous.is_needed():
        rendezvous.join()
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    # Left to itself, Accelerate takes several processes without a GPU for as many lone ones.
    on_cpu = processes > 1 and not torch.cuda.is_available()
    try:
        accelerator = Accelerator(mixed_precision=mixed_precision, cpu=on_cpu)
    except ValueError as error:
        raise ConfigError(
            f'train.mixed_precision is "{mixed_precision}", which this machine cannot do '
            f'({error}); use "no"'
        ) from None
    if mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ConfigError(
            'train.mixed_precision is "fp16", which needs a GPU; use "bf16" or "no" on a CPU'
        )
    if accelerator.num_processes != processes:
        raise CardamageError(
            f"{processes} processes were started but {accelerator.num_processes} joined; "
            f"start them with `accelerate launch` or torchrun"
        )
    return accelerator


def check_placement(accelerator: Accelerator) -> None:
    """Log cores and GPUs of every process; warn where SLURM was asked for others. All take part."""
    gathered = gather_object([_placement(accelerator)])
    if accelerator.is_main_process:
        for found, problems in gathered:
            log.info("%s", found)
            for problem in problems:
                log.warning("%s: %s", found, problem)


def _placement(accelerator: Accelerator) -> tuple[str, list[str]]:
    """Where this process is, in words, and what differs from what was asked for."""
    cores, gpus = usable_cores(), torch.cuda.device_count()
    shown = f"{accelerator.device} of {_counted(gpus, 'visible GPU')}" if gpus else "no GPU visible"
    where = f"process {accelerator.process_index} on {node_name()}"
    text = f"{where}: {_counted(len(cores), 'core')} ({_ranges(cores)}), {shown}"
    problems = []
    asked = int(os.environ.get("SLURM_CPUS_PER_TASK", "0"))
    if len(cores) < asked:
        problems.append(
            f"SLURM was asked for {_counted(asked, 'core')}, so it is slower than it could be"
        )
    elif asked and len(cores) > 2 * asked:  # SLURM may count cores whose two threads are seen here
        problems.append(
            f"SLURM was asked for {_counted(asked, 'core')}, and it is not held to that"
        )
    of_node = int(os.environ.get("SLURM_GPUS_ON_NODE", "0"))
    own = of_node // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if of_node and gpus < max(own, 1):
        problems.append(
            f"SLURM gave its node {_counted(of_node, 'GPU')}; do the driver and torch's CUDA match?"
        )
    return text, problems


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _ranges(numbers: list[int]) -> str:
    """Ascending numbers as people write them: ``0-3,8``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
