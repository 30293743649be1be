"""From configs to a graph of stages: what would run, in which order, wherever it runs."""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardamage.config import loading
from cardamage.config.experiment import Experiment
from cardamage.config.search import SearchSettings
from cardamage.config.study import expand
from cardamage.config.yaml12 import read_mapping
from cardamage.errors import ConfigError, RunError, counted, did_you_mean, ranges
from cardamage.runs.continued import has_begun, source_run
from cardamage.runs.directory import as_tested, check_same_run, resolve
from cardamage.runs.missing import lost_epochs, missing_stages
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import Comparison, StudyRecord, is_study, read_study
from cardamage.search.decide import advance
from cardamage.search.record import (
    SearchRecord,
    read_search,
    rounds_of,
    taken_up,
    trial_name,
    trial_run,
)
from cardamage.system.files import sha256_of


@dataclass(frozen=True)
class RunPlan:
    """One experiment and the stages that are to run for it, in order; none when it is complete."""

    experiment: Experiment
    run: RunPaths
    stages: tuple[str, ...]

    def needs(self, stage: str) -> tuple[str, ...]:
        """The stage of the same run that has to be done first; a comparison has none."""
        return () if isinstance(self.run, StudyPaths) else STAGES[: STAGES.index(stage)][-1:]


@dataclass(frozen=True)
class StudyPlan:
    """A study or sweep: its runs, complete ones too, and the report that compares them in the end.

    ``comparison`` is None when it is done already, or not wanted. Of a search the runs are those of
    its present round and all that are trained to their end.
    """

    study: StudyPaths
    record: StudyRecord
    plans: tuple[RunPlan, ...]
    comparison: RunPlan | None
    search: SearchRecord | None = None

    def __str__(self) -> str:
        """One line: how many of its runs have something to do."""
        missing = [plan.experiment.name for plan in self.plans if plan.stages]
        if self.search and (missing or self.search.goes_on()):
            present, of = self.search.present(), len(rounds_of(self.search.settings))
            trials = counted(len(self.search.rounds[-1]), "trial")
            words = f"round {present.number} of {of}: {trials} to epoch {present.last_epoch}"
            return f"{self.record.name}: {words}; to do: {listed(missing) or 'the choice'}"
        runs = len(self.plans)
        if self.search:
            page = read_stage(self.study, "report").output.get("page", "nothing is missing")
            trials = counted(len(self.record.runs), "trial")
            end = "its comparison is missing" if self.comparison else page
            return f"{self.record.name}: the search of {trials} is over; {end}"
        if len(missing) == runs:
            return f"{self.record.name}: {runs} runs"
        if missing:
            done, to_do = runs - len(missing), listed(missing)
            return f"{self.record.name}: {done} of {runs} runs are complete; to do: {to_do}"
        if self.comparison:
            return f"{self.record.name}: all {runs} runs are complete; their comparison is missing"
        page = read_stage(self.study, "report").output.get("page", "nothing is missing")
        return f"{self.record.name}: all {runs} runs are complete; {page}"


_Members = list[tuple[Experiment, RunPaths]]
_FoundSearch = tuple[StudyPaths, StudyRecord, _Members, SearchRecord]
_FoundStudy = tuple[StudyPaths, StudyRecord, _Members, SearchRecord | None]

Node = tuple[RunPaths, str]
"""A job of a submission: the run whose marker says how it ended, and the stage."""


