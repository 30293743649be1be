"""What is checked before anything starts or is written, as far as it is quick."""

import json
import os
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from cardamage.config import loading
from cardamage.config.dataset import SYNTHETIC, Data
from cardamage.config.trackers import require_installed
from cardamage.data.coco.categories import Category, category_name, map_categories
from cardamage.data.coco.healthy import healthy_files
from cardamage.data.coco.layout_check import require_splits
from cardamage.data.coco.source import ImageSource
from cardamage.errors import DataError, RunError, did_you_mean, require_extra
from cardamage.launch.planning.graph import Plan, RunPlan
from cardamage.launch.planning.plan import choose_stages, make_plan
from cardamage.launch.planning.profiles import Profile, SlurmProfile, choose_profile, load_profile
from cardamage.launch.watching.queue import ask_queue
from cardamage.launch.watching.record import check_free, read_launch, unfinished_jobs
from cardamage.runs.continued import check_fits, find_source, has_begun, source_run
from cardamage.runs.lookup import locate
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage

_QUICK_BYTES = 16 << 20
"""Annotation files larger than this together take long to read; they are left to the pack stage."""


def plan_checked(
    words: Sequence[str],
    overrides: Sequence[str],
    runs_dir: Path,
    *,
    stages: str | None = None,
    cluster: str | None = None,
    data_may_come: bool = False,
    given_up: Collection[RunPaths] = (),
) -> tuple[Plan, str, Profile, list[str]]:
    """What a submission of configs by name or path would run; writes nothing.

    Returns:
        The plan, the profile's name, the profile, and what would be refused of absent datasets.

    Raises:
        UserError: something cannot run; the message says why and what to do.
    """
    cluster = choose_profile(cluster)
    profile, chosen = load_profile(cluster), choose_stages(stages)
    configs = [locate(word, runs_dir) for word in words]
    plan = make_plan(configs, overrides, runs_dir, chosen, given_up)
    runs = (*plan.plans, *plan.comparisons)
    for each in runs:
        _check_place(each.run)
        require_installed(each.experiment.track)
        if each.experiment.notify and each.experiment.notify.url:
            require_extra("apprise", "notify")
        if each.experiment.data.storage:
            each.experiment.data.storage.require_package()
    queue = ask_queue(job for each in runs for job in unfinished_jobs(each.run))
    for each in runs:
        check_free(each.run, queue)
        _check_upstream(each)
    packed = [each.experiment.data for each in runs if "pack" in each.stages]
    absent = []
    for data in {json.dumps(data.packing()): data for data in packed}.values():
        if data.source == SYNTHETIC:
            continue
        if Path(data.source).exists():
            _check_source(data)
        elif data_may_come:
            absent.append(_absent(Path(data.source)))
        else:
            raise DataError(_absent(Path(data.source)))
    check_continued(plan, may_wait=isinstance(profile, SlurmProfile))
    return plan, cluster, profile, list(dict.fromkeys(absent))


def _check_place(run: RunPaths) -> None:
    """Raise RunError unless the run directory is writable or can be made."""
    place = run.root
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return
    why = "not writable" if place.is_dir() else "not a folder"
    raise RunError(
        f"{run.root}: the run directory cannot be made or written, since {place} is {why}; choose "
        f"another place with --runs-dir"
    )


def _check_upstream(plan: RunPlan) -> None:
    """Raise RunError when a stage needs one that is neither done nor about to run."""
    for stage in plan.stages:
        for before in plan.needs(stage):
            state = read_stage(plan.run, before).state
            if before not in plan.stages and state != "done":
                raise RunError(
                    f"{plan.run.root}: stage {stage} needs {before}, which is {state}; add "
                    f"{before} to --stages"
                )


def _check_source(data: Data) -> None:
    """Raise DataError unless the export has its splits, its annotations and the classes' names."""
    if data.healthy:
        healthy_files(Path(data.healthy))
    with closing(ImageSource(Path(data.source), data.annotations)) as source:
        require_splits(source, data.may_lack, takes_valid=data.valid_share is not None)
        if source.annotation_bytes() <= _QUICK_BYTES:
            map_categories(_categories(source), (), data.class_groups, data.drop)


def _absent(path: Path) -> str:
    """What is wrong with the path of a dataset that is not there; names what lies beside it."""
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    names = [found.name for found in beside if found.is_dir() or found.suffix == ".zip"]
    return (
        f"data.source: {path} does not exist{did_you_mean(path.name, names)}; give a folder or a "
        f".zip of a COCO export"
    )


def _categories(source: ImageSource) -> Sequence[Category]:
    """The categories of all splits; records that are not as COCO has them are pack's to refuse."""
    found: dict[tuple[int | float | str, str], Category] = {}
    for split in source.splits():
        try:
            top: Any = json.loads(source.annotations(split))
        except (ValueError, RecursionError):
            path = source.part(split).annotations
            raise DataError(
                f"{source.source}: {path} is not JSON; export the dataset again"
            ) from None
        match top:
            case {"categories": [*categories]}:
                for category in categories:
                    match category:
                        case {"id": int() | float() | str() as key, "name": str(name)}:
                            parent = str(category.get("supercategory", "none"))
                            known = Category(len(found), category_name(name), parent)
                            found.setdefault((key, known.name), known)
    return list(found.values())


def check_continued(plan: Plan, *, may_wait: bool) -> None:
    """Raise UserError unless what runs continue is trained and fits, or is submitted with them.

    With ``may_wait`` a training that was queued before does as well.
    """
    experiments = {each.run.root.resolve(): each for each in (*plan.plans, *plan.complete)}
    for each in plan.plans:
        continued = each.experiment.continue_from
        if continued is None or "train" not in each.stages or has_begun(each.run):
            continue
        if found := plan.continues.get(each.run):
            check_fits(each.experiment, experiments[found.root.resolve()].experiment, found)
        elif not (may_wait and queued_training(each)):
            find_source(each.run, each.experiment, continued)


def queued_training(plan: RunPlan) -> str | None:
    """The job, queued before, that trains what a run continues, which has to fit; None without."""
    continued = plan.experiment.continue_from
    if continued is None or has_begun(plan.run):
        return None
    other = source_run(plan.run, continued)
    jobs = [job for job, stage in unfinished_jobs(other).items() if stage == "train"]
    if not jobs:
        return None
    launch = read_launch(other)
    queue = ask_queue(jobs)
    if launch:
        queue = queue.of(launch.slurm_cluster, launch.comment)
    state = queue.find(jobs[-1])
    if state is None or not state.is_there:
        if queue.problem:
            raise RunError(
                f"{plan.run.root} continues {other.root}, and nobody can tell whether job "
                f"{jobs[-1]} still trains that: {queue.problem}; submit it again when SLURM answers"
            )
        return None
    check_fits(plan.experiment, loading.load(other.config), other)
    return jobs[-1]
