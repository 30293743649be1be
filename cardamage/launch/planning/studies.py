"""What sweeps, searches and studies ask for: their runs, and the report that compares them."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cardamage.config.experiment import Experiment
from cardamage.config.search import SearchSettings
from cardamage.config.study import expand
from cardamage.errors import ConfigError, RunError
from cardamage.launch.planning.graph import RunPlan, StudyPlan
from cardamage.runs.directory import as_tested, check_same_run, resolve
from cardamage.runs.missing import missing_stages
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import Comparison, StudyRecord, is_study, read_study
from cardamage.search.decide import advance
from cardamage.search.record import (
    SearchRecord,
    read_search,
    taken_up,
    trial_name,
    trial_run,
)
from cardamage.system.files import sha256_of

_Members = list[tuple[Experiment, RunPaths]]
_FoundSearch = tuple[StudyPaths, StudyRecord, _Members, SearchRecord]
FoundStudy = tuple[StudyPaths, StudyRecord, _Members, SearchRecord | None]
"""A study as its file or folder tells of it: where it is, its record, its runs, its search."""


def study_of_file(
    path: Path,
    values: Mapping[str, Any],
    overrides: Sequence[str],
    runs_dir: Path,
    given_up: Collection[RunPaths],
) -> FoundStudy:
    """What a file asks for; of a search all that its results decide.

    Raises:
        ConfigError: the file, an override or an experiment is wrong.
        RunError: a folder of that name holds something else.
    """
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


def study_again(
    folder: StudyPaths, overrides: Sequence[str], given_up: Collection[RunPaths]
) -> FoundStudy:
    """What a study's folder asks for: its runs as they are there.

    Raises:
        ConfigError: overrides are laid over a search, or are wrong.
        RunError: a run is gone.
    """
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


def plan_study(
    folder: StudyPaths,
    record: StudyRecord,
    members: Sequence[tuple[Experiment, RunPaths]],
    stages: Sequence[str],
) -> StudyPlan:
    """The stages that are missing of each run of a study, and the comparison if it is."""
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


def plan_search(
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
