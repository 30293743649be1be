"""What ``submit`` does for a SLURM profile: print the scripts, or queue the jobs."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

from cardamage.console import log
from cardamage.errors import UserError
from cardamage.provenance import provenance
from launch import slurm, submission
from launch.plan import Plan
from launch.profiles import SlurmProfile
from launch.sbatch import BatchJob, absolute, render
from launch.submission import Submission, dependencies, plan_submission


def describe(plan: Plan, profile: SlurmProfile, cluster: str, max_running: int | None) -> None:
    """Print every batch script as it would be submitted; needs no SLURM, and changes nothing."""
    site = slurm.UNKNOWN_SITE
    if slurm.is_installed():
        try:
            slurm.ping()
            site = slurm.site()
        except UserError as error:
            log.warning("%s; SLURM's own defaults are taken for the site's", error)
    planned = plan_submission(plan, profile, cluster, site, max_running=max_running)
    for each in planned.plans:
        goes_on = "goes on" if each.run.root.is_dir() else "new"
        print(f"# {each.experiment.name}: {each.run.root} ({goes_on})")
    _say_complete(plan, planned)
    jobs = planned.batches.jobs
    print(f"\n# jobs: {len(jobs)}, each under the name of its script")
    for job in jobs:
        print(f"#   {job.label}: {_in_words(job)}; waits for: {dependencies(job)}")
    for number, job in enumerate(jobs, start=1):
        print(f"\n# {number}. {_in_words(job)}; waits for: {dependencies(job)}")
        print(f"# {job.script}")
        print(render(job, profile).rstrip())


def submit(plan: Plan, profile: SlurmProfile, cluster: str, max_running: int | None) -> Submission:
    """Check everything, queue every job, and print the ids.

    Raises:
        UserError: SLURM is not there, or refuses a job; then nothing is queued.
    """
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(provenance)  # git answers while SLURM does
        slurm.ping()
        site = slurm.site()
        planned = plan_submission(plan, profile, cluster, site, max_running=max_running)
        _say_complete(plan, planned)
        if not planned.plans:
            return planned
        submission.check(planned, site)
    ids = submission.submit(planned, sys.argv, found.result())
    for each in planned.plans:
        jobs = ", ".join(f"{stage} {job}" for stage, job in ids[each.run.root].items())
        print(f"{each.experiment.name}: {jobs}")
    return planned


def _say_complete(plan: Plan, planned: Submission) -> None:
    """Name the runs that were asked for and have nothing to do."""
    there = {each.run.root for each in planned.plans}
    for each in plan.plans:
        if absolute(each.run.root) not in there:
            stages = ", ".join(job.stage for job in each.jobs)
            print(f"{each.experiment.name}: nothing to do: {stages} of {each.run.root} is done")


def _in_words(job: BatchJob) -> str:
    if not job.is_array:
        return f"job {job.name}"
    return f"array {job.name} of {len(job.works)} jobs"
