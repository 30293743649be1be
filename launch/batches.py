"""The jobs of a submission: stages of runs become batch jobs and arrays, with what they wait for.

One run is pack -> train -> test -> report. Of several runs those with the same dataset share a pack
job, and each of the other stages is an array with an element a run, cut where the site's arrays
end. An element of ``test`` waits for the same element of ``train`` alone, so a run that fails ends
only itself.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cardamage.config import Data
from cardamage.paths import RunPaths
from launch.batch_body import Work
from launch.plan import RunPlan
from launch.profiles import SlurmProfile
from launch.sbatch import BatchJob
from launch.standing import missing_stages

_LARGEST_ARRAY = 1000


@dataclass(frozen=True)
class Batches:
    """The jobs of a submission.

    Attributes:
        jobs: in an order in which each comes after those it waits for.
        sharers: the runs that are packed together with another one, by that one's root.
    """

    jobs: tuple[BatchJob, ...]
    sharers: Mapping[Path, tuple[RunPaths, ...]]

    def ids(self, submitted: Mapping[str, str]) -> dict[Path, dict[str, str]]:
        """The job of each stage of each run, by the run's root.

        Args:
            submitted: the ids by label.
        """
        found: dict[Path, dict[str, str]] = {}
        for job in self.jobs:
            for index, work in enumerate(job.works):
                number = submitted[job.label]
                name = f"{number}_{index}" if job.is_array else number
                for root in (work.run, *(run.root for run in self._packed_with(job, work.run))):
                    found.setdefault(root, {})[work.stage] = name
        return found

    def _packed_with(self, job: BatchJob, root: Path) -> tuple[RunPaths, ...]:
        return self.sharers.get(root, ()) if job.stage == "pack" else ()


def make_batches(
    plans: Sequence[RunPlan],
    profile: SlurmProfile,
    codes: Mapping[Path, Path],
    *,
    folder: Path,
    max_array_size: int,
    max_running: int | None = None,
) -> Batches:
    """The jobs of runs whose roots are absolute.

    Args:
        plans: the runs and their stages.
        profile: the cluster.
        codes: the snapshot of each run, by its root.
        folder: where the scripts of arrays lie; those of a single run lie in the run.
        max_array_size: an array's indices have to be below it.
        max_running: so many elements of an array may run at once; None for any.
    """
    jobs: list[BatchJob] = []
    sharers: dict[Path, tuple[RunPaths, ...]] = {}
    groups = _groups(plans)
    for number, group in enumerate(groups):
        first, stages = group[0], _stages(group[0])
        runs = [plan.run for plan in group]
        suffix = f"-{number}" if len(groups) > 1 else ""
        before: tuple[tuple[str, str], ...] = ()
        if "pack" in stages:
            label = f"pack{suffix}"
            jobs.append(_packing_job(first, runs[1:], codes[first.run.root], label))
            sharers[first.run.root] = tuple(runs[1:])
            before = (("afterok", label),)
        chunks = list(_cut(group, min(max_array_size, _LARGEST_ARRAY)))
        for index, chunk in enumerate(chunks):
            limit = None if max_running is None else _share(max_running, len(chunks), index)
            jobs += _of_chunk(
                chunk,
                stages,
                profile=profile,
                codes=codes,
                folder=folder,
                suffix=f"{suffix}-part{index}" if len(chunks) > 1 else suffix,
                before=before,
                limit=limit,
            )
    return Batches(tuple(jobs), sharers)


def _packing_job(plan: RunPlan, others: Sequence[RunPaths], code: Path, label: str) -> BatchJob:
    also = ("--also", *(shlex.quote(str(other.root)) for other in others)) if others else ()
    works = (Work(plan.run.root, "pack", ("jobs/pack.py", *also)),)
    name = f"{plan.experiment.name}-pack"
    return BatchJob(name, "pack", works, code, plan.run.slurm, label)


def _of_chunk(
    chunk: Sequence[RunPlan],
    stages: Sequence[str],
    *,
    profile: SlurmProfile,
    codes: Mapping[Path, Path],
    folder: Path,
    suffix: str,
    before: tuple[tuple[str, str], ...],
    limit: int | None,
) -> Iterator[BatchJob]:
    """Train, test and report of runs: single jobs for one run, arrays for several."""
    lone, first = len(chunk) == 1, chunk[0]
    name = first.experiment.name if lone else folder.name.lstrip(".")
    code, where = codes[first.run.root], first.run.slurm if lone else folder
    for stage in stages:
        if stage == "pack":
            continue
        if stage == "test" and lone and (parts := profile.test.jobs) > 1:
            label = f"test-parts{suffix}"
            works = tuple(_part(first.run, index, parts) for index in range(parts))
            yield BatchJob(f"{name}-test-parts", stage, works, code, where, label, before)
            before = (("afterany", label),)
        label = f"{stage}{suffix}"
        works = tuple(Work(plan.run.root, stage, (f"jobs/{stage}.py",)) for plan in chunk)
        limited = None if lone else limit
        yield BatchJob(f"{name}-{stage}", stage, works, code, where, label, before, limited)
        before = (("afterok" if lone else "aftercorr", label),)


def _groups(plans: Sequence[RunPlan]) -> list[list[RunPlan]]:
    """Runs that can share jobs: those with the same stages to run, packed alike or packed."""
    groups: dict[tuple[tuple[str, ...], str], list[RunPlan]] = {}
    for plan in plans:
        stages = _stages(plan)
        data = _packing(plan.experiment.data) if "pack" in stages else ""
        if stages:
            groups.setdefault((stages, data), []).append(plan)
    return list(groups.values())


def _stages(plan: RunPlan) -> tuple[str, ...]:
    """The stages to submit, in order: waiting in a queue to do nothing helps nobody."""
    missing = missing_stages(plan.run, plan.experiment)
    return tuple(job.stage for job in plan.jobs if job.stage in missing)


def _packing(data: Data) -> str:
    """What tells datasets apart before they are read: everything that packing depends on."""
    return data.model_dump_json(exclude={"workers"})


def _cut(group: Sequence[RunPlan], size: int) -> Iterator[Sequence[RunPlan]]:
    for start in itertools.count(0, size):
        if start >= len(group):
            return
        yield group[start : start + size]


def _share(total: int, chunks: int, index: int) -> int:
    """An array's part of what may run at once; no array can do with less than one."""
    return max(1, total // chunks + (index < total % chunks))


def _part(run: RunPaths, index: int, parts: int) -> Work:
    argument = f'"$SLURM_ARRAY_TASK_ID/{parts}"'
    return Work(run.root, f"test.{index}", ("jobs/test.py", "--part", argument))
