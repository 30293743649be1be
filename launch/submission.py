"""Submitting runs to SLURM: checked first, then all of it queued, or nothing.

Everything a job needs lies in the run directory: the code as it was submitted, the config, the
markers. The machine that submits may be switched off at once.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cardamage.errors import CardamageError, RunError
from cardamage.files import write_json, write_text
from cardamage.paths import RunPaths
from cardamage.provenance import write_provenance
from cardamage.runs import open_run
from cardamage.stages import StageRecord, read_stage, write_stage
from launch import slurm
from launch.batches import Batches, make_batches
from launch.local import cancel_waiting
from launch.plan import RunPlan
from launch.profiles import SlurmProfile, SlurmStage
from launch.record import LaunchRecord, claim, new_launch, release
from launch.sbatch import BatchJob, absolute, render
from launch.slurm import Site
from launch.snapshot import name_snapshot, share_snapshot, take_snapshot

_SHARED_MEMORY = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - where runs must not be


@dataclass(frozen=True)
class Submission:
    """Runs on their way to a cluster.

    Attributes:
        plans: the runs, their roots absolute.
        profile: the cluster.
        cluster: the profile's name.
        batches: the jobs.
    """

    plans: tuple[RunPlan, ...]
    profile: SlurmProfile
    cluster: str
    batches: Batches


def plan_submission(
    plans: Sequence[RunPlan],
    profile: SlurmProfile,
    cluster: str,
    site: Site,
    *,
    max_running: int | None = None,
) -> Submission:
    """What would be submitted; writes nothing.

    Raises:
        RunError: a run directory has a name that cannot be handed to a job.
    """
    there = [replace(plan, run=RunPaths(absolute(plan.run.root))) for plan in plans]
    for plan in there:
        _check_name(plan.run)
    snapshot = name_snapshot(there[0].run).name
    codes = {plan.run.root: plan.run.code / snapshot for plan in there}
    folder = there[0].run.root.parent / f".{there[0].experiment.name}-and-{len(there) - 1}-more"
    batches = make_batches(
        there,
        profile,
        codes,
        folder=folder,
        max_array_size=site.max_array_size,
        max_running=max_running,
    )
    return Submission(tuple(there), profile, cluster, batches)


def check(submission: Submission, site: Site) -> None:
    """Ask SLURM whether it would take every job; nothing is queued or written.

    Raises:
        UserError: it would not, or the nodes cannot see the run directories.
    """
    for plan in submission.plans:
        _check_place(plan.run)
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
    """
    plans, batches = submission.plans, submission.batches
    snapshot = take_snapshot(plans[0].run, found=found)
    for plan in plans[1:]:
        share_snapshot(snapshot, plan.run)
    claimed: list[tuple[RunPaths, LaunchRecord]] = []
    submitted: dict[str, str] = {}
    try:
        for plan in plans:
            open_run(plan.run, plan.experiment)
            write_provenance(plan.run, found)
            record = new_launch("slurm", submission.cluster, command, _commands(plan.run, batches))
            claim(plan.run, record)
            claimed.append((plan.run, record))
        for plan in plans:
            _prepare(plan, batches)
        for job in batches.jobs:
            _write(job, submission.profile)
        for job in batches.jobs:
            submitted[job.label] = slurm.submit(
                job.script, _dependency(job, submitted), _said_otherwise(job, submission.profile)
            )
    except BaseException:
        with suppress(CardamageError):
            slurm.cancel(submitted.values())
        for run, record in claimed:
            cancel_waiting(run, list(record.stages))
            release(run, record)
        raise
    ids = batches.ids(submitted)
    for run, record in claimed:
        release(run, replace(record, jobs=ids[run.root]))
    return ids


def dependencies(job: BatchJob) -> str:
    """What a job waits for, in words."""
    return ", ".join(f"{kind} {label}" for kind, label in job.after) or "nothing"


def _dependency(job: BatchJob, submitted: Mapping[str, str]) -> str | None:
    return ",".join(f"{kind}:{submitted[label]}" for kind, label in job.after) or None


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
    words += [f"{asked.nodes} nodes", f"{asked.tasks} tasks a node"]
    words += [f"{asked.gpus_per_node} GPUs a node"] if asked.gpus_per_node else []
    words += [f"{asked.cpus_per_task} CPUs a task"]
    words += [f"{asked.mem_gb:g} GiB a node"] if asked.mem_gb else []
    return ", ".join([*words, f"{asked.time_minutes} minutes"])


def _check_name(run: RunPaths) -> None:
    for character, name in (("\n", "a line break"), (":", "a colon")):
        if character in str(run.root):
            raise RunError(
                f"{str(run.root)!r}: the path of a run has {name} in it, which a job's PYTHONPATH "
                f"or batch script cannot hold; choose another place with --runs-dir"
            )


def _check_place(run: RunPaths) -> None:
    """Refuse folders that every node has for itself, unless this machine is a node."""
    local = [folder for folder in _SHARED_MEMORY if run.root.is_relative_to(folder)]
    if local and not slurm.nodes_here(socket.gethostname()):
        raise RunError(
            f"{run.root}: {local[0]} is another folder on each node; choose a place that all nodes "
            f"see with --runs-dir"
        )


def _commands(run: RunPaths, batches: Batches) -> dict[str, list[str]]:
    """The command of each stage of a run, as ``launch.json`` keeps it."""
    return {
        work.stage: ["sbatch", str(job.script)]
        for job in batches.jobs
        for work in job.works
        if work.run == run.root
        or (job.stage == "pack" and run in batches.sharers.get(work.run, ()))
    }


def _prepare(plan: RunPlan, batches: Batches) -> None:
    """Set the markers to ``waiting``, and start counting anew."""
    run = plan.run
    run.slurm.mkdir(exist_ok=True)
    run.logs.mkdir(exist_ok=True)
    run.sharers.unlink(missing_ok=True)
    for stage in _commands(run, batches):
        run.starts(stage).unlink(missing_ok=True)
        before = read_stage(run, stage)
        write_stage(run, StageRecord(stage, attempts=before.attempts))
    if others := batches.sharers.get(run.root):
        write_json(run.sharers, [str(other.root) for other in others])


def _write(job: BatchJob, profile: SlurmProfile) -> None:
    write_text(job.script, render(job, profile))
    for link, log in job.links().items():
        link.unlink(missing_ok=True)
        link.symlink_to(log)
