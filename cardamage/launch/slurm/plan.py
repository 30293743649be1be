"""What a submission would be: the stages that are missing, as jobs and arrays; writes nothing.

One run is pack -> train -> test -> report. Of several runs those with the same dataset share a pack
job, and each of the other stages is an array with one element per run, cut where the site's arrays
end. An element of ``test`` waits for the same element of ``train`` alone, so a run that fails ends
only itself. Runs that continue another one have arrays of their own, which wait for its training.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cardamage.errors import RunError
from cardamage.launch.planning.graph import Plan, RunPlan, StudyPlan
from cardamage.launch.planning.preflight import queued_training
from cardamage.launch.planning.profiles import SlurmProfile
from cardamage.launch.slurm.batch_job import BatchJob, Need, Work
from cardamage.launch.slurm.code_snapshot import name_snapshot
from cardamage.launch.slurm.limits import too_many
from cardamage.launch.slurm.rounds import later_rounds
from cardamage.launch.slurm.site import Site
from cardamage.runs.missing import missing_stages
from cardamage.runs.paths import RunPaths, StudyPaths

_Continues = Mapping[Path, Path | str]
# By the root of each run that continues another one whose training is still to come: that one's
# root, or the id of its job where that was queued before.


@dataclass(frozen=True)
class Submission:
    """Runs on their way to a cluster.

    Attributes:
        plans: the runs that have something to do, their roots absolute; then the comparisons of
            studies, as runs whose only stage is the report.
        studies: the studies, their folders absolute.
    """

    plans: tuple[RunPlan, ...]
    studies: tuple[StudyPlan, ...]
    profile: SlurmProfile
    cluster: str
    jobs: tuple[BatchJob, ...]


def plan_submission(
    plan: Plan, profile: SlurmProfile, cluster: str, site: Site, *, max_running: int | None = None
) -> Submission:
    """What would be submitted; of each array ``max_running`` elements may run at once, or any.

    Where a limit on submitted jobs demands it, a job does several runs in turn: as few as may be.

    Raises:
        RunError: a run directory has a name that cannot be handed to a job.
        ConfigError: there is a limit that no number of runs per job meets.
    """
    runs = [missing for each in plan.plans if (missing := _missing(each)).stages]
    studies = tuple(replace(s, study=StudyPaths(_absolute(s.study.root))) for s in plan.studies)
    compared = [study for study in studies if study.comparison]
    comparisons = [replace(s.comparison, run=s.study) for s in compared if s.comparison]
    both = (*runs, *comparisons)
    if not both:
        return Submission((), studies, profile, cluster, ())
    for each in both:
        _check_name(each.run)
    snapshot = name_snapshot(both[0].run)
    place, continues = _place_of_arrays(both, studies), _continues(plan, runs)
    at_once = (profile.train.side_by_side, profile.test.side_by_side, profile.report.side_by_side)
    in_turn = max(profile.runs_per_job, *at_once)
    while True:
        jobs = _make_jobs(
            runs,
            snapshot,
            place=place,
            parts=profile.test.jobs,
            max_array_size=site.max_array_size,
            max_running=max_running,
            in_turn=in_turn,
            continues=continues,
        )
        for study in studies:
            chunks = partial(
                _of_slots,
                size=site.max_array_size * in_turn,
                max_running=max_running,
                in_turn=in_turn,
            )
            jobs += later_rounds(study, jobs, study.study.code / snapshot, chunks)
        jobs += [_comparison(study, snapshot, jobs) for study in compared]
        exceeded = site.limits.exceeded(jobs, profile)
        if exceeded is None:
            return Submission(both, studies, profile, cluster, tuple(jobs))
        if in_turn >= max(len(job.works) for job in jobs):
            raise too_many(*exceeded, is_search=any(study.search for study in studies))
        in_turn += 1


def _make_jobs(
    plans: Sequence[RunPlan],
    snapshot: str,
    *,
    place: tuple[str, Path],
    parts: int,
    max_array_size: int,
    max_running: int | None,
    in_turn: int,
    continues: _Continues,
) -> list[BatchJob]:
    """The jobs of runs, each after those it waits for; ``parts`` test a run that has no array."""
    jobs: list[BatchJob] = []
    groups = _groups(plans)
    cuts = [list(_cut(group, max_array_size * in_turn, continues)) for group in groups]
    limits, made = _limits(sum(map(len, cuts)), max_running), list[str]()
    for number, (group, chunks) in enumerate(zip(groups, cuts, strict=True)):
        first, suffix = group[0], f"-{number}" if len(groups) > 1 else ""
        code = first.run.code / snapshot
        before: tuple[Need, ...] = ()
        if "pack" in first.stages:
            others = tuple(plan.run.root for plan in group[1:])
            also = ("--also", '"${others[@]}"') if others else ()
            work = Work(first.run.root, "pack", ("pack", *also), others)
            packs, label = f"{first.experiment.name}-pack", f"pack{suffix}"
            jobs.append(BatchJob(packs, "pack", (work,), code, first.run.slurm, label))
            before = (Need("afterok", label),)
        for index, chunk in enumerate(chunks):
            is_lone, run, limit = len(chunk) == 1, chunk[0].run, next(limits)
            waits = before
            if max_running and len(made) >= max_running and not continues:
                waits = (*before, Need("afterany", made[-max_running]))  # else too many would run
            jobs += _of_chunk(
                chunk,
                (chunk[0].experiment.name, run.slurm) if is_lone else place,
                code=code,
                parts=parts if is_lone else 1,
                suffix=f"{suffix}-part{index}" if len(chunks) > 1 else suffix,
                before=waits,
                max_running=None if is_lone else limit,
                in_turn=in_turn,
            )
            made.append(jobs[-1].label)
    return _in_order(_joined(jobs, continues))


def _limits(chunks: int, max_running: int | None) -> Iterator[int | None]:
    """How many elements of each array may run at once, so that all together are ``max_running``.

    No array can do with less than one; where there are more arrays, later ones wait for earlier.
    """
    for index in range(chunks):
        if max_running is None:
            yield None
        else:
            yield max(1, max_running // chunks + (index < max_running % chunks))


def _groups(plans: Sequence[RunPlan]) -> list[list[RunPlan]]:
    """Runs that can share jobs: those with the same stages to run, packed alike or packed."""
    groups: dict[tuple[tuple[str, ...], str], list[RunPlan]] = {}
    for plan in plans:
        data = json.dumps(plan.experiment.data.packing()) if "pack" in plan.stages else ""
        groups.setdefault((plan.stages, data), []).append(plan)
    return list(groups.values())


def _cut(group: Sequence[RunPlan], size: int, continues: _Continues) -> Iterator[Sequence[RunPlan]]:
    """Runs that wait for the same training, or for none, at most ``size`` of them together."""
    alike: dict[Path | str | None, list[RunPlan]] = {}
    for plan in group:
        alike.setdefault(continues.get(plan.run.root), []).append(plan)
    for plans in alike.values():
        for start in range(0, len(plans), size):
            yield plans[start : start + size]


def _of_chunk(
    chunk: Sequence[RunPlan],
    place: tuple[str, Path],
    *,
    code: Path,
    parts: int,
    suffix: str,
    before: tuple[Need, ...],
    max_running: int | None,
    in_turn: int,
) -> Iterator[BatchJob]:
    """Train, test and report of runs: single jobs for one run, arrays for several."""
    name, folder = place
    for stage in (stage for stage in chunk[0].stages if stage != "pack"):
        if stage == "test" and parts > 1:
            label, root = f"test-parts{suffix}", chunk[0].run.root
            program = (stage, "--part", f'"$SLURM_ARRAY_TASK_ID/{parts}"')
            works = tuple(Work(root, f"test.{index}", program) for index in range(parts))
            yield BatchJob(f"{name}-test-parts", stage, works, code, folder, label, before)
            before = (Need("afterany", label),)
        label = f"{stage}{suffix}"
        works = tuple(Work(plan.run.root, stage, (stage,)) for plan in chunk)
        job = BatchJob(
            f"{name}-{stage}", stage, works, code, folder, label, before, max_running, in_turn
        )
        yield job
        # The last job of one run comes in any case: it resumes what died unseen.
        kind = "afterany" if stage == "test" and len(chunk) == 1 else "afterok"
        before = (Need("aftercorr" if job.is_array else kind, label),)


def _of_slots(
    slots: Sequence[RunPlan],
    place: tuple[str, Path],
    *,
    code: Path,
    suffix: str,
    before: tuple[Need, ...],
    size: int,
    max_running: int | None,
    in_turn: int,
) -> Iterator[BatchJob]:
    """The jobs of one round of a search, its runs not known yet."""
    for start in range(0, len(slots), size):
        part = f"-part{start // size}" if len(slots) > size else ""
        yield from _of_chunk(
            slots[start : start + size],
            place,
            code=code,
            parts=1,
            suffix=f"{suffix}{part}",
            before=before,
            max_running=max_running,
            in_turn=in_turn,
        )


def _joined(jobs: Sequence[BatchJob], continues: _Continues) -> Iterator[BatchJob]:
    """The jobs, those that train made to wait for the training that their runs continue."""
    trainings = {
        work.run: Need("afterok", job.label, index % job.elements if job.is_array else None)
        for job in jobs
        if job.stage == "train"
        for index, work in enumerate(job.works)
    }
    for job in jobs:
        source = continues.get(job.works[0].run) if job.stage == "train" else None
        if source is None:
            yield job
        else:
            need = Need("afterok", source) if isinstance(source, str) else trainings[source]
            yield replace(job, after=(*job.after, need))


def _in_order(jobs: Iterator[BatchJob]) -> list[BatchJob]:
    """The jobs in their order, but each after those that it waits for."""
    left, ordered = list(jobs), []
    while left:
        labels = {job.label for job in left}
        ready = next(job for job in left if labels.isdisjoint(need.job for need in job.after))
        left.remove(ready)
        ordered.append(ready)
    return ordered


def _comparison(study: StudyPlan, snapshot: str, jobs: Sequence[BatchJob]) -> BatchJob:
    """The job that compares the runs of a study, once they have ended."""
    name, run = study.record.name, study.study
    members = {_absolute(member.run.root) for member in study.plans}
    members |= {work.run for job in jobs for work in job.works if work.is_slot}
    needs = tuple(
        Need("afterany", job.label)
        for job in jobs
        if any(work.stage == "test" and work.run in members for work in job.works)
    )
    work, code = Work(run.root, "report", ("report",)), run.code / snapshot
    label = f"compare-{name}"
    return BatchJob(f"{name}-report", "report", (work,), code, run.slurm, label, needs)


def _continues(plan: Plan, runs: Sequence[RunPlan]) -> _Continues:
    inside = {_absolute(run.root): _absolute(other.root) for run, other in plan.continues.items()}
    trained = {each.run.root for each in runs if "train" in each.stages}
    found: dict[Path, Path | str] = {}
    for each in runs:
        if (other := inside.get(each.run.root)) in trained:
            found[each.run.root] = other
        elif "train" in each.stages and (job := queued_training(each)):
            found[each.run.root] = job
    return found


def _missing(plan: RunPlan) -> RunPlan:
    """What is missing of a run: waiting in a queue to do nothing helps nobody."""
    missing = missing_stages(plan.run, plan.experiment)
    stages = tuple(stage for stage in plan.stages if stage in missing)
    return replace(plan, run=RunPaths(_absolute(plan.run.root)), stages=stages)


def _place_of_arrays(plans: Sequence[RunPlan], studies: Sequence[StudyPlan]) -> tuple[str, Path]:
    """What arrays are called, and where their scripts and the links to the logs lie.

    The folder is that of these very runs: while jobs of theirs wait or run, no other submission
    may have one of them, so nothing leads their output elsewhere.
    """
    roots = "\n".join(sorted(str(plan.run.root) for plan in plans))
    unique = hashlib.sha256(roots.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    if studies:
        return studies[0].record.name, studies[0].study.slurm / unique
    name = f"{plans[0].experiment.name}-and-{len(plans) - 1}-more"
    return name, plans[0].run.root.parent / ".submissions" / unique


def describe(submission: Submission) -> Iterator[str]:
    """The runs and the jobs of a submission, a line each."""
    for each in submission.plans:
        state = "resumes" if each.run.root.is_dir() else "new"
        yield f"# {each.experiment.name}: {each.run.root} ({state})"
    yield f"\n# jobs: {len(submission.jobs)}, each under the name of its script"
    for job in submission.jobs:
        waits = ", ".join(map(str, job.after)) or "nothing"
        yield f"#   {job.label}: {in_words(job)}; waits for: {waits}"


def in_words(job: BatchJob) -> str:
    """What a job is called in SLURM, and how many an array has."""
    words = f"array {job.name} of {job.elements} jobs" if job.is_array else f"job {job.name}"
    most = -(-len(job.works) // job.elements)
    return f"{words}, {most} runs in turn{' each' * job.is_array}" if most > 1 else words


def _absolute(path: Path) -> Path:
    """The path from the root, with its links left as they are: other nodes may see them so."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute leaves ".." in


def _check_name(run: RunPaths) -> None:
    if not {":", "\n"}.isdisjoint(str(run.root)):
        raise RunError(
            f"{str(run.root)!r}: the path of a run has a colon or a line break in it, which a "
            f"job's PYTHONPATH or batch script cannot hold; choose another place with --runs-dir"
        )
