"""A search on this machine: one round after another, each planned from what the last one left."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from cardamage.errors import ExitStatus
from cardamage.launch.planning.graph import Plan, RunPlan
from cardamage.runs.missing import saved_progress
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.search.decide import has_failed_for_good

_STARTS = 3
"""So many starts in a row of a trial may fail without progress before it is given up."""


def run_rounds(
    plan: Plan,
    run_plan: Callable[[Plan], ExitStatus],
    plan_again: Callable[[Sequence[Path], Collection[RunPaths]], Plan],
) -> ExitStatus:
    """Run a plan, then what its searches decide next, until they are over or somebody stops it.

    Args:
        run_plan: runs all of a plan and returns how that ended.
        plan_again: plans searches by their folders, without the trials that are given up.

    Returns:
        How the last round ended; a trial that fails does not keep a search from its end.
    """
    searches = [study.study.root for study in plan.studies if study.search]
    failures: Counter[RunPaths] = Counter()
    progress: dict[RunPaths, tuple[int, int]] = {}
    given_up: set[RunPaths] = set()
    others = {each.run for each in plan.plans}
    others -= {each.run for study in plan.studies if study.search for each in study.plans}
    status, of_others = run_plan(plan), ExitStatus.DONE
    if others:
        of_others = status
    while searches and status is not ExitStatus.STOPPED:
        for each in plan.plans:
            if has_failed(each):
                here = saved_progress(each.run)
                failures[each.run] = 1 + (
                    failures[each.run] if progress.get(each.run) == here else 0
                )
                progress[each.run] = here
                if failures[each.run] >= _STARTS or _is_final(each):
                    given_up.add(each.run)
        had_runs, plan = bool(plan.plans), plan_again(searches, given_up)
        if not plan.plans and not (plan.comparisons and had_runs):
            break
        status = run_plan(plan)
    return of_others or status


def has_failed(plan: RunPlan) -> bool:
    """Whether a stage of a run that was started has failed."""
    return any(read_stage(plan.run, stage).state == "failed" for stage in plan.stages)


def _is_final(plan: RunPlan) -> bool:
    return any(has_failed_for_good(read_stage(plan.run, stage)) for stage in plan.stages)
