"""What ``submit`` does for a SLURM profile: print the scripts, or queue the jobs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cardamage.console import log
from cardamage.errors import UserError
from cardamage.provenance import provenance
from launch import slurm, submission
from launch.plan import RunPlan
from launch.profiles import SlurmProfile
from launch.sbatch import BatchJob, render
from launch.submission import Submission, dependencies, plan_submission


def describe(
    plans: Sequence[RunPlan], profile: SlurmProfile, cluster: str, max_running: int | None
) -> None:
    """Print every batch script as it would be submitted; needs no SLURM, and changes nothing."""
    site = slurm.UNKNOWN_SITE
    if slurm.is_installed():
        try:
            slurm.ping()
            site = slurm.site()
        except UserError as error:
            log.warning("%s; SLURM's own defaults are taken for the site's", error)
    planned = plan_submission(plans, profile, cluster, site, max_running=max_running)
    for plan in planned.plans:
        goes_on = "goes on" if plan.run.config.is_file() else "new"
        print(f"# run {plan.experiment.name}: {plan.run.root} ({goes_on})")
    for number, job in enumerate(planned.batches.jobs, start=1):
        print(f"\n# {number}. {_in_words(job)}; waits for: {dependencies(job)}")
        print(f"# {job.script}")
        print(render(job, profile).rstrip())


def submit(
    plans: Sequence[RunPlan], profile: SlurmProfile, cluster: str, max_running: int | None
) -> Submission:
    """Check everything, queue every job, and print the ids.

    Raises:
        UserError: SLURM is not there, or refuses a job; then nothing is queued.
    """
    slurm.ping()
    site = slurm.site()
    planned = plan_submission(plans, profile, cluster, site, max_running=max_running)
    submission.check(planned, site)
    ids = submission.submit(planned, sys.argv, provenance())
    for plan in planned.plans:
        jobs = ", ".join(f"{stage} {job}" for stage, job in ids.get(plan.run.root, {}).items())
        print(f"{plan.experiment.name}: {jobs or 'nothing to do'}")
    print(f"see: python launch/status.py {' '.join(str(plan.run.root) for plan in plans[:3])}")
    return planned


def _in_words(job: BatchJob) -> str:
    if not job.is_array:
        return f"job {job.name}"
    return f"array {job.name} of {len(job.works)} jobs"
