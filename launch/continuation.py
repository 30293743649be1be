"""Runs that continue other runs: who waits for whom, in which order, and whether that can be."""

from __future__ import annotations

from cardamage import config
from cardamage.continuation import check_epoch, check_fits, find_source, has_begun, source_run
from cardamage.errors import RunError
from launch.job_queue import ask_queue
from launch.plan import Plan, RunPlan
from launch.record import unfinished_jobs


def check_continued(plan: Plan, *, may_wait: bool) -> None:
    """Make sure that what runs continue is there, or is trained in the same submission.

    Args:
        plan: what is submitted.
        may_wait: whether jobs can wait for a training that was queued before.

    Raises:
        UserError: a source is missing, does not fit, or is not trained.
    """
    experiments = {each.run.root.resolve(): each for each in (*plan.plans, *plan.complete)}
    for each in plan.plans:
        continued = each.experiment.continue_from
        if continued is None or not each.has("train") or has_begun(each.run):
            continue
        if found := plan.continues.get(each.run):
            theirs = experiments[found.root.resolve()].experiment
            check_fits(each.experiment, theirs, found)
            if isinstance(continued.checkpoint, int):
                check_epoch(continued.checkpoint, theirs, found)
        elif not (may_wait and queued_training(each)):
            find_source(each.run, each.experiment, continued)


def queued_training(plan: RunPlan) -> str | None:
    """The job, queued before, that trains what a run continues; None where there is none.

    Raises:
        UserError: it trains what does not fit, or nobody can tell whether it is there.
    """
    continued = plan.experiment.continue_from
    if continued is None or has_begun(plan.run):
        return None
    other = source_run(plan.run, continued)
    jobs = [job for job, stage in unfinished_jobs(other).items() if stage == "train"]
    if not jobs:
        return None
    queue = ask_queue(jobs)
    state = queue.find(jobs[-1])
    if state is None or not state.is_there:
        if queue.problem:
            raise RunError(
                f"{plan.run.root} continues {other.root}, and nobody can tell whether job "
                f"{jobs[-1]} still trains that: {queue.problem}; submit it again when SLURM answers"
            )
        return None
    theirs = config.load(other.config)
    check_fits(plan.experiment, theirs, other)
    if isinstance(continued.checkpoint, int):
        check_epoch(continued.checkpoint, theirs, other)
    return jobs[-1]
