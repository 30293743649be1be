"""From configs to a graph of stages: what would run, in which order, with which arguments.

Nothing here knows where the stages will run: that is the backends' business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardamage import config
from cardamage.config import Experiment
from cardamage.continuation import has_begun, source_run
from cardamage.errors import ConfigError, RunError, did_you_mean
from cardamage.files import sha256_of
from cardamage.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs import check_same_run, resolve
from cardamage.stages import read_stage
from cardamage.studies import Comparison, StudyRecord, is_study, read_study
from cardamage.yaml12 import read_mapping
from launch.standing import missing_stages
from launch.study import Study, expand

JOBS = Path(__file__).resolve().parents[1] / "jobs"
"""The folder of the programs that the stages run."""


@dataclass(frozen=True)
class StageJob:
    """One stage of one run.

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
    """One experiment and the stages that are to run for it, in an order that respects ``needs``.

    There are no jobs when nothing of it is missing.
    """

    experiment: Experiment
    run: RunPaths
    jobs: tuple[StageJob, ...]

    def has(self, stage: str) -> bool:
        """Whether a stage is to run."""
        return any(job.stage == stage for job in self.jobs)


@dataclass(frozen=True)
class StudyPlan:
    """A study or sweep: its runs, and the report that compares them in the end.

    Attributes:
        study: its folder.
        record: what ``study.json`` will say.
        plans: one for each of its runs, those that are complete included.
        comparison: the job that compares them, its marker in the study's folder; None when it is
            done already, or not wanted.
    """

    study: StudyPaths
    record: StudyRecord
    plans: tuple[RunPlan, ...]
    comparison: RunPlan | None

    def __str__(self) -> str:
        """One line: how many of its runs have something to do."""
        missing = [plan.experiment.name for plan in self.plans if plan.jobs]
        runs = len(self.plans)
        if len(missing) == runs:
            return f"{self.record.name}: {runs} runs"
        if missing:
            named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            done = runs - len(missing)
            return f"{self.record.name}: {done} of {runs} runs are complete; to do: {named}"
        if self.comparison:
            return f"{self.record.name}: all {runs} runs are complete; their comparison is missing"
        page = read_stage(self.study, "report").output.get("page", "nothing is missing")
        return f"{self.record.name}: all {runs} runs are complete; {page}"


Node = tuple[RunPaths, str]
"""A job of a submission: the run whose marker says how it ended, and the stage."""


