"""Starting the one Accelerator of a program: device, processes and precision."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import Accelerator

from cardamage import rendezvous
from cardamage.errors import CardamageError, ConfigError


def start_accelerator(mixed_precision: str, meeting_folder: Path) -> Accelerator:
    """The Accelerator of this process, joined with those of the same launch.

    Args:
        mixed_precision: "no", "fp16" or "bf16".
        meeting_folder: where the processes of a SLURM step find each other.

    Raises:
        ConfigError: the device has no arithmetic of that precision.
        CardamageError: fewer processes joined than were started.
    """
    if rendezvous.is_needed():
        rendezvous.join(meeting_folder)
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
            f"start them with `accelerate launch`, torchrun or srun"
        )
    return accelerator
