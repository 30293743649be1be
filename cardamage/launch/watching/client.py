"""The one place that runs SLURM's commands: with a time limit, in a clean environment."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from cardamage.errors import UserError

SUBMIT_S = 30
"""How long ``sbatch`` may take, in seconds."""

_FOREIGN = (
    *("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SALLOC_", "SPANK_", "PMI_", "PMIX_", "OMPI_"),
    *("TORCHELASTIC_", "SUBMITIT_", "ACCELERATE_"),
)
_OWN = ("SQUEUE_", "SACCT_", "SCANCEL_")  # a person's taste in formats and filters
_RANKS = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR"}
_RANKS |= {"GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_PORT"}
_DEVICES = {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"}
_DEVICES |= {"GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"}
_SITE = {"SLURM_CONF", "SLURM_CLUSTERS"}  # where the cluster is
_DEFAULTS = {"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"}  # a person's own


def ask(
    *command: str, timeout_s: float, given: str | None = None, ignored: Iterable[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM's on the input ``given``; its exit status is the caller's to judge.

    Of the environment the variables ``ignored`` do not count.

    Raises:
        UserError: this machine does not have it, or it did not answer in time.
    """
    environment = {
        name: value
        for name, value in clean(os.environ).items()
        if name not in set(ignored) and not name.startswith(_OWN)
    }
    try:
        return subprocess.run(
            command,
            env=environment,
            input=given,
            stdin=None if given is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError:
        raise UserError(
            f"{command[0]} is not on this machine's path; use a login node of the cluster, or run "
            f"here with --cluster local"
        ) from None
    except subprocess.TimeoutExpired as error:  # what it said has not been decoded
        said = f" ({gist(error.stderr.decode(errors='replace'))})" if error.stderr else ""
        raise UserError(
            f"SLURM does not answer: {command[0]} said nothing for {timeout_s:g} s{said}; try "
            f"again later"
        ) from None


def submit_script(script: Path, needs: str, comment: str, *options: str) -> str:
    """Submit a script that was submitted before once more, after what it needs; the job's id.

    Raises:
        UserError: SLURM refuses.
    """
    more = [f"--comment={comment}"] if comment else []
    more += [f"--dependency={needs}"] if needs else []
    found = ask("sbatch", "--parsable", *options, *more, str(script), timeout_s=SUBMIT_S)
    if found.returncode:
        raise UserError(f"{script} cannot be submitted again: {gist(found.stderr)}")
    return found.stdout.strip().partition(";")[0]


def gist(text: str) -> str:
    """The telling line of what a command of SLURM's complained."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "failure" in line] or lines or ["it gives no reason"]
    return re.sub(
        r"^\w+: (error: )?|allocation failure: |Batch job submission failed: ", "", telling[0]
    )


def defaults_of_user() -> dict[str, str]:
    """What ``sbatch`` takes of the environment where the profile does not say otherwise."""
    return {name: value for name, value in clean(os.environ).items() if name in _DEFAULTS}


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a new job may inherit.

    Outside an allocation the user's own ``SBATCH_ACCOUNT`` and the like stay.
    """
    inside = "SLURM_JOB_ID" in environment
    kept = _SITE if inside else _SITE | _DEFAULTS
    dropped = _RANKS | _DEVICES if inside else _RANKS
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not (name.startswith(_FOREIGN) or name in dropped)
    }
