"""From configs to a graph of stages: what would run, in which order, wherever it runs."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cardamage.config import loading
from cardamage.config.yaml12 import read_mapping
from cardamage.errors import ConfigError, RunError, did_you_mean
from cardamage.launch.planning.graph import Plan, RunPlan, StudyPlan
from cardamage.launch.planning.studies import plan_search, plan_study, study_again, study_of_file
from cardamage.runs.continued import has_begun, source_run
from cardamage.runs.directory import resolve
from cardamage.runs.missing import missing_stages
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.study import is_study


def choose_stages(names: str | None) -> tuple[str, ...]:
    """The stages of a comma-separated list, in the order in which they run; all for None."""
    if names is None:
        return STAGES
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in STAGES:
            hint = did_you_mean(name, STAGES)
            raise ConfigError(f'--stages: "{name}" is unknown{hint}; allowed: {", ".join(STAGES)}')
    if not chosen:
        raise ConfigError(f"--stages names no stage; allowed: {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in chosen)


def make_plan(
    configs: Sequence[Path],
    overrides: Sequence[str],
    runs_dir: Path,
    stages: Sequence[str],
    given_up: Collection[RunPaths] = (),
) -> Plan:
    """What configs ask for, every one of them valid; writes nothing.

    A run of its own gets all of ``stages``, each of which does only what is missing, unless that is
    nothing. The runs of a study get those that are missing.

    Args:
        configs: YAML files of experiments, sweeps or studies, or directories of runs or studies.
        overrides: ``dotted.key=value``, laid over each of them.
        stages: which to run, in order.
        given_up: trials of searches that are not started again.

    Raises:
        ConfigError: a config is wrong, or two of them are the same run.
        RunError: a run directory belongs to another config.
    """
    claimed: dict[Path, Path] = {}
    plans: list[RunPlan] = []
    studies: list[StudyPlan] = []
    for path in configs:
        if path.is_dir() and is_study(path):
            found = study_again(StudyPaths(path), overrides, given_up)
        elif not path.is_dir() and loading.is_study(values := read_mapping(path)):
            found = study_of_file(path, values, overrides, runs_dir, given_up)
        else:
            experiment, run = resolve(path, overrides, runs_dir)
            _claim(claimed, run, path)
            is_complete = set(stages).isdisjoint(missing_stages(run, experiment))
            plans.append(RunPlan(experiment, run, () if is_complete else tuple(stages)))
            continue
        folder, record, members, search = found
        for run in (folder, *(run for _, run in members)):
            _claim(claimed, run, path)
        if search:
            studies.append(plan_search((folder, record, members, search), stages, given_up))
        else:
            studies.append(plan_study(folder, record, members, stages))
        plans += studies[-1].plans
    continues = _continues(plans)
    plans = _sources_first(plans, continues)
    return Plan(
        plans=tuple(plan for plan in plans if plan.stages),
        complete=tuple(plan for plan in plans if not plan.stages),
        studies=tuple(studies),
        packed_by=_packed_by(plans),
        continues=continues,
    )


def _packed_by(plans: Sequence[RunPlan]) -> dict[RunPaths, RunPaths]:
    first: dict[str, RunPaths] = {}
    packed_by: dict[RunPaths, RunPaths] = {}
    for plan in plans:
        if "pack" in plan.stages:
            key = json.dumps(plan.experiment.data.packing(), sort_keys=True)
            if (packs := first.setdefault(key, plan.run)) != plan.run:
                packed_by[plan.run] = packs
    return packed_by


def _continues(plans: Sequence[RunPlan]) -> dict[RunPaths, RunPaths]:
    """For each run that continues one which is trained in the same submission, that one."""
    by_root = {plan.run.root.resolve(): plan for plan in plans if "train" in plan.stages}
    found = {}
    for plan in plans:
        continued = plan.experiment.continue_from
        if continued and "train" in plan.stages and not has_begun(plan.run):
            source = by_root.get(source_run(plan.run, continued).root.resolve())
            if source:
                found[plan.run] = source.run
    return found


def _sources_first(
    plans: Sequence[RunPlan], continues: Mapping[RunPaths, RunPaths]
) -> list[RunPlan]:
    """The runs in their order, but each after the one that it continues; circles are refused."""
    by_run = {plan.run: plan for plan in plans}
    ordered: dict[RunPaths, RunPlan] = {}
    for plan in plans:
        chain = [plan.run]
        while (source := continues.get(chain[-1])) and source not in ordered:
            if source in chain:
                names = " continues ".join(run.root.name for run in (*chain, source))
                raise ConfigError(f"{names}, so none can be first; change a continue_from.run")
            chain.append(source)
        ordered.update((run, by_run[run]) for run in reversed(chain) if run not in ordered)
    return list(ordered.values())


def _claim(claimed: dict[Path, Path], run: RunPaths, path: Path) -> None:
    """Refuse the second of two configs that want the same folder."""
    first = claimed.setdefault(run.root.resolve(), path)
    if first is not path:
        raise ConfigError(
            f"{first} and {path} are both the run {run.root}; give one of them another name"
        )
    if is_study(run.root) and not isinstance(run, StudyPaths):
        raise RunError(
            f"{run.root} is the folder of a study; choose another name for the run of {path}"
        )
