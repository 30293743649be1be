"""A job of SLURM's as plain data: what it works for, what it waits for, where it prints to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cardamage.launch.planning.profiles import SlurmProfile, SlurmStage
from cardamage.runs.paths import RunPaths


@dataclass(frozen=True)
class Work:
    """What a job, or an element of an array, works for.

    Attributes:
        run: the run directory; absolute.
        stage: the stage, which names the marker and the log: ``test.3`` for a part of ``test``.
        program: the command of ``cardamage``, and its arguments after the run as shell text.
        others: more runs that this work is done for; in the shell ``"${others[@]}"``.
        is_slot: ``run`` is a link that a job of a search sets before, to the run of a trial.
    """

    run: Path
    stage: str
    program: tuple[str, ...]
    others: tuple[Path, ...] = ()
    is_slot: bool = False


class Need(NamedTuple):
    """What a job waits for.

    Attributes:
        kind: of the dependency, such as ``afterok``.
        job: the label of a job of this submission, or the id of one that was queued before.
        element: its index in that job, where that is an array and the others do not matter.
    """

    kind: str
    job: str
    element: int | None = None

    def __str__(self) -> str:
        return self.option({}).replace(":", " ")

    def option(self, submitted: Mapping[str, str]) -> str:
        """As sbatch reads it, given the ids of the jobs of this submission by label."""
        job = submitted.get(self.job, self.job)
        return f"{self.kind}:{job}" if self.element is None else f"{self.kind}:{job}_{self.element}"


@dataclass(frozen=True)
class BatchJob:
    """A job, or an array of jobs, to be submitted with one call of ``sbatch``.

    Attributes:
        stage: the stage of the profile that says what is asked for.
        works: what it works for; an array unless one job takes all of them.
        folder: where its script lies, and the links that lead an array to the logs.
        max_running: so many elements of an array may run at once; None for any.
        in_turn: the most works that one element does, one after another.
    """

    name: str
    stage: str
    works: tuple[Work, ...]
    code: Path
    folder: Path
    label: str
    after: tuple[Need, ...] = ()
    max_running: int | None = None
    in_turn: int = 1

    @property
    def script(self) -> Path:
        """The file of the batch script."""
        return self.folder / f"{self.label}.sbatch"

    @property
    def elements(self) -> int:
        """Jobs in the array; 1 for a single job. Element e does works e, e + elements, ..."""
        return -(-len(self.works) // self.in_turn)

    @property
    def takes_turns(self) -> bool:
        """Whether an element does several works."""
        return len(self.works) > self.elements

    @property
    def is_array(self) -> bool:
        """Whether it is an array of jobs."""
        return self.elements > 1

    @property
    def output(self) -> str:
        """Where it prints to, as SLURM's pattern; in an array ``%a`` is the index of an element."""
        first = self.works[0]
        if self.links():
            return f"{_literal(self.folder)}/{self._link}-%a/{first.stage}.log"
        name = f"{self.stage}.%a" if self.is_array else first.stage
        return f"{_literal(RunPaths(first.run).logs)}/{name}.log"

    def links(self) -> dict[Path, Path]:
        """The links by which each element of an array prints into its own run's folder of logs.

        All stages of the same runs print through the same ones; parts of one run need none.
        """
        if not self.is_array or len({work.run for work in self.works}) == 1:
            return {}
        return {
            self.folder / f"{self._link}-{index}": RunPaths(work.run).logs
            for index, work in enumerate(self.works[: self.elements])
        }

    @property
    def _link(self) -> str:
        return f"logs{self.label.removeprefix(self.stage)}"


def asked_for(job: BatchJob, profile: SlurmProfile) -> SlurmStage:
    """What a job asks SLURM for."""
    asked: SlurmStage = getattr(profile, job.stage)
    return asked


def by_run(jobs: Iterable[BatchJob]) -> dict[Path, dict[str, tuple[BatchJob, int]]]:
    """The job of each stage of each run, by the run's root, and the index of its element."""
    found: dict[Path, dict[str, tuple[BatchJob, int]]] = {}
    for job in jobs:
        for index, work in enumerate(job.works):
            for root in (work.run, *work.others):
                found.setdefault(root, {})[work.stage] = job, index % job.elements
    return found


def _literal(path: Path) -> str:
    """A path as part of SLURM's file name patterns."""
    return str(path).replace("%", "%%")
