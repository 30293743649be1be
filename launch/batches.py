"""The jobs of a submission: stages of runs become batch jobs and arrays, with what they wait for.

One run is pack -> train -> test -> report. Of several runs those with the same dataset share a pack
job, and each of the other stages is an array with an element a run, cut where the site's arrays
end. An element of ``test`` waits for the same element of ``train`` alone, so a run that fails ends
only itself. Runs that continue another one have arrays of their own, which wait for its training.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from cardamage.paths import RunPaths
from launch.batch_body import Work
from launch.plan import RunPlan
from launch.profiles import SlurmProfile
from launch.sbatch import BatchJob, Training

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

    def stages(self, run: RunPaths) -> dict[str, BatchJob]:
        """The job of each stage of a run."""
        return self._by_root[run.root]

    @cached_property
    def _by_root(self) -> dict[Path, dict[str, BatchJob]]:
        found: dict[Path, dict[str, BatchJob]] = {}
        for job in self.jobs:
            for work in job.works:
                others = self._with(work.run) if job.stage == "pack" else ()
                for root in (work.run, *(run.root for run in others)):
                    found.setdefault(root, {})[work.stage] = job
        return found

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
                others = self._with(work.run) if job.stage == "pack" else ()
                for root in (work.run, *(run.root for run in others)):
                    found.setdefault(root, {})[work.stage] = name
        return found

    def _with(self, root: Path) -> tuple[RunPaths, ...]:
        return self.sharers.get(root, ())


@dataclass(frozen=True)
class Comparison:
    """The report that compares the runs of a study, once they have ended.

    Attributes:
        name: of the study.
        study: its folder.
        needs: the roots of its runs that are tested in the same submission.
    """

    name: str
    study: RunPaths
    needs: frozenset[Path]


def make_batches(
    plans: Sequence[RunPlan],
    comparisons: Sequence[Comparison],
    profile: SlurmProfile,
    codes: Mapping[Path, Path],
    *,
    name: str,
    folder: Path,
    max_array_size: int,
    max_running: int | None = None,
    continues: Mapping[Path, Path | str] = MappingProxyType({}),
) -> Batches:
    """The jobs of runs and studies whose roots are absolute.

    Args:
        plans: the runs and their stages.
        comparisons: of studies.
        profile: the cluster.
        codes: the snapshot of each run and study, by its root.
        name: what SLURM shows of arrays.
        folder: where the scripts of arrays lie; those of a single run lie in the run.
        max_array_size: an array's indices have to be below it.
        max_running: so many elements of an array may run at once; None for any.
        continues: by the root of each run that continues another one whose training is still to
            come: that one's root, or the id of its job where that was queued before.
    """
    jobs: list[BatchJob] = []
    sharers: dict[Path, tuple[RunPaths, ...]] = {}
    groups = _groups(plans)
    for number, group in enumerate(groups):
        first, stages = group[0], [job.stage for job in group[0].jobs]
        suffix = f"-{number}" if len(groups) > 1 else ""
        before: tuple[tuple[str, str], ...] = ()
        if "pack" in stages:
            label = f"pack{suffix}"
            others = tuple(plan.run for plan in group[1:])
            also = ("--also", '"${others[@]}"') if others else ()
            roots = tuple(run.root for run in others)
            works = (Work(first.run.root, "pack", ("jobs/pack.py", *also), roots),)
            packs = f"{first.experiment.name}-pack"
            code = codes[first.run.root]
            jobs.append(BatchJob(packs, "pack", works, code, first.run.slurm, label))
            sharers[first.run.root] = others
            before = (("afterok", label),)
        chunks = list(_cut(group, min(max_array_size, _LARGEST_ARRAY), continues))
        for index, chunk in enumerate(chunks):
            lone = len(chunk) == 1
            jobs += _of_chunk(
                chunk,
                stages,
                code=codes[first.run.root],
                name=chunk[0].experiment.name if lone else name,
                folder=chunk[0].run.slurm if lone else folder,
                parts=profile.test.jobs if lone else 1,
                suffix=f"{suffix}-part{index}" if len(chunks) > 1 else suffix,
                before=before,
                limit=None if max_running is None else _share(max_running, len(chunks), index),
            )
    jobs = _in_order(_joined(jobs, continues))
    for comparison in comparisons:
        root = comparison.study.root
        needs = [job for job in jobs if job.stage == "test" and "parts" not in job.label]
        needed = [job for job in needs if any(work.run in comparison.needs for work in job.works)]
        jobs.append(
            BatchJob(
                f"{comparison.name}-report",
                "report",
                (Work(root, "report", ("jobs/report.py",)),),
                codes[root],
                comparison.study.slurm,
                f"compare-{comparison.name}",
                tuple(("afterany", job.label) for job in needed),
            )
        )
    return Batches(tuple(jobs), sharers)


def _of_chunk(
    chunk: Sequence[RunPlan],
    stages: Sequence[str],
    *,
    code: Path,
    name: str,
    folder: Path,
    parts: int,
    suffix: str,
    before: tuple[tuple[str, str], ...],
    limit: int | None,
) -> Iterator[BatchJob]:
    """Train, test and report of runs: single jobs for one run, arrays for several."""
    for stage in stages:
        if stage == "pack":
            continue
        if stage == "test" and parts > 1:
            label = f"test-parts{suffix}"
            works = tuple(_part(chunk[0].run, index, parts) for index in range(parts))
            yield BatchJob(f"{name}-test-parts", stage, works, code, folder, label, before)
            before = (("afterany", label),)
        label = f"{stage}{suffix}"
        works = tuple(Work(plan.run.root, stage, (f"jobs/{stage}.py",)) for plan in chunk)
        limited = limit if len(chunk) > 1 else None
        yield BatchJob(f"{name}-{stage}", stage, works, code, folder, label, before, limited)
        before = (("aftercorr" if len(chunk) > 1 else "afterok", label),)


def _groups(plans: Sequence[RunPlan]) -> list[list[RunPlan]]:
    """Runs that can share jobs: those with the same stages to run, packed alike or packed."""
    groups: dict[tuple[tuple[str, ...], str], list[RunPlan]] = {}
    for plan in plans:
        stages = tuple(job.stage for job in plan.jobs)
        data = json.dumps(plan.experiment.data.packing()) if plan.has("pack") else ""
        groups.setdefault((stages, data), []).append(plan)
    return list(groups.values())


def _cut(
    group: Sequence[RunPlan], size: int, continues: Mapping[Path, Path | str]
) -> Iterator[Sequence[RunPlan]]:
    """Runs that wait for the same training, or for none, at most ``size`` of them together."""
    alike: dict[Path | str | None, list[RunPlan]] = {}
    for plan in group:
        alike.setdefault(continues.get(plan.run.root), []).append(plan)
    for plans in alike.values():
        for start in range(0, len(plans), size):
            yield plans[start : start + size]


def _joined(jobs: Sequence[BatchJob], continues: Mapping[Path, Path | str]) -> list[BatchJob]:
    """The jobs, those that train made to wait for the training that their runs continue."""
    trainings = {
        work.run: Training(job.label, index if job.is_array else None)
        for job in jobs
        if job.stage == "train"
        for index, work in enumerate(job.works)
    }
    joined = []
    for job in jobs:
        source = continues.get(job.works[0].run) if job.stage == "train" else None
        if isinstance(source, str):
            joined.append(replace(job, continues=Training(source, is_queued=True)))
        else:
            joined.append(replace(job, continues=trainings[source]) if source else job)
    return joined


def _in_order(jobs: Sequence[BatchJob]) -> list[BatchJob]:
    """The jobs in their order, but each after those that it waits for."""
    ordered: dict[str, BatchJob] = {}
    left = list(jobs)
    while left:
        for job in left:
            waits = {label for _, label in job.after}
            if job.continues and not job.continues.is_queued:
                waits.add(job.continues.job)
            if waits <= ordered.keys():
                ordered[job.label] = job
                left.remove(job)
                break
    return list(ordered.values())


def _share(total: int, chunks: int, index: int) -> int:
    """An array's part of what may run at once; no array can do with less than one."""
    return max(1, total // chunks + (index < total % chunks))


def _part(run: RunPaths, index: int, parts: int) -> Work:
    argument = f'"$SLURM_ARRAY_TASK_ID/{parts}"'
    return Work(run.root, f"test.{index}", ("jobs/test.py", "--part", argument))
