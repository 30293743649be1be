"""Where a run may go: the cluster profiles ``configs/cluster/*.yaml``, and their schema."""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from cardamage.config.complaints import explain
from cardamage.config.recipe import Section
from cardamage.config.shipped import PROFILES
from cardamage.config.yaml12 import read_mapping
from cardamage.errors import CardamageError, ConfigError, did_you_mean
from cardamage.launch.watching.queue import ping
from cardamage.runs.paths import STAGES

COLLECTIVES_END_AFTER_MINUTES = 30
"""How long training processes wait for each other, see ``training.distributed``."""

Processes = Annotated[int, Field(ge=1, le=64)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[^\s]+$")]
GpusOfType = Annotated[str, Field(pattern=r"^[\w.-]+:[1-9]\d?$")]
Line = Annotated[str, Field(min_length=1, pattern=r"^[^\n]+$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class LocalTrain(Section):
    """Training on this machine."""

    processes: Processes | None = None
    """Processes that train together; null for one a GPU, or one where there is no GPU."""


class LocalTest(Section):
    """Testing on this machine."""

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


class SlurmStage(Section):
    """What one stage asks SLURM for. What is null is left to the site's defaults."""

    partition: Name | None = None
    """Partition, or several with commas."""
    account: Name | None = None
    """Account that is charged."""
    qos: Name | None = None
    """Quality of service."""
    constraint: Name | None = None
    """Features the nodes must have, as in "a100|h100"."""
    exclude: Name | None = None
    """Nodes to stay away from, as in "gpu[03-05]"."""
    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Nodes."""
    tasks_per_node: Annotated[int, Field(ge=1, le=256)] | None = None
    """Processes on each node; null for one a GPU, or one where no GPU is asked for."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] | GpusOfType = 0
    """GPUs on each node, or with their type, as in "a100:2"; 0 for a stage on the CPU."""
    cpus_per_task: Annotated[int, Field(ge=1, le=1024)] = 2
    """Cores of each process."""
    mem_gb: Annotated[float, Field(gt=0)] | None = None
    """Memory of each node, in GiB."""
    time_minutes: Annotated[int, Field(ge=1)] = 60
    """Time limit of one attempt, in minutes; a job that reaches it is queued again."""
    setup: list[Line] = Field(default_factory=list)
    """Shell lines before the stage, after those of the profile, as in "module load cuda"."""
    side_by_side: Annotated[int, Field(ge=1, le=64)] = 1
    """Runs of a sweep that one job does at once, on the same cores and GPUs; for small runs."""
    extra: dict[Name, str | int | bool] = Field(default_factory=dict)
    """Any other option of sbatch without its dashes, as in {reservation: course}."""

    @property
    def gpus(self) -> int:
        """GPUs on each node, also where ``extra`` asks for them by ``gres`` or ``gpus``."""
        if self.gpus_per_node:
            return _last_number(str(self.gpus_per_node))
        if total := self.extra.get("gpus"):
            return -(-_last_number(str(total)) // self.nodes)
        options = str(self.extra.get("gres", "")).split(",")
        return sum(_last_number(option) for option in options if re.match(r"gpu\b", option))

    @property
    def tasks(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or self.gpus or 1

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for key in value:
            option = key.replace("_", "-").lstrip("-")
            if said := _SAID_BY_KEYS.get(option):
                raise ValueError(f'"{key}" is the key {said} of the stage; set that')
            if option in _OWN_OPTIONS:
                raise ValueError(
                    f'"{key}" is set by the launcher; not allowed here: '
                    f"{', '.join(sorted(_OWN_OPTIONS))}"
                )
        return {key.replace("_", "-").lstrip("-"): given for key, given in value.items()}


def _last_number(text: str) -> int:
    """The count in ``2``, ``a100:2`` or ``gpu:a100``, which is one."""
    count = text.rpartition(":")[2].partition("(")[0]
    return int(count) if count.isdecimal() else 1


_SAID_BY_KEYS = {name.replace("_", "-"): name for name in SlurmStage.model_fields} | {
    "ntasks-per-node": "tasks_per_node",
    "mem": "mem_gb",
    "time": "time_minutes",
}
_OWN_OPTIONS = {
    *("array", "chdir", "dependency", "error", "export", "input", "job-name", "ntasks", "output"),
    *(
        "het-group",
        "hetjob",
        "kill-on-invalid-dep",
        "no-requeue",
        "open-mode",
        "parsable",
        "requeue",
        "signal",
        "wait",
    ),
    *("wckey", "wrap"),
}


class SlurmTest(SlurmStage):
    """What testing asks SLURM for."""

    jobs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Jobs that share the checkpoints among them; 1 for a single job."""


class Container(Section):
    """An image that the stages run inside."""

    runtime: Literal["pyxis", "apptainer"]
    """pyxis (srun --container-image) or apptainer (apptainer exec)."""
    image: Annotated[str, Field(min_length=1)]
    """The image, as the runtime names it: a .sqsh or .sif file, or a registry's name."""
    mounts: list[Line] = Field(default_factory=list)
    """Folders to mount, as host:container; those of the runs and the submission always are."""
    options: list[Line] = Field(default_factory=list)
    """More options of the runtime, as in "--nv"."""
    python: Line = "python"
    """The interpreter inside the image."""


class SlurmProfile(Section):
    """A SLURM cluster: each stage is a job, which waits for those before it."""

    backend: Literal["slurm"]
    """What runs the stages."""
    all_stages: SlurmStage = SlurmStage()
    """Keys that every stage has unless it says otherwise, such as the account."""
    pack: SlurmStage = SlurmStage()
    """Packing, on CPUs of one node."""
    train: SlurmStage = SlurmStage()
    """Training: all tasks of all nodes together."""
    test: SlurmTest = SlurmTest()
    """Testing every epoch's checkpoint."""
    report: SlurmStage = SlurmStage()
    """The report, on one core."""
    environment: dict[Variable, str] = Field(default_factory=dict)
    """Variables set for every stage."""
    setup: list[Line] = Field(default_factory=list)
    """Shell lines before every stage."""
    container: Container | None = None
    """An image that the stages run inside; null for the interpreter that submits."""
    save_seconds: Annotated[int, Field(ge=10, le=3600)] = 90
    """Seconds before the time limit at which training is asked to save and resume later."""
    watchdog_minutes: Annotated[float, Field(ge=0)] = 20.0
    """Minutes (< 30) without a step until stacks are logged and the job starts again; 0: never."""
    starts_without_progress: Annotated[int, Field(ge=1, le=100)] = 3
    """Starts in a row that may end without progress before the stage has failed."""
    runs_per_job: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Runs of a sweep that one job does in turn; more where a limit on submitted jobs demands."""

    @field_validator("watchdog_minutes")
    @classmethod
    def _is_first(cls, minutes: float) -> float:
        if minutes >= COLLECTIVES_END_AFTER_MINUTES:
            raise ValueError(
                f"{minutes:g} is too long: processes that wait for one that has hung give up after "
                f"{COLLECTIVES_END_AFTER_MINUTES} minutes, and its stacks are never logged; give "
                f"less than that, or 0 for no watchdog"
            )
        return minutes

    @field_validator("pack")
    @classmethod
    def _packs_once(cls, pack: SlurmStage) -> SlurmStage:
        if pack.side_by_side > 1:
            raise ValueError(
                f"side_by_side is {pack.side_by_side}, but runs that pack alike are packed once; "
                f"set it in train, test or report"
            )
        return pack

    @model_validator(mode="before")
    @classmethod
    def _spread(cls, values: Any) -> Any:
        """Lay ``all_stages`` under every stage."""
        if not isinstance(values, dict) or not isinstance(values.get("all_stages"), dict):
            return values
        try:
            SlurmStage.model_validate(values["all_stages"])
        except ValidationError:
            return values  # refused once, under its own key, and not once a stage
        spread = dict(values)
        for stage in STAGES:
            own = values.get(stage) or {}
            common = dict(values["all_stages"])
            if stage == "pack":
                common.pop("side_by_side", None)
            spread[stage] = {**common, **own} if isinstance(own, dict) else own
        return spread


Profile = LocalProfile | SlurmProfile


def choose_profile(named: str | None) -> str:
    """The profile to take.

    That which is named, else that of the environment variable CARDAMAGE_CLUSTER, else ``slurm``
    where a cluster answers, else ``local``.
    """
    if wanted := named or os.environ.get("CARDAMAGE_CLUSTER"):
        return wanted
    if not shutil.which("sbatch"):
        return "local"
    try:
        ping()
    except CardamageError:
        print(
            "note: SLURM's programs are installed, but no cluster answers: running on this "
            "machine; --cluster slurm insists",
            file=sys.stderr,
        )
        return "local"
    return "slurm"


def load_profile(name: str) -> Profile:
    """The profile of that name, or of that file when ``name`` ends in ``.yaml``."""
    path = Path(name) if name.endswith(".yaml") else PROFILES / f"{name}.yaml"
    if path.parent == PROFILES and not path.is_file():
        names = sorted(found.stem for found in PROFILES.glob("*.yaml"))
        raise ConfigError(
            f'--cluster "{name}" is unknown{did_you_mean(name, names)}; there are: '
            f"{', '.join(names)}; or give the path of a profile that ends in .yaml"
        )
    values = read_mapping(path)
    backend = values.get("backend", "local")  # where it is missing, the schema says so
    if backend not in ("local", "slurm"):
        raise ConfigError(
            f"{path}: backend: {json.dumps(backend, default=str)} is unknown; allowed: local, slurm"
        )
    schema = LocalProfile if backend == "local" else SlurmProfile
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, schema)}") from None
