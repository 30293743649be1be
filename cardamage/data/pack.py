"""Packing: a COCO export becomes a folder of shards, once for all experiments that pack alike.

The folder's name ends in a fingerprint of what is packed and how, so shards never go stale: another
export or other options make another folder. Every tar appears whole or not at all, and the manifest
last. Hence the same call goes on after an interruption, keeps the tars that are there, and returns
at once when nothing is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from cardamage.config import SubsetBy
from cardamage.console import EventLog, Progress, log
from cardamage.data.coco import ImageRecord, read_export
from cardamage.data.make_shard import JPEG_QUALITY, ImageFormat, MadeShard, Recipe, ShardTask
from cardamage.data.pack_folder import discard, held, is_complete, remove_leftovers, warn_of_strays
from cardamage.data.pack_pool import make_shards
from cardamage.data.shards import (
    VERSION,
    Manifest,
    SplitRecord,
    fault_in_size,
    read_manifest,
    write_manifest,
)
from cardamage.data.source import ANNOTATIONS, ImageSource
from cardamage.data.strata import stratified_order
from cardamage.errors import DataError, MachineFault, of_storage
from cardamage.files import sha256_of, write_bytes
from cardamage.labels import BACKGROUND, map_categories
from cardamage.paths import SPLITS, ShardPaths
from cardamage.processes import count_cores

SAMPLES_PER_SHARD = 64
"""Small enough that a few hundred images keep every core busy to the end."""


@dataclass(frozen=True)
class Packing:
    """What is to be packed, where to, and what is there of it.

    Attributes:
        paths: the shard folder, which need not exist.
        fingerprint: of what is packed and how; see :func:`fingerprint`.
        samples: images of each split that are used.
        complete: nothing is left to do.
        check: shards count as whole when their bytes are those that were packed, and not by size.
    """

    paths: ShardPaths
    fingerprint: str
    samples: dict[str, int]
    complete: bool
    check: bool
    source: Path
    options: dict[str, Any]
    recipe: Recipe
    records: dict[str, tuple[ImageRecord, ...]]
    """By split; empty when complete, for then the annotations are not read."""


def pack(
    source: Path,
    *,
    classes: Mapping[str, Sequence[str]],
    drop: Sequence[str] = (),
    image_size: tuple[int, int],
    subset: float = 1.0,
    subset_by: SubsetBy = "name",
    image_format: ImageFormat = "jpg",
    shards_dir: Path,
    events: EventLog | None = None,
    workers: int | None = None,
) -> Path:
    """Pack an export, or what is missing of it, and return the shard folder.

    Arguments and errors are those of :func:`prepare` and :func:`make`.
    """
    packing = prepare(
        source,
        classes=classes,
        drop=drop,
        image_size=image_size,
        subset=subset,
        subset_by=subset_by,
        image_format=image_format,
        shards_dir=shards_dir,
    )
    return make(packing, events=events, workers=workers)


def prepare(
    source: Path,
    *,
    classes: Mapping[str, Sequence[str]],
    drop: Sequence[str] = (),
    image_size: tuple[int, int],
    subset: float = 1.0,
    subset_by: SubsetBy = "name",
    image_format: ImageFormat = "jpg",
    shards_dir: Path,
    check: bool = False,
) -> Packing:
    """Check an export against the options and find its shard folder; writes nothing.

    Args:
        source: a COCO export, folder or .zip.
        classes: category names of each class, in the order of the class ids 1, 2, ...
        drop: category names that stay background.
        image_size: height and width to pack at, in pixels.
        subset: share of every split that is used, at least one image.
        subset_by: which share: see :func:`subset_of`.
        image_format: how images are stored.
        shards_dir: the parent of shard folders.
        check: read every shard that is there, and have those made again whose bytes are not those
            that were packed; else their sizes are gone by.

    Raises:
        DataError: the export is wrong, or its categories and ``classes`` disagree.
    """
    options = {
        "classes": {name: sorted(group) for name, group in classes.items()},
        "drop": sorted(drop),
        "image_size": list(image_size),
        "subset": float(subset),
        "image_format": image_format,
        "samples_per_shard": SAMPLES_PER_SHARD,
    }
    if subset < 1 and subset_by != "name":
        options["subset_by"] = subset_by  # only here, so that shards of before stay as they are
    with closing(ImageSource(source)) as files:
        digest = fingerprint(files, options)
    paths = ShardPaths(shards_dir / f"{dataset_name(source)}-{digest[:12]}")
    complete = is_complete(paths, digest, check=check)
    records: dict[str, tuple[ImageRecord, ...]] = {}
    class_of: dict[int, int] = {}
    if complete:
        splits = read_manifest(paths).splits
        samples = {split: splits[split].samples for split in SPLITS}
    else:
        export = read_export(source)
        class_of = map_categories(export.categories, export.used_categories(), classes, drop)
        records = {
            split: subset_of(export.splits[split].images, subset, subset_by) for split in SPLITS
        }
        samples = {split: len(images) for split, images in records.items()}
    recipe = Recipe(class_of, len(classes) + 1, image_size, image_format)
    return Packing(paths, digest, samples, complete, check, source, options, recipe, records)


def make(packing: Packing, *, events: EventLog | None = None, workers: int | None = None) -> Path:
    """Make what is missing of a packing and return its folder.

    Args:
        packing: as :func:`prepare` returned it.
        events: where progress goes besides the screen.
        workers: processes; None for one on each core this process may use.

    Raises:
        DataError: an image is broken or not of the size its annotations say; then nothing is left
            of a folder that was not complete before. Or the folder cannot be written; then whole
            shards stay, for the next call to keep.
    """
    paths = packing.paths
    if packing.complete:
        log.info("%s is complete", paths.root)
        warn_of_strays(paths)
        return paths.root
    try:
        with held(paths.root):
            # Another process may have made it meanwhile.
            if not is_complete(paths, packing.fingerprint, check=packing.check):
                _make(packing, events, workers or count_cores())
    except OSError as error:
        known = of_storage(error)
        if isinstance(known, MachineFault):
            raise known from error
        raise DataError(
            f"{error.filename or paths.root} cannot be written ({error.strerror}); "
            f"make room, or choose another place with data.shards_dir"
        ) from error
    warn_of_strays(paths)
    return paths.root


def fingerprint(source: ImageSource, options: Mapping[str, Any]) -> str:
    """Hex SHA-256 of what is packed and how.

    That is each split's annotation file, the name and size of each of its images, the options, the
    rasteriser and the version of the layout. Where the export lies is no part of it, nor is the
    version of Pillow, whose JPEGs may differ in the last bit.

    Raises:
        DataError: a split or its annotation file is missing.
    """
    content = {
        "version": VERSION,
        "rasteriser": _rasteriser(),
        # The order of the classes counts, and JSON objects have none.
        "options": {**options, "classes": list(options["classes"].items())},
        "splits": {split: _fingerprint_split(source, split) for split in SPLITS},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def subset_of(
    images: tuple[ImageRecord, ...], share: float, by: SubsetBy
) -> tuple[ImageRecord, ...]:
    """The share of a split that is used, rounded, at least one image; by file name, as they come.

    It depends on the export alone, neither on the classes nor on an experiment's seed, and a larger
    share holds the images of a smaller one.

    Args:
        images: a split's images by file name.
        share: how much of them.
        by: ``name`` takes the first; ``stratified`` keeps the share of images that show each
            category of the export.
    """
    count = max(1, round(share * len(images)))
    match by:
        case "name":
            return images[:count]
        case "stratified":
            labels = [{a.category_id for a in image.annotations} for image in images]
            order = stratified_order([image.file_name for image in images], labels)
            return tuple(images[position] for position in sorted(order[:count]))
        case _:
            assert_never(by)


def dataset_name(source: Path) -> str:
    """The dataset's name for folders: of the source's own name, what is safe everywhere."""
    path = source.resolve()
    name = path.stem if path.is_file() else path.name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "dataset"


def _fingerprint_split(source: ImageSource, split: str) -> dict[str, str]:
    if split not in source.splits():
        raise DataError(
            f"{source.source} has no {split}/; export with {', '.join(SPLITS)}, or split it with "
            f"`python jobs/split.py {shlex.quote(str(source.source))} OUT`"
        )
    with source.open(split, ANNOTATIONS) as stream:
        annotations = hashlib.file_digest(stream, "sha256").hexdigest()
    files = hashlib.sha256()
    for name in sorted(source.names(split)):
        files.update(json.dumps([name, source.size(split, name)]).encode())
    return {"annotations": annotations, "files": files.hexdigest()}


def _rasteriser() -> str:
    return f"pycocotools {version('pycocotools')}"


def _make(packing: Packing, events: EventLog | None, workers: int) -> None:
    paths = packing.paths
    remove_leftovers(paths)
    tasks = _tasks(packing)
    source = ImageSource(packing.source)
    total = sum(packing.samples.values())
    log.info("packing %d images into %s", total, paths.root)
    try:
        with Progress("pack", total, "images", events=events) as progress:
            shards = make_shards(tasks, source, packing.recipe, workers=workers, progress=progress)
    except DataError:
        if not paths.manifest.exists():
            discard(paths)
        raise
    finally:
        source.close()
    if kept := sum(shard.kept for shard in shards):
        log.info("kept %d of %d shards", kept, len(shards))
    if skipped := sum(shard.skipped_annotations for shard in shards):
        log.warning("%d annotations paint nothing: jobs/audit.py names them", skipped)
    splits = {}
    for split in SPLITS:
        pairs = zip(tasks, shards, strict=True)
        splits[split] = _finish_split(
            paths, split, [shard for task, shard in pairs if task.split == split]
        )
    manifest = Manifest(
        version=VERSION,
        dataset=dataset_name(packing.source),
        fingerprint=packing.fingerprint,
        class_names=[BACKGROUND, *packing.options["classes"]],
        options=packing.options,
        image_size=packing.recipe.image_size,
        rasteriser=_rasteriser(),
        encoder=f"Pillow {version('pillow')}, JPEG quality {JPEG_QUALITY} 4:4:4",
        splits=splits,
    )
    write_manifest(paths, manifest)


def _tasks(packing: Packing) -> list[ShardTask]:
    """One task a shard; shards the manifest knows must hash to what it says to be kept."""
    known = _known_hashes(packing)
    tasks = []
    for split, records in packing.records.items():
        starts = range(0, len(records), SAMPLES_PER_SHARD)
        for number, first in enumerate(starts):
            tasks.append(
                ShardTask(
                    path=packing.paths.shard(split, number),
                    split=split,
                    number=number,
                    first=first,
                    records=records[first : first + SAMPLES_PER_SHARD],
                    sha256=known.get((split, number)),
                )
            )
    return tasks


def _known_hashes(packing: Packing) -> dict[tuple[str, int], str]:
    if not packing.paths.manifest.exists():
        return {}
    try:
        manifest = read_manifest(packing.paths)
    except DataError as error:
        log.warning("%s; going by the shards themselves", error)
        return {}
    known = {}
    for split, record in manifest.splits.items():
        for number, shard in enumerate(record.shards):
            path = packing.paths.shard(split, number)
            if fault := fault_in_size(path, shard.bytes):
                log.warning("%s %s: packing it again", path, fault)
            known[split, number] = shard.sha256
    return known


def _finish_split(paths: ShardPaths, split: str, shards: list[MadeShard]) -> SplitRecord:
    stream = io.BytesIO()
    np.save(stream, np.concatenate([shard.index for shard in shards]), allow_pickle=False)
    write_bytes(paths.index(split), stream.getvalue())
    return SplitRecord(
        samples=sum(shard.record.samples for shard in shards),
        shards=[shard.record for shard in shards],
        index_sha256=sha256_of(paths.index(split)),
        pixels=np.sum([shard.pixels for shard in shards], axis=0).tolist(),
        overlapped_pixels=sum(shard.overlapped_pixels for shard in shards),
    )
