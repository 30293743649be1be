"""Where a run may go: the cluster profiles ``configs/cluster/*.yaml``, and their schema."""

from __future__ import annotations

import shutil
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from cardamage.complaints import explain
from cardamage.config import Section, read_mapping
from cardamage.errors import ConfigError

PROFILES = Path(__file__).resolve().parents[1] / "configs" / "cluster"
"""The folder of the profiles that ``--cluster`` knows by name."""

LOCAL = "local"
"""The profile of this machine, taken when none is named and there is no SLURM."""

SLURM = "slurm"
"""The profile taken when none is named and ``sbatch`` is there."""

Processes = Annotated[int, Field(ge=1, le=64)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[^\s]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class LocalTrain(Section):
    """Training on this machine."""

    processes: Processes | None = None
    """Processes that train together; null for one a GPU, or one where there is no GPU."""


class LocalTest(Section):
    """Testing on this machine."""

    __test__ = False  # not a pytest class

    processes: Processes = 1
    """Processes that test each checkpoint together."""


class LocalProfile(Section):
    """This machine: the stages run one after another."""

    backend: Literal["local"]
    """What runs the stages."""
    train: LocalTrain = LocalTrain()
    """Training on this machine."""
    test: LocalTest = LocalTest()
    """Testing on this machine."""


class Resources(Section):
    """What one stage asks SLURM for. What is null is left to the site's defaults."""

    partition: Name | None = None
    """Partition, or several with commas."""
    account: Name | None = None
    """Account that is charged."""
    qos: Name | None = None
    """Quality of service."""
    constraint: Name | None = None
    """Features the nodes must have, as in "a100|h100"."""
    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Nodes."""
    processes_per_node: Annotated[int, Field(ge=1, le=256)] = 1
    """Processes on each node; one a GPU when there are GPUs."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 0
    """GPUs on each node; 0 for a stage on the CPU."""
    cpus_per_process: Annotated[int, Field(ge=1, le=1024)] = 2
    """Cores of each process."""
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of each node, in GiB."""
    time_min: Annotated[int, Field(ge=1)] = 60
    """Time limit of one attempt, in minutes; a job that reaches it is queued again."""
    setup: list[str] = Field(default_factory=list)
    """Shell lines before the stage, as in "module load cuda"."""
    sbatch: dict[Name, str | int | bool] = Field(default_factory=dict)
    """Any other option of sbatch without its dashes, as in {reservation: course}."""

    @field_validator("sbatch")
    @classmethod
    def _not_ours(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for key in value:
            if key.replace("_", "-").lstrip("-") in _OWN_OPTIONS:
                raise ValueError(
                    f'"{key}" is set by this software; the other keys of a stage say it, or '
                    f"nothing may: {', '.join(sorted(_OWN_OPTIONS))}"
                )
        return value


_SAID_BY_KEYS = {"partition", "account", "qos", "constraint", "nodes", "gpus-per-node", "mem"}
_OWN_OPTIONS = _SAID_BY_KEYS | {"array", "cpus-per-task", "dependency", "error", "export", "time"}
_OWN_OPTIONS |= {"job-name", "kill-on-invalid-dep", "ntasks", "ntasks-per-node", "open-mode"}
_OWN_OPTIONS |= {"output", "requeue", "no-requeue", "signal", "wckey", "wrap"}


class TestResources(Resources):
    """What testing asks SLURM for."""

    __test__ = False  # not a pytest class

    array: Annotated[int, Field(ge=1, le=1000)] = 1
    """Jobs that share the checkpoints among them; 1 for a single job."""


class Container(Section):
    """An image that the stages run inside."""

    runtime: Literal["pyxis", "apptainer"]
    """pyxis (srun --container-image) or apptainer (apptainer exec)."""
    image: Annotated[str, Field(min_length=1)]
    """The image, as the runtime names it: a .sqsh or .sif file, or a registry's name."""
    mounts: list[str] = Field(default_factory=list)
    """Folders to mount, as host:container; the run, shards and dataset folders always are."""
    python: str = "python"
    """The interpreter inside the image."""


class SlurmProfile(Section):
    """A SLURM cluster: each stage is a job, which waits for those before it."""

    backend: Literal["slurm"]
    """What runs the stages."""
    pack: Resources = Resources()
    """Packing, on CPUs of one node."""
    train: Resources = Resources()
    """Training: nodes times processes_per_node processes together."""
    test: TestResources = TestResources()
    """Testing every epoch's checkpoint."""
    report: Resources = Resources(cpus_per_process=1, time_min=20)
    """The report, on one core."""
    environment: dict[Variable, str] = Field(default_factory=dict)
    """Variables set for every stage."""
    container: Container | None = None
    """An image that the stages run inside; null for the interpreter that submits."""
    signal_lead_s: Annotated[int, Field(ge=10, le=3600)] = 120
    """Seconds before the time limit at which training is asked to save and go on later."""
    watchdog_min: Annotated[float, Field(gt=0)] = 30.0
    """Minutes without a training step after which the stacks are logged and the job starts anew."""
    starts_without_progress: Annotated[int, Field(ge=1, le=100)] = 3
    """Starts in a row that may end without a step of progress before the stage has failed."""


Profile = LocalProfile | SlurmProfile


def default_profile() -> str:
    """The profile that is taken when none is named: ``slurm`` where there is a SLURM."""
    return SLURM if shutil.which("sbatch") else LOCAL


def load_profile(name: str) -> Profile:
    """The profile of that name, or of that file when ``name`` ends in ``.yaml``.

    Raises:
        ConfigError: there is no such profile, or it does not fit the schema.
    """
    path = Path(name) if name.endswith(".yaml") else PROFILES / f"{name}.yaml"
    if path.parent == PROFILES and not path.is_file():
        names = sorted(found.stem for found in PROFILES.glob("*.yaml"))
        near = get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        raise ConfigError(
            f'--cluster "{name}" is unknown{hint}; there are: {", ".join(names)}; '
            f"or give the path of a profile that ends in .yaml"
        )
    values = read_mapping(path)
    schema: type[LocalProfile | SlurmProfile]
    if values.get("backend") == "local":
        schema = LocalProfile
    elif values.get("backend") == "slurm":
        schema = SlurmProfile
    else:
        raise ConfigError(
            f"{path}: backend: {values.get('backend')!r} is unknown; allowed: local, slurm"
        )
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, schema)}") from None
