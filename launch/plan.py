"""From configs to a graph of stages: what would run, in which order, with which arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from cardamage.config import Experiment
from cardamage.errors import ConfigError
from cardamage.paths import STAGES, RunPaths
from cardamage.runs import resolve

JOBS = Path(__file__).resolve().parents[1] / "jobs"
"""The folder of the programs that the stages run."""


@dataclass(frozen=True)
class StageJob:
    """One stage of one run: a node of the graph.

    Attributes:
        stage: its name.
        script: the program and its arguments; a backend puts the interpreter before it.
        needs: the stages of the same run that have to be done first.
    """

    stage: str
    script: tuple[str, ...]
    needs: tuple[str, ...]


@dataclass(frozen=True)
class RunPlan:
    """One experiment and the stages that are to run for it, in an order that respects ``needs``."""

    experiment: Experiment
    run: RunPaths
    jobs: tuple[StageJob, ...]


def choose_stages(names: str | None) -> tuple[str, ...]:
    """The stages of a comma-separated list, in the order in which they run; all for None.

    Raises:
        ConfigError: a name is none of the stages, or the list is empty.
    """
    if names is None:
        return STAGES
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in STAGES:
            near = get_close_matches(name, STAGES, n=1, cutoff=0.5)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            raise ConfigError(f'--stages: "{name}" is unknown{hint}; allowed: {", ".join(STAGES)}')
    if not chosen:
        raise ConfigError(f"--stages names no stage; allowed: {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in chosen)


def make_plans(
    configs: Sequence[Path], overrides: Sequence[str], runs_dir: Path, stages: Sequence[str]
) -> list[RunPlan]:
    """The plan of each config, every one of them valid; writes nothing.

    Args:
        configs: YAML files or run directories.
        overrides: ``dotted.key=value``, laid over each of them.
        runs_dir: the parent of the run directories.
        stages: which stages to run, in order.

    Raises:
        ConfigError: a config is wrong, or two of them are the same run.
        RunError: a run directory belongs to another config.
    """
    plans: list[RunPlan] = []
    claimed: dict[Path, Path] = {}
    for path in configs:
        experiment, run = resolve(path, overrides, runs_dir)
        if first := claimed.get(run.root.resolve()):
            raise ConfigError(
                f"{first} and {path} are both the run {run.root}; give one of them another name"
            )
        claimed[run.root.resolve()] = path
        jobs = [
            StageJob(
                stage,
                script=(str(JOBS / f"{stage}.py"), str(run.root)),
                needs=STAGES[: STAGES.index(stage)][-1:],
            )
            for stage in stages
        ]
        plans.append(RunPlan(experiment, run, tuple(jobs)))
    return plans
