"""What the local backend executes for each stage: the arguments, and what the environment needs."""

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cardamage.launch.planning.graph import RunPlan
from cardamage.launch.planning.profiles import LocalProfile
from cardamage.system.processes import count_cores

_DEVICES = Path("/dev")
_PROGRAM = ("-m", "cardamage")


@dataclass(frozen=True)
class Command:
    """A program to start.

    Attributes:
        environment: variables set for it, over those of the launcher.
        keeps_status: whether its exit status is that of the stage; a launcher's is not.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    keeps_status: bool = True

    def __str__(self) -> str:
        """One line for a shell."""
        variables = [f"{name}={shlex.quote(value)}" for name, value in self.environment.items()]
        return " ".join([*variables, shlex.join(self.arguments)])


def local_commands(plan: RunPlan, profile: LocalProfile) -> dict[str, Command]:
    """The command of every stage of a plan, in order."""
    gpus, cores = count_gpus(), count_cores()
    commands: dict[str, Command] = {}
    for stage in plan.stages:
        program = (*_PROGRAM, stage, str(plan.run.root))
        if stage == "train":
            commands[stage] = _trained(program, profile.train.processes, gpus, cores)
        elif stage == "test" and profile.test.processes > 1:
            commands[stage] = _trained(program, profile.test.processes, gpus, cores)
        else:
            commands[stage] = Command((sys.executable, *program))
    return commands


def count_gpus() -> int:
    """GPUs of this machine that its processes may see, told without torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", os.environ.get("HIP_VISIBLE_DEVICES"))
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    nvidia = list(_DEVICES.glob("nvidia[0-9]*"))
    amd = list(_DEVICES.glob("dri/renderD*")) if (_DEVICES / "kfd").exists() else []
    return len(nvidia or amd)


def _trained(program: Sequence[str], processes: int | None, gpus: int, cores: int) -> Command:
    """The command of a stage whose processes work together."""
    together = processes or gpus or 1
    # Left unset, launchers give every process one thread, whatever the machine has.
    threads = {"OMP_NUM_THREADS": str(max(1, cores // together))}
    environment = {} if "OMP_NUM_THREADS" in os.environ else threads
    if together == 1:  # a launcher would only import torch a second time, and lose the exit status
        return Command((sys.executable, *program), environment)
    if not gpus:
        # On a CPU, accelerate launch starts one process whatever it is told.
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
        return Command(
            (sys.executable, *torchrun, str(together), *program),
            {**environment, "ACCELERATE_USE_CPU": "true"},
            keeps_status=False,
        )
    # Each value that is left out costs a warning in the log; the precision is the config's.
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    if processes:
        options += ["--num_processes", str(processes)]
    options += ["--multi_gpu", "--main_process_port", "0"]  # any free one: runs may coincide
    launcher = (sys.executable, "-m", "accelerate.commands.launch", "--quiet", *options)
    return Command((*launcher, *program), environment, keeps_status=False)
