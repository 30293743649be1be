"""The environment a job is submitted from: nothing of an enclosing allocation may reach it.

``sbatch`` hands its environment to the job. Inside ``salloc`` or another job that holds ranks,
memory per CPU and visible devices of that allocation, and ``SBATCH_*`` variables beat what the
batch script asks for.
"""

from __future__ import annotations

from collections.abc import Mapping

_FOREIGN = (
    *("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SALLOC_", "SPANK_", "PMI_", "PMIX_", "OMPI_"),
    *("TORCHELASTIC_", "SUBMITIT_", "ACCELERATE_"),
)
_RANKS = frozenset(
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"}
    | {"ROLE_RANK", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
)
_DEVICES = frozenset({"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"})
_DEVICES |= {"GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"}
_SITE = frozenset({"SLURM_CONF", "SLURM_CLUSTERS"})  # where the cluster is
_DEFAULTS = frozenset({"SBATCH_ACCOUNT", "SBATCH_PARTITION", "SBATCH_QOS"})  # a person's own


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that a new job may inherit.

    Outside an allocation the user's own ``SBATCH_ACCOUNT`` and the like stay; the caller drops
    those that the profile says otherwise.
    """
    inside = "SLURM_JOB_ID" in environment
    kept = _SITE if inside else _SITE | _DEFAULTS
    dropped = _RANKS | _DEVICES if inside else _RANKS
    return {
        name: value
        for name, value in environment.items()
        if name in kept or not (name.startswith(_FOREIGN) or name in dropped)
    }
