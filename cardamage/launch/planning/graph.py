"""The graph of stages of a submission: runs, studies, and what waits for what."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cardamage.config.experiment import Experiment
from cardamage.errors import counted, ranges
from cardamage.runs.missing import lost_epochs
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import StudyRecord
from cardamage.search.record import SearchRecord, rounds_of


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
