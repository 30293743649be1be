"""Submitting runs to SLURM: checked first, then all of it queued, or nothing.

Everything a job needs lies in the run directory: the code as it was submitted, the config, the
markers. The machine that submits may be switched off at once.
"""

import re
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from cardamage.errors import CardamageError, ConfigError, RunError, Stopped
from cardamage.launch.planning.graph import Plan, RunPlan
from cardamage.launch.planning.profiles import SlurmProfile
from cardamage.launch.slurm.batch_job import BatchJob, asked_for, by_run
from cardamage.launch.slurm.code_snapshot import share_snapshot, take_snapshot
from cardamage.launch.slurm.plan import Submission, plan_submission
from cardamage.launch.slurm.rounds import slot_jobs
from cardamage.launch.slurm.script import StageExecutor, overruled, render
from cardamage.launch.slurm.site import TIMEOUT_S, Site, ask_site, check_partition
from cardamage.launch.watching.client import ask, gist
from cardamage.launch.watching.queue import ask_queue, cluster_name, commented
from cardamage.launch.watching.record import (
    LaunchRecord,
    claim,
    new_launch,
    read_launch,
    release,
    unfinished_jobs,
    was_cut_off,
)
from cardamage.runs.directory import open_run
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import provenance
from cardamage.runs.stages import cancel_waiting, wait
from cardamage.runs.study import open_study
from cardamage.search.decide import open_search
from cardamage.system.console import log
from cardamage.system.files import write_json

Jobs = dict[Path, dict[str, str]]
"""The id of the job of each stage of each run, by the run's root; of an array the element."""

T = TypeVar("T")

_THREADS = 16  # file servers are slow, but answer many at a time
_IMPORTED = ("numpy", "torch", "accelerate", "safetensors", "webdataset", "pycocotools", "PIL")
_WAITS = re.compile(r"down, drained|not available now|currently not available", re.IGNORECASE)
_NODES_OWN = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - where runs must not be


def check(submission: Submission, site: Site) -> None:
    """Ask SLURM whether it would take every job; nothing is queued or written.

    Raises:
        UserError: it would not, or the nodes cannot see the run directories.
    """
    _check_places(plan.run for plan in submission.plans)
    if submission.profile.container is None:  # jobs run by this interpreter
        _check_packages()
    taken: set[tuple[str, int]] = set()
    for job in submission.jobs:
        asked, kind = asked_for(job, submission.profile), (job.stage, job.elements)
        check_partition(site, job.stage, asked.partition, asked.time_minutes)
        if kind in taken:
            continue
        taken.add(kind)
        text, ignored = render(job, submission.profile), overruled(asked)
        found = ask("sbatch", "--test-only", given=text, ignored=ignored, timeout_s=TIMEOUT_S)
        if found.returncode != 0 and _WAITS.search(found.stderr):
            log.warning("stage %s will wait: %s", job.stage, gist(found.stderr))
        elif found.returncode != 0:
            keys = (f"{key} {value}" for key, value in asked.model_dump().items() if value)
            raise ConfigError(
                f"stage {job.stage} ({', '.join(keys)}): SLURM refuses it: {gist(found.stderr)}; "
                f"change the profile, and see `sinfo` for what there is"
            )


def submit(
    plan: Plan,
    profile: SlurmProfile,
    cluster: str,
    command: Sequence[str],
    *,
    max_running: int | None = None,
) -> tuple[Submission, Jobs]:
    """Plan, check and queue what is missing of a plan; ``command`` is what the user typed.

    Raises:
        UserError: SLURM is not there, or refuses a job; then nothing is queued.
    """
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(provenance)  # git answers while SLURM does
        site = ask_site()
        submission = plan_submission(plan, profile, cluster, site, max_running=max_running)
        if not submission.plans:
            return submission, {}
        check(submission, site)
    with _ended_by_signal():
        return submission, queue(submission, command, found.result())


