"""What is checked before anything starts or is written, as far as it is quick.

A mistake found here costs a second; the pack stage, which audits the whole dataset, may come hours
later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cardamage.config import SYNTHETIC, Data
from cardamage.data.source import ANNOTATIONS, ImageSource
from cardamage.errors import DataError, RunError
from cardamage.labels import Category, map_categories
from cardamage.paths import SPLITS, RunPaths
from cardamage.stages import read_stage
from launch.job_queue import ask_queue
from launch.plan import RunPlan
from launch.record import check_free, unfinished_jobs

_QUICK_BYTES = 16 << 20
"""Annotation files larger than this together take long to read; they are left to the pack stage."""


def check(plans: Iterable[RunPlan], *, data_may_come: bool = False) -> list[str]:
    """Check runs; a dataset that several pack is looked into once.

    Args:
        plans: the runs.
        data_may_come: let datasets be absent that are still to be packed.

    Returns:
        The datasets that are absent.

    Raises:
        UserError: one cannot run; the message says why and what to do.
    """
    looked_into: set[str] = set()
    absent: dict[str, None] = {}
    plans = list(plans)
    for plan in plans:
        _check_place(plan.run)
    queue = ask_queue(job for plan in plans for job in unfinished_jobs(plan.run))
    for plan in plans:
        check_free(plan.run, queue)
        _check_upstream(plan)
        if plan.has("pack"):
            data = plan.experiment.data
            if (packing := json.dumps(data.packing())) in looked_into:
                continue
            looked_into.add(packing)
            if data_may_come and data.source != SYNTHETIC and not Path(data.source).exists():
                absent[data.source] = None
            else:
                _check_source(data)
    return list(absent)


def _check_place(run: RunPaths) -> None:
    """Raise RunError unless the run directory is writable or can be made."""
    place = run.root
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise RunError(
            f"{run.root}: the run directory cannot be made, since {place} is not a folder; "
            f"choose another place with --runs-dir"
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise RunError(
            f"{run.root}: the run directory cannot be written, since {place} is not writable; "
            f"choose another place with --runs-dir"
        )


def _check_upstream(plan: RunPlan) -> None:
    """Raise RunError when a stage needs one that is neither done nor about to run."""
    chosen = {job.stage for job in plan.jobs}
    for job in plan.jobs:
        for stage in job.needs:
            state = read_stage(plan.run, stage).state
            if stage not in chosen and state != "done":
                raise RunError(
                    f"{plan.run.root}: stage {job.stage} needs {stage}, which is {state}; "
                    f"add {stage} to --stages"
                )


def _check_source(data: Data) -> None:
    """Raise DataError unless the export has its splits, its annotations and the classes' names."""
    if data.source == SYNTHETIC:
        return
    source = ImageSource(Path(data.source))
    there = source.splits()
    for split in SPLITS:
        if split not in there:
            raise DataError(
                f"{data.source} has no folder {split}/; a COCO export has {', '.join(SPLITS)}"
            )
    sizes = [source.size(split, ANNOTATIONS) for split in SPLITS]
    if sum(sizes) <= _QUICK_BYTES:
        categories = _categories(source)
        map_categories(categories, (), data.class_groups, data.drop)
    source.close()


def _categories(source: ImageSource) -> Sequence[Category]:
    """The categories of all splits; records that are not as COCO has them are pack's to refuse."""
    by_id: dict[int, Category] = {}
    for split in SPLITS:
        try:
            top: Any = json.loads(source.read(split, ANNOTATIONS))
        except (ValueError, RecursionError):
            raise DataError(
                f"{source.source}: {split}/{ANNOTATIONS} is not JSON; export the dataset again"
            ) from None
        listed = top.get("categories") if isinstance(top, dict) else None
        for category in listed if isinstance(listed, list) else []:
            match category:
                case {"id": int(number), "name": str(name)}:
                    parent = str(category.get("supercategory", "none"))
                    by_id.setdefault(number, Category(number, name, parent))
    return list(by_id.values())
