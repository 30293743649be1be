"""Submitting runs to SLURM: checked first, then all of it queued, or nothing.

Everything a job needs lies in the run directory: the code as it was submitted, the config, the
markers. The machine that submits may be switched off at once.
"""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cardamage.errors import RunError
from cardamage.files import write_text
from cardamage.paths import RunPaths, StudyPaths
from cardamage.provenance import snapshot_of, write_provenance
from cardamage.runs import open_run
from cardamage.stages import StageRecord, read_stage, write_stage
from cardamage.studies import open_study
from launch import slurm
from launch.batches import Batches, Comparison, make_batches
from launch.continuation import queued_training
from launch.job_queue import ask_queue
from launch.local import cancel_waiting
from launch.plan import Plan, RunPlan, StudyPlan
from launch.profiles import SlurmProfile, SlurmStage
from launch.record import LaunchRecord, claim, new_launch, release, unfinished_jobs
from launch.sbatch import BatchJob, absolute, render
from launch.slurm import Site
from launch.snapshot import name_snapshot, share_snapshot, take_snapshot
from launch.standing import missing_stages

T = TypeVar("T")

_SLOW_S = 0.01  # for one run; a local disk takes less, a file server more
_THREADS = 16
_NODES_OWN = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - where runs must not be


@dataclass(frozen=True)
class Submission:
    """Runs on their way to a cluster.

    Attributes:
        plans: the runs that have something to do, their roots absolute; then the comparisons of
            studies, as runs whose only stage is the report.
        studies: the studies, their folders absolute.
        profile: the cluster.
        cluster: the profile's name.
        batches: the jobs.
    """

    plans: tuple[RunPlan, ...]
    studies: tuple[StudyPlan, ...]
    profile: SlurmProfile
    cluster: str
    batches: Batches


def plan_submission(
    plan: Plan,
    profile: SlurmProfile,
    cluster: str,
    site: Site,
    *,
    max_running: int | None = None,
) -> Submission:
    """What would be submitted: the stages that have something to do; writes nothing.

    Raises:
        RunError: a run directory has a name that cannot be handed to a job.
    """
    runs = [missing for each in plan.plans if (missing := _missing(each)).jobs]
    studies = [replace(s, study=StudyPaths(absolute(s.study.root))) for s in plan.studies]
    comparisons = [
        replace(study.comparison, run=study.study) for study in studies if study.comparison
    ]
    both = (*runs, *comparisons)
    if not both:
        return Submission((), tuple(studies), profile, cluster, Batches((), {}))
    for each in both:
        _check_name(each.run)
    tested = {each.run.root for each in runs if each.has("test")}
    snapshot = name_snapshot(both[0].run).name
    name, folder = _place_of_arrays(both, studies)
    batches = make_batches(
        runs,
        [
            Comparison(
                study.record.name,
                study.study,
                frozenset(tested & {absolute(member.run.root) for member in study.plans}),
            )
            for study in studies
            if study.comparison
        ],
        profile,
        {each.run.root: each.run.code / snapshot for each in both},
        name=name,
        folder=folder,
        max_array_size=site.max_array_size,
        max_running=max_running,
        continues=_continues(plan, runs),
    )
    return Submission(both, tuple(studies), profile, cluster, batches)


def _continues(plan: Plan, runs: Sequence[RunPlan]) -> dict[Path, Path | str]:
    """For each run, by its root, the root of that whose training it waits for, or the job's id."""
    inside = {absolute(run.root): absolute(other.root) for run, other in plan.continues.items()}
    trained = {each.run.root for each in runs if each.has("train")}
    found: dict[Path, Path | str] = {}
    for each in runs:
        if (other := inside.get(each.run.root)) in trained:
            found[each.run.root] = other
        elif each.has("train") and (job := queued_training(each)):
            found[each.run.root] = job
    return found


def _missing(plan: RunPlan) -> RunPlan:
    """What is missing of a run: waiting in a queue to do nothing helps nobody."""
    missing = missing_stages(plan.run, plan.experiment)
    jobs = tuple(job for job in plan.jobs if job.stage in missing)
    return replace(plan, run=RunPaths(absolute(plan.run.root)), jobs=jobs)


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


def check(submission: Submission, site: Site) -> None:
    """Ask SLURM whether it would take every job; nothing is queued or written.

    Raises:
        UserError: it would not, or the nodes cannot see the run directories.
    """
    _check_places([plan.run for plan in submission.plans])
    for job in submission.batches.jobs:
        asked = _asked(job, submission.profile)
        slurm.check_partition(site, job.stage, asked.partition, asked.time_minutes)
    asked_before: set[str] = set()
    for job in submission.batches.jobs:
        text = render(job, submission.profile)
        kind = "\n".join(
            line
            for line in text.splitlines()
            if line.startswith("#SBATCH") and "--output" not in line and "--job-name" not in line
        )
        if kind not in asked_before:
            asked_before.add(kind)
            what = f"stage {job.stage} ({_in_words(_asked(job, submission.profile))})"
            slurm.would_take(text, what, _said_otherwise(job, submission.profile))