def queue(submission: Submission, command: Sequence[str], found: dict[str, Any]) -> Jobs:
    """Queue every job of what :func:`check` found right, or when SLURM refuses one, none.

    Raises:
        UserError: SLURM refused, or a run is at work already.
        CardamageError: SLURM refused one job, and would not cancel those before it.
    """
    plans, jobs = submission.plans, by_run(submission.jobs)
    holder = submission.studies[0].study if submission.studies else plans[0].run
    snapshot = take_snapshot(holder, found=found)
    if snapshot.name != submission.jobs[0].code.name:
        raise RunError("the code was edited while it was being submitted; submit it again")
    claimed: list[tuple[RunPaths, LaunchRecord]] = []
    ids: dict[str, str] = {}
    _end_cut_off(plans)
    before = ask_queue(job for plan in plans for job in unfinished_jobs(plan.run))
    comment, slurm_cluster = f"cardamage-{uuid.uuid4().hex[:12]}", before.cluster or cluster_name()
    committed = holder.slurm / f"{comment}.json"

    def take(plan: RunPlan) -> None:
        if plan.run != holder:
            share_snapshot(snapshot, plan.run)
        if all(study.study != plan.run for study in submission.studies):
            # Should the machine crash before it is on disk, the same command writes it again.
            open_run(plan.run, plan.experiment, flushed=False)
        stages = jobs[plan.run.root]
        commands = {stage: ["sbatch", str(job.script)] for stage, (job, _) in stages.items()}
        record = new_launch("slurm", submission.cluster, command, commands)
        in_turn = [stage for stage, (job, _) in stages.items() if job.takes_turns]
        record = replace(
            record,
            in_turn=in_turn,
            slurm_cluster=slurm_cluster,
            comment=comment,
            submission=str(committed),
        )
        claim(plan.run, record, before)
        claimed.append((plan.run, record))
        _prepare(plan.run, stages)

    def keep(one: tuple[RunPaths, LaunchRecord]) -> None:
        run, record = one
        release(run, replace(record, jobs=submitted[run.root]))

    try:
        _open_studies(submission)
        _for_each(take, plans)
        links = {link: logs for job in submission.jobs for link, logs in job.links().items()}
        _for_each(_lead, links.items())
        for job in submission.jobs:
            needs = ",".join(need.option(ids) for need in job.after)
            ids[job.label] = StageExecutor(job, submission.profile, needs, comment).queue()
        submitted = _by_root(jobs, ids)
        for root, slots in slot_jobs(submission.jobs, ids).items():
            submitted[root] |= slots
        # From here on all of it counts, should this process be killed, and before none: until then
        # no job begins.
        write_json(committed, {str(root): of_run for root, of_run in submitted.items()})
    except BaseException:
        try:
            _withdraw(list(ids.values()))
        finally:
            committed.unlink(missing_ok=True)
            for run, record in claimed:
                cancel_waiting(run, list(record.stages))
                release(run, record)
        raise
    _for_each(keep, claimed)
    committed.unlink()
    return submitted


def _by_root(
    jobs: Mapping[Path, Mapping[str, tuple[BatchJob, int]]], ids: Mapping[str, str]
) -> Jobs:
    return {
        root: {
            stage: f"{ids[job.label]}_{index}" if job.is_array else ids[job.label]
            for stage, (job, index) in stages.items()
        }
        for root, stages in jobs.items()
    }


def _end_cut_off(plans: Sequence[RunPlan]) -> None:
    """Tell of an earlier submission that was killed half-way, and cancel what is queued of it.

    Its jobs would end by themselves, as soon as they start.
    """
    launches = [read_launch(plan.run) for plan in plans]
    cut_off = {each.comment: each.started for each in launches if each and was_cut_off(each)}
    for comment, started in cut_off.items():
        jobs = commented(comment)
        _withdraw(jobs)
        ended = f"its jobs {', '.join(jobs)} are cancelled" if jobs else "none of its jobs is left"
        log.warning(
            "the submission of %s was cut off before all of it was queued: %s; all of it is "
            "submitted now",
            started,
            ended,
        )


def _open_studies(submission: Submission) -> None:
    for study in submission.studies:
        open_study(study.study, study.record)
        if study.search:
            open_search(study.study, study.search)


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Have a lost connection or SIGTERM raise Stopped, so that what is queued is withdrawn again.

    The second one is ignored: withdrawing takes a moment. Hang-ups that are ignored from the start,
    as under ``nohup``, stay ignored.
    """
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)

    def end(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(f"{signal.Signals(number).name} in the middle of submitting; submit it again")

    if threading.current_thread() is not threading.main_thread():
        numbers.clear()  # no other thread may
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _withdraw(jobs: Sequence[str]) -> None:
    """Take jobs out of the queue again, those that wait for others first."""
    if jobs:
        found = ask("scancel", *reversed(jobs), timeout_s=TIMEOUT_S)
        if found.returncode != 0:
            raise CardamageError(f"scancel {' '.join(jobs)} failed: {gist(found.stderr)}")


def _check_packages() -> None:
    """Raise ConfigError where what the stages import is not installed; nothing is imported."""
    for name in _IMPORTED:
        if find_spec(name) is None:
            raise ConfigError(
                f'{sys.executable} has no package "{name}", which the jobs need; run `pip install '
                f".` in the clone with it, or submit from the environment that has it"
            )


def _check_places(runs: Iterable[RunPaths]) -> None:
    """Refuse folders that every node has for itself, unless this machine is a node."""
    local = [(run, own) for run in runs for own in _NODES_OWN if run.root.is_relative_to(own)]
    if not local:
        return
    shown = ask("scontrol", "show", "nodes", "--oneliner", timeout_s=TIMEOUT_S).stdout
    nodes, host = re.findall(r"\b(?:NodeHostName|NodeName)=(\S+)", shown), socket.gethostname()
    if host not in nodes and host.partition(".")[0] not in nodes:
        run, own = local[0]
        raise RunError(
            f"{run.root}: {own} is another folder on each node; choose a place that all nodes "
            f"see with --runs-dir"
        )


def _prepare(run: RunPaths, stages: Iterable[str]) -> None:
    """Set the markers to ``waiting``, which they are where there is none, and count from zero."""
    for stage in stages:
        run.starts(stage).unlink(missing_ok=True)
        if run.stage(stage).is_file():
            wait(run, stage)


def _for_each(work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do the same for many runs at a time; the first that fails is told of."""
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(work, items))


def _lead(link_and_logs: tuple[Path, Path]) -> None:
    link, logs = link_and_logs
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(logs)