@dataclass(frozen=True)
class Plan:
    """The graph of everything that is submitted at once.

    Attributes:
        plans: the runs that have something to do, in order.
        complete: the runs of studies of which nothing is missing.
        studies: the studies and sweeps among the configs.
        packed_by: for each run that shares its packed dataset with runs before it, the first of
            them, which really packs.
        continues: for each run whose training begins with the weights of a run that is trained in
            the same submission, that run.
    """

    plans: tuple[RunPlan, ...]
    complete: tuple[RunPlan, ...]
    studies: tuple[StudyPlan, ...]
    packed_by: Mapping[RunPaths, RunPaths]
    continues: Mapping[RunPaths, RunPaths] = field(default_factory=dict)

    @property
    def comparisons(self) -> tuple[RunPlan, ...]:
        """The last jobs: the comparison of each study that has one to make."""
        return tuple(study.comparison for study in self.studies if study.comparison)

    def packed_together(self) -> dict[RunPaths, tuple[RunPaths, ...]]:
        """For each run that packs for others too, those others."""
        found: dict[RunPaths, tuple[RunPaths, ...]] = {}
        for run, first in self.packed_by.items():
            found[first] = (*found.get(first, ()), run)
        return found

    def needs(self, plan: RunPlan, stage: str) -> tuple[Node, ...]:
        """The jobs of this submission that have to be done before one of its jobs begins."""
        for study in self.studies:
            if study.comparison is plan:
                runs = {member.run for member in study.plans}
                tested = (p.run for p in self.plans if p.has("test") and p.run in runs)
                return tuple((run, "test") for run in tested)
        job = next(job for job in plan.jobs if job.stage == stage)
        needs = [(plan.run, upstream) for upstream in job.needs if plan.has(upstream)]
        if stage == "pack" and (first := self.packed_by.get(plan.run)):
            needs.append((first, "pack"))
        if stage == "train" and (source := self.continues.get(plan.run)):
            needs.append((source, "train"))
        return tuple(needs)


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
            hint = did_you_mean(name, STAGES)
            raise ConfigError(f'--stages: "{name}" is unknown{hint}; allowed: {", ".join(STAGES)}')
    if not chosen:
        raise ConfigError(f"--stages names no stage; allowed: {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in chosen)


def make_plans(
    configs: Sequence[Path], overrides: Sequence[str], runs_dir: Path, stages: Sequence[str]
) -> list[RunPlan]:
    """The runs of :func:`make_plan` that have something to do, in order."""
    return list(make_plan(configs, overrides, runs_dir, stages).plans)


def make_plan(
    configs: Sequence[Path], overrides: Sequence[str], runs_dir: Path, stages: Sequence[str]
) -> Plan:
    """What configs ask for, every one of them valid; writes nothing.

    A run of its own gets all of ``stages``, each of which does only what is missing. The runs of a
    study get those that are missing.

    Args:
        configs: YAML files of experiments, sweeps or studies, or directories of runs or studies.
        overrides: ``dotted.key=value``, laid over each of them.
        runs_dir: the parent of the run directories.
        stages: which stages to run, in order.

    Raises:
        ConfigError: a config is wrong, or two of them are the same run.
        RunError: a run directory belongs to another config.
    """
    claim = _claims()
    plans: list[RunPlan] = []
    studies: list[StudyPlan] = []
    for path in configs:
        study = None
        if path.is_dir() and is_study(path):
            study = _study_again(StudyPaths(path), overrides)
        elif not path.is_dir() and config.is_study(values := read_mapping(path)):
            study = _study_of_file(path, values, overrides, runs_dir)
        if study:
            for run in (study.folder, *(run for _, run in study.members)):
                claim(run, path)
            studies.append(_plan_study(study, stages))
            plans += studies[-1].plans
        else:
            experiment, run = resolve(path, overrides, runs_dir)
            claim(run, path)
            plans.append(RunPlan(experiment, run, _jobs(run, stages)))
    continues = _continues(plans)
    plans = _sources_first(plans, continues)
    return Plan(
        plans=tuple(plan for plan in plans if plan.jobs),
        complete=tuple(plan for plan in plans if not plan.jobs),
        studies=tuple(studies),
        packed_by=_packed_by(plans),
        continues=continues,
    )


@dataclass(frozen=True)
class _FoundStudy:
    """A study as its file or its folder describes it."""

    folder: StudyPaths
    record: StudyRecord
    members: tuple[tuple[Experiment, RunPaths], ...]


def _packed_by(plans: Sequence[RunPlan]) -> dict[RunPaths, RunPaths]:
    first: dict[str, RunPaths] = {}
    packed_by: dict[RunPaths, RunPaths] = {}
    for plan in plans:
        if plan.has("pack"):
            key = json.dumps(plan.experiment.data.packing(), sort_keys=True)
            if (packs := first.setdefault(key, plan.run)) != plan.run:
                packed_by[plan.run] = packs
    return packed_by


def _continues(plans: Sequence[RunPlan]) -> dict[RunPaths, RunPaths]:
    """For each run that continues one which is trained in the same submission, that one."""
    by_root = {plan.run.root.resolve(): plan for plan in plans if plan.has("train")}
    found = {}
    for plan in plans:
        continued = plan.experiment.continue_from
        if continued and plan.has("train") and not has_begun(plan.run):
            source = by_root.get(source_run(plan.run, continued).root.resolve())
            if source:
                found[plan.run] = source.run
    return found


def _sources_first(
    plans: Sequence[RunPlan], continues: Mapping[RunPaths, RunPaths]
) -> list[RunPlan]:
    """The runs in their order, but each after the one that it continues.

    Raises:
        ConfigError: runs continue each other in a circle.
    """
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


def _claims() -> Callable[[RunPaths, Path], None]:
    """A function that refuses the second of two configs that want the same folder."""
    claimed: dict[Path, Path] = {}

    def claim(run: RunPaths, path: Path) -> None:
        first = claimed.setdefault(run.root.resolve(), path)
        if first is not path:
            raise ConfigError(
                f"{first} and {path} are both the run {run.root}; give one of them another name"
            )
        if is_study(run.root) and not isinstance(run, StudyPaths):
            raise RunError(
                f"{run.root} is the folder of a study; choose another name for the run of {path}"
            )

    return claim


def _study_of_file(
    path: Path, values: Mapping[str, Any], overrides: Sequence[str], runs_dir: Path
) -> _FoundStudy:
    found: Study = expand(path, values, overrides)
    folder = StudyPaths(runs_dir / found.name)
    record = StudyRecord(
        name=found.name,
        source=str(path.absolute()),
        runs=tuple(experiment.name for experiment in found.experiments),
        compare=tuple(Comparison(name, runs) for name, runs in found.compare.items()),
    )
    if folder.config.is_file():
        raise RunError(f"{folder.root} is a run; choose another name for the study in {path}")
    members = tuple((each, folder.run(each.name)) for each in found.experiments)
    for experiment, run in members:
        check_same_run(run, experiment)
    return _FoundStudy(folder, record, members)


def _study_again(folder: StudyPaths, overrides: Sequence[str]) -> _FoundStudy:
    record = read_study(folder)
    runs = [folder.run(name) for name in record.runs]
    for run in runs:
        if not run.config.is_file():
            raise RunError(f"{run.root}, a run of {folder.root}, is gone; submit {record.source}")
    return _FoundStudy(folder, record, tuple(resolve(run.root, overrides) for run in runs))


def _plan_study(found: _FoundStudy, stages: Sequence[str]) -> StudyPlan:
    plans = []
    for experiment, run in found.members:
        missing = missing_stages(run, experiment)
        jobs = _jobs(run, [stage for stage in stages if stage in missing])
        plans.append(RunPlan(experiment, run, jobs))
    folder, record = found.folder, found.record
    comparison = None
    is_wanted = "report" in stages and len(plans) > 1
    if is_wanted and (any(plan.jobs for plan in plans) or not _is_compared(folder, record, plans)):
        # The experiment is there for what is shown while it runs: the study's name.
        shown = plans[0].experiment.model_copy(update={"name": record.name})
        script = (str(JOBS / "report.py"), str(folder.root))
        comparison = RunPlan(shown, folder, (StageJob("report", script, needs=()),))
    return StudyPlan(folder, record, tuple(plans), comparison)


def _is_compared(folder: StudyPaths, record: StudyRecord, plans: Sequence[RunPlan]) -> bool:
    """Whether the comparison is there, of these very runs and of their tests as they are now."""
    report = read_stage(folder, "report")
    tables = {
        plan.experiment.name: plan.run.test_table(plan.experiment.test.split) for plan in plans
    }
    return (
        report.state == "done"
        and read_study(folder) == record
        and all(table.is_file() for table in tables.values())
        and report.output.get("tested") == {name: sha256_of(t) for name, t in tables.items()}
    )


def _jobs(run: RunPaths, stages: Sequence[str]) -> tuple[StageJob, ...]:
    return tuple(
        StageJob(
            stage,
            script=(str(JOBS / f"{stage}.py"), str(run.root)),
            needs=STAGES[: STAGES.index(stage)][-1:],
        )
        for stage in stages
    )