@dataclass(frozen=True)
class Plan:
    """The graph of everything that is submitted at once.

    Attributes:
        plans: the runs that have something to do, in order.
        complete: the runs of which nothing is missing.
        packed_by: for runs that share the packed dataset of others, the first of them.
        continues: for runs whose training begins with the weights of another one here, that one.
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

    def nothing_to_do(self) -> Iterator[str]:
        """A line for each run that was asked for by itself and is complete, and its losses."""
        of_studies = {each.run for study in self.studies for each in study.plans}
        for each in self.complete:
            if each.run not in of_studies:
                page = read_stage(each.run, "report").output.get("page")
                yield f"{each.experiment.name}: nothing to do: {page or f'{each.run.root} is done'}"
            if lost := lost_epochs(each.run, each.experiment):
                yield (
                    f"{each.experiment.name}: the checkpoint of epoch {ranges(lost)} is gone and "
                    f"cannot be made again; scores that it was tested with stay"
                )

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
                tested = (p.run for p in self.plans if "test" in p.stages and p.run in runs)
                return tuple((run, "test") for run in tested)
        needs = [(plan.run, upstream) for upstream in plan.needs(stage) if upstream in plan.stages]
        if stage == "pack" and (first := self.packed_by.get(plan.run)):
            needs.append((first, "pack"))
        if stage == "train" and (source := self.continues.get(plan.run)):
            needs.append((source, "train"))
        return tuple(needs)


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names with commas; of more than ``most`` some, and how many there are."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])}, ... and {names[-1]}, {len(names)} in all"


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
            found = _study_again(StudyPaths(path), overrides, given_up)
        elif not path.is_dir() and loading.is_study(values := read_mapping(path)):
            found = _study_of_file(path, values, overrides, runs_dir, given_up)
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
            studies.append(_plan_search((folder, record, members, search), stages, given_up))
        else:
            studies.append(_plan_study(folder, record, members, stages))
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


def _study_of_file(
    path: Path,
    values: Mapping[str, Any],
    overrides: Sequence[str],
    runs_dir: Path,
    given_up: Collection[RunPaths],
) -> _FoundStudy:
    folder = StudyPaths(runs_dir / str(values.get("name")))
    before = read_study(folder).runs if is_study(folder.root) else ()
    found = expand(path, values, overrides, unprefixed=before)
    if found.search:
        return _search(folder, str(path.absolute()), found.search, given_up)
    record = StudyRecord(
        name=found.name,
        source=str(path.absolute()),
        runs=tuple(experiment.name for experiment in found.experiments),
        compare=tuple(Comparison(name, runs) for name, runs in found.compare.items()),
    )
    if folder.config.is_file():
        raise RunError(f"{folder.root} is a run; choose another name for the study in {path}")
    if folder.search.is_file():
        raise RunError(f"{folder.root} is a search; choose another name for the study in {path}")
    members = [(each, folder.beside(each.name)) for each in found.experiments]
    for experiment, run in members:
        check_same_run(run, experiment)
    return folder, record, members, None


def _study_again(
    folder: StudyPaths, overrides: Sequence[str], given_up: Collection[RunPaths]
) -> _FoundStudy:
    record = read_study(folder)
    if search := read_search(folder):
        if overrides:
            raise ConfigError(
                f"{overrides[0]} cannot be laid over {folder.root}, whose trials have begun; "
                f"leave it out, or submit {record.source} under another name"
            )
        return _search(folder, record.source, search.settings, given_up)
    runs = [folder.beside(name) for name in record.runs]
    for run in runs:
        if not run.config.is_file():
            raise RunError(f"{run.root}, a run of {folder.root}, is gone; submit {record.source}")
    return folder, record, [resolve(run.root, overrides) for run in runs], None


def _search(
    folder: StudyPaths, source: str, settings: SearchSettings, given_up: Collection[RunPaths]
) -> _FoundSearch:
    """A search with all that its results decide: the trials that are at work or in the end are."""
    if folder.config.is_file():
        raise RunError(f"{folder.root} is a run; choose another name for the search in {source}")
    search = advance(folder, taken_up(folder, settings), given_up)
    names = [trial_name(folder, trial) for trial in range(len(search.values))]
    members = []
    for trial in sorted({*search.rounds[-1], *search.finalists()}):
        experiment = settings.experiment(names[trial], search.values[trial])
        members.append((experiment, trial_run(folder, trial)))
        check_same_run(members[-1][1], experiment)
    return folder, StudyRecord(folder.root.resolve().name, source, tuple(names)), members, search


def _plan_study(
    folder: StudyPaths,
    record: StudyRecord,
    members: Sequence[tuple[Experiment, RunPaths]],
    stages: Sequence[str],
) -> StudyPlan:
    plans = []
    for experiment, run in members:
        missing = missing_stages(run, experiment)
        plans.append(RunPlan(experiment, run, tuple(s for s in stages if s in missing)))
    comparison = None
    is_wanted = "report" in stages and len(plans) > 1
    if is_wanted and (any(p.stages for p in plans) or not _is_compared(folder, record, plans)):
        comparison = _comparison(folder, record, plans)
    return StudyPlan(folder, record, tuple(plans), comparison)


def _comparison(folder: StudyPaths, record: StudyRecord, plans: Sequence[RunPlan]) -> RunPlan:
    # The experiment is there for what is shown while it runs: the study's name.
    shown = plans[0].experiment.model_copy(update={"name": record.name})
    return RunPlan(shown, folder, ("report",))


def _plan_search(
    found: _FoundSearch, stages: Sequence[str], given_up: Collection[RunPaths]
) -> StudyPlan:
    """The runs of the present round, which train up to its rung, and those that end in a report."""
    if set(stages) != set(STAGES):
        raise ConfigError(f"--stages {','.join(stages)}: a search runs all stages; leave it out")
    folder, record, members, search = found
    finalists = [trial_run(folder, trial) for trial in search.finalists()]
    plans = []
    for experiment, run in members:
        until = experiment.train.epochs if run in finalists else search.present().last_epoch
        missing = missing_stages(run, experiment, until)
        wanted = STAGES if run in finalists else STAGES[:2]
        todo = (s for s in stages if s in missing and s in wanted and run not in given_up)
        plans.append(RunPlan(experiment, run, tuple(todo)))
    ended = [plan for plan in plans if plan.run in finalists and plan.run not in given_up]
    is_to_do = search.goes_on() or any(p.stages for p in plans)
    comparison = None
    if is_to_do or not _is_compared(folder, record, ended):
        comparison = _comparison(folder, record, plans)
    return StudyPlan(folder, record, tuple(plans), comparison, search)


def _is_compared(folder: StudyPaths, record: StudyRecord, plans: Sequence[RunPlan]) -> bool:
    """Whether the comparison is there, of these very runs and of their tests as they are now."""
    report = read_stage(folder, "report")
    tables = {
        plan.experiment.name: plan.run.test_table(as_tested(plan.run, plan.experiment).test.split)
        for plan in plans
    }
    return (
        report.state == "done"
        and read_study(folder) == record
        and all(table.is_file() for table in tables.values())
        and report.output.get("tested") == {name: sha256_of(t) for name, t in tables.items()}
    )