def submit(
    submission: Submission, command: Sequence[str], found: dict[str, Any]
) -> dict[Path, dict[str, str]]:
    """Queue every job; returns the job ids of each run by stage, by the run's root.

    When SLURM refuses one, those before it are cancelled.

    Args:
        submission: what :func:`check` found to be right.
        command: what the user typed.
        found: the provenance of this submission.

    Raises:
        UserError: SLURM refused, or a run is at work already.
        CardamageError: SLURM refused one job, and would not cancel those before it.
    """
    plans, batches = submission.plans, submission.batches
    holder = submission.studies[0].study if submission.studies else plans[0].run
    snapshot = take_snapshot(holder, found=found)
    found = {**found, "snapshot": snapshot_of(snapshot)}
    if snapshot.name != batches.jobs[0].code.name:
        raise RunError("the code was edited while it was being submitted; submit it again")
    claimed: list[tuple[RunPaths, LaunchRecord]] = []
    submitted: dict[str, str] = {}
    queue = ask_queue(job for plan in plans for job in unfinished_jobs(plan.run))

    def take(plan: RunPlan) -> None:
        if plan.run != holder:
            share_snapshot(snapshot, plan.run)
        _open(plan, submission.studies, found)
        stages = batches.stages(plan.run)
        commands = {stage: ["sbatch", str(job.script)] for stage, job in stages.items()}
        record = new_launch("slurm", submission.cluster, command, commands)
        claim(plan.run, record, queue)
        claimed.append((plan.run, record))
        _prepare(plan.run, stages)

    try:
        for study in submission.studies:
            open_study(study.study, study.record)
        _for_each(take, plans)
        _for_each(lambda job: _write(job, submission.profile), batches.jobs)
        links = {link: logs for job in batches.jobs for link, logs in job.links().items()}
        _for_each(lambda link: _lead(*link), list(links.items()))
        for job in batches.jobs:
            submitted[job.label] = slurm.submit(
                job.script, _dependency(job, submitted), _said_otherwise(job, submission.profile)
            )
    except BaseException:
        try:
            slurm.cancel(submitted.values())
        finally:
            for run, record in claimed:
                cancel_waiting(run, list(record.stages))
                release(run, record)
        raise
    ids = batches.ids(submitted)
    _for_each(lambda one: release(one[0], replace(one[1], jobs=ids[one[0].root])), claimed)
    return ids


def dependencies(job: BatchJob) -> str:
    """What a job waits for, in words."""
    waits = [f"{kind} {label}" for kind, label in job.after]
    if job.continues:
        waits.append(f"afterok {job.continues}, which it continues")
    return ", ".join(waits) or "nothing"


def _dependency(job: BatchJob, submitted: Mapping[str, str]) -> str | None:
    waits = [f"{kind}:{submitted[label]}" for kind, label in job.after]
    if job.continues:
        waits.append(f"afterok:{job.continues.number(submitted)}")
    return ",".join(waits) or None


def _asked(job: BatchJob, profile: SlurmProfile) -> SlurmStage:
    asked: SlurmStage = getattr(profile, job.stage)
    return asked


def _said_otherwise(job: BatchJob, profile: SlurmProfile) -> list[str]:
    """Variables by which sbatch would overrule what the profile says."""
    asked = _asked(job, profile)
    said = {"ACCOUNT": asked.account, "PARTITION": asked.partition, "QOS": asked.qos}
    return [f"SBATCH_{name}" for name, value in said.items() if value is not None]


def _in_words(asked: SlurmStage) -> str:
    words = [f"partition {asked.partition}"] if asked.partition else []
    words += [f"nodes {asked.nodes}", f"tasks per node {asked.tasks}"]
    words += [f"GPUs per node {asked.gpus_per_node}"] if asked.gpus_per_node else []
    words += [f"CPUs per task {asked.cpus_per_task}"]
    words += [f"{asked.mem_gb:g} GiB a node"] if asked.mem_gb else []
    return ", ".join([*words, f"{asked.time_minutes} minutes"])


def _check_name(run: RunPaths) -> None:
    for character, name in (("\n", "a line break"), (":", "a colon")):
        if character in str(run.root):
            raise RunError(
                f"{str(run.root)!r}: the path of a run has {name} in it, which a job's PYTHONPATH "
                f"or batch script cannot hold; choose another place with --runs-dir"
            )


def _check_places(runs: Iterable[RunPaths]) -> None:
    """Refuse folders that every node has for itself, unless this machine is a node."""
    local = [(run, own) for run in runs for own in _NODES_OWN if run.root.is_relative_to(own)]
    if local and not slurm.nodes_here(socket.gethostname()):
        run, own = local[0]
        raise RunError(
            f"{run.root}: {own} is another folder on each node; choose a place that all nodes "
            f"see with --runs-dir"
        )


def _open(plan: RunPlan, studies: Sequence[StudyPlan], found: dict[str, Any]) -> None:
    """Make the directory of a run, and say where it comes from, or the comparison of a study."""
    if all(study.study != plan.run for study in studies):
        # Should the machine crash before it is on disk, the same command writes it again.
        open_run(plan.run, plan.experiment, flushed=False)
    write_provenance(plan.run, found)


def _prepare(run: RunPaths, stages: Iterable[str]) -> None:
    """Set the markers to ``waiting``, which they are where there is none, and count anew."""
    was_queued_before = run.slurm.is_dir()
    for stage in stages:
        if was_queued_before:
            run.starts(stage).unlink(missing_ok=True)
        if run.stage(stage).is_file():
            write_stage(run, StageRecord(stage, attempts=read_stage(run, stage).attempts))


def _for_each(work: Callable[[T], None], items: Sequence[T]) -> None:
    """Do the same for many runs, and where files are slow, for many at a time.

    On a quick disk threads would mostly wait for each other.

    Raises:
        CardamageError: the first that failed; the others are done nevertheless.
    """
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(work, item) for item in items[:1]]
    is_slow = time.perf_counter() - began > _SLOW_S
    with ThreadPoolExecutor(_THREADS if is_slow else 1) as pool:
        futures += [pool.submit(work, item) for item in items[1:]]
    for future in futures:
        future.result()


def _write(job: BatchJob, profile: SlurmProfile) -> None:
    job.script.parent.mkdir(parents=True, exist_ok=True)
    write_text(job.script, render(job, profile), flushed=False)  # SLURM has a copy in a moment


def _lead(link: Path, logs: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(logs)
