"""Packing: a COCO export becomes a folder of shards, once for all experiments that pack alike.

The folder's name ends in a fingerprint of what is packed and how, so shards never go stale: another
export or other options make another folder. Every tar appears whole or not at all, and the manifest
last. Hence the same call continues after an interruption, keeps the tars that are there, and
returns at once when nothing is missing.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cardamage.config.dataset import Boxes, PaintOrder, Storage, SubsetBy, may_lack
from cardamage.data.coco.categories import map_categories
from cardamage.data.coco.export import read_export
from cardamage.data.coco.healthy import healthy_files
from cardamage.data.coco.layout_check import require_splits
from cardamage.data.coco.source import ImageSource
from cardamage.data.curation.agreement import label_agreement
from cardamage.data.curation.copies import Photo, same_photo
from cardamage.data.curation.deal import dealt
from cardamage.data.curation.healthy import with_healthy
from cardamage.data.pool import results_of
from cardamage.data.shards.fingerprint import RASTERISER, dataset_name, digest_of_files, fingerprint
from cardamage.data.shards.folder import discard, held, is_complete, warn_of_strays
from cardamage.data.shards.lost import count_lost, refuse_nothing, warn_of_losses
from cardamage.data.shards.make import (
    JPEG_QUALITY,
    ImageFormat,
    Recipe,
    ShardTask,
    make_shard,
)
from cardamage.data.shards.manifest import (
    VERSION,
    AgreementRecord,
    Manifest,
    ShardRecord,
    SplitRecord,
    fault_in_size,
    read_manifest,
    write_manifest,
)
from cardamage.data.shards.selection import Selection, select, without_broken
from cardamage.data.shards.storage import StoredTars
from cardamage.data.shards.tar import Shard
from cardamage.errors import DataError, MachineFault, of_storage
from cardamage.labels import BACKGROUND
from cardamage.runs.paths import SPLITS, ShardPaths
from cardamage.system.console import EventLog, Progress, log
from cardamage.system.files import write_bytes
from cardamage.system.processes import count_cores

SAMPLES_PER_SHARD = 64
"""Small enough that a few hundred images keep every core busy to the end."""

_FEW = 100  # images: fewer are packed before a second process would have started


@dataclass(frozen=True)
class Packing:
    """What is to be packed, where to, and what is there of it; see :func:`prepare`."""

    paths: ShardPaths
    """The shard folder, which need not exist."""
    fingerprint: str
    samples: dict[str, int]
    """Images of each split that are used."""
    complete: bool
    """Nothing is left to do."""
    check: bool
    source: ImageSource
    options: dict[str, Any]
    recipe: Recipe
    selection: Selection
    """Empty when complete, for then the annotations are not read."""
    stored: StoredTars | None = None
    """Where tars go that do not stay in the folder."""


def pack(
    source: Path, *, events: EventLog | None = None, workers: int | None = None, **options: Any
) -> Path:
    """:func:`prepare` with these options, then :func:`make`; returns the shard folder."""
    return make(prepare(source, workers=workers, **options), events=events, workers=workers)


def prepare(
    source: Path,
    *,
    classes: Mapping[str, Sequence[str]],
    drop: Sequence[str] = (),
    image_size: tuple[int, int],
    subset: float = 1.0,
    subset_by: SubsetBy = "name",
    image_format: ImageFormat = "jpg",
    boxes: Boxes = "refuse",
    paint_order: PaintOrder = "file",
    skip_broken: bool = False,
    shards_dir: Path,
    annotations: Mapping[str, str] | None = None,
    shares: Sequence[float] | None = None,
    seed: int = 0,
    valid_share: float | None = None,
    folds: tuple[int, int] | None = None,
    healthy: Path | None = None,
    storage: Storage | None = None,
    check: bool = False,
    workers: int | None = None,
) -> Packing:
    """Check an export against the options and find its shard folder.

    It writes nothing, but for the manifest and indexes that another machine left in object storage.

    Args:
        classes: category names of each class, in the order of the class ids 1, 2, ...
        image_size: height and width to pack at, in pixels.
        subset: share of every split that is used, at least one image.
        annotations: annotation files by split, where several could be meant.
        shares: of train, valid and test, which all images are dealt to; None leaves the splits.
        seed: of the dealing to ``shares`` or ``folds``.
        valid_share: of train, which becomes the valid split; None where there is one.
        folds: into how many train and valid are dealt, and which of them is valid, from 0.
        healthy: a folder of photos without damage, dealt to the splits of the export.
        storage: the object storage that the shards go to; None leaves them in the folder.
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
    added = {
        "subset_by": subset_by if subset < 1 and subset_by != "name" else None,
        "boxes": boxes if boxes != "refuse" else None,
        "paint_order": paint_order if paint_order != "file" else None,
        "skip_broken": skip_broken,
        "split": {"shares": list(shares), "seed": seed} if shares else None,
        "valid_share": valid_share,
        "folds": {"of": folds[0], "fold": folds[1], "seed": seed} if folds else None,
        "healthy": digest_of_files(healthy_files(healthy), healthy) if healthy else None,
    }  # only where they matter, so that shards of before stay as they are
    options |= {key: value for key, value in added.items() if value}
    absent = may_lack(deals_all=bool(shares), deals_valid=bool(valid_share or folds))
    files = ImageSource(source, annotations, healthy=healthy)
    with closing(files):
        told = require_splits(files, absent, takes_valid=valid_share is not None)
        digest = fingerprint(files, options)
    name = f"{dataset_name(source)}-{digest[:12]}"
    # Apart from those that lie on this disk, which other runs may read.
    paths = ShardPaths(shards_dir / (f"{name}-stored" if storage else name))
    stored = StoredTars(storage, paths) if storage else None
    complete = is_complete(paths, digest, stored=stored, check=check)
    selection = Selection()
    class_of: dict[int, int] = {}
    if complete:
        splits = read_manifest(paths).splits
        samples = {split: splits[split].samples for split in SPLITS if split in splits}
    else:
        for line in told:
            log.info("%s: %s", source, line)
        export = read_export(source, annotations, may_lack=absent, skip_broken=skip_broken)
        class_of = map_categories(export.categories, export.used_categories(), classes, drop)
        with closing(files):
            export = dealt(
                export,
                files,
                shares=shares,
                seed=seed,
                valid_share=valid_share,
                folds=folds,
                skip_broken=skip_broken,
                workers=workers,
            )
            if healthy:
                export = with_healthy(
                    export, files, healthy, skip_broken=skip_broken, workers=workers
                )
        selection = select(export, class_of, subset=subset, subset_by=subset_by, boxes=boxes)
        samples = {split: len(images) for split, images in selection.images.items()}
    large_first = paint_order == "large_first"
    recipe = Recipe(class_of, len(classes) + 1, image_size, image_format, large_first)
    return Packing(
        paths, digest, samples, complete, check, files, options, recipe, selection, stored
    )


def make(packing: Packing, *, events: EventLog | None = None, workers: int | None = None) -> Path:
    """Make what is missing of a packing, by default on every core, and return its folder.

    Raises:
        DataError: an image is broken or not of the size its annotations say; then nothing is left
            of a folder that was not complete before; what is in object storage stays. Or the folder
            cannot be written; then whole shards stay, for the next call to keep.
    """
    paths = packing.paths
    if packing.complete:
        log.info("%s is complete", paths.root)
        if packing.stored and paths.manifest.name not in packing.stored.sizes(paths.root):
            packing.stored.upload_manifest(read_manifest(paths))  # it was killed before
    else:
        try:
            with held(paths.root):
                # Another process may have made it meanwhile.
                if not is_complete(
                    paths, packing.fingerprint, stored=packing.stored, check=packing.check
                ):
                    _make(packing, events, workers or count_cores())
        except OSError as error:
            if isinstance(known := of_storage(error), MachineFault):
                raise known from error
            raise DataError(
                f"{error.filename or paths.root} cannot be written ({error.strerror}); "
                f"make room, or choose another place with data.shards_dir"
            ) from error
    warn_of_strays(paths)
    return paths.root


def _make(packing: Packing, events: EventLog | None, workers: int) -> None:
    paths = packing.paths
    for part in paths.root.glob("**/.*.part"):  # of processes that were killed
        part.unlink(missing_ok=True)
    source = packing.source
    total = sum(packing.samples.values())
    if packing.options.get("skip_broken"):
        found = without_broken(packing.selection, source, 1 if total < _FEW else workers)
        packing = replace(packing, selection=found)
        total = sum(map(len, found.images.values()))
    tasks = _tasks(packing)
    log.info("packing %d images into %s", total, paths.root)
    calls = [partial(make_shard, task, source, packing.recipe, packing.stored) for task in tasks]
    shards: dict[str, list[Shard]] = {split: [] for split in packing.samples}
    kept = 0
    try:
        with (
            closing(source),
            closing(results_of(calls, 1 if total < _FEW else workers, what="packing")) as made,
            Progress("pack", total, "images", events=events) as progress,
        ):
            for task, (shard, was_there) in zip(tasks, made, strict=True):
                shards[task.split].append(shard)
                kept += was_there
                progress.advance(len(task.records))
        splits = {split: _finish_split(packing, split, made) for split, made in shards.items()}
    except DataError:
        if not paths.manifest.exists():
            discard(paths)
        raise
    if kept:
        log.info("kept %d of %d shards", kept, len(tasks))
    manifest = Manifest(
        version=VERSION,
        dataset=dataset_name(packing.source.source),
        fingerprint=packing.fingerprint,
        class_names=[BACKGROUND, *packing.options["classes"]],
        options=packing.options,
        image_size=packing.recipe.image_size,
        rasteriser=RASTERISER,
        encoder=f"Pillow {version('pillow')}, JPEG quality {JPEG_QUALITY} 4:4:4",
        splits=splits,
    )
    if agreed := _agreement(packing, shards):  # an absent one is not written
        manifest = manifest.model_copy(update={"label_agreement": agreed})
    write_manifest(paths, manifest)
    if packing.stored:
        packing.stored.upload_manifest(manifest)


def _agreement(packing: Packing, shards: Mapping[str, list[Shard]]) -> AgreementRecord | None:
    """How far labels agree of photos that were labelled more than once, before they are resized."""
    photos = [
        Photo(split, info["file_name"], f"{split}/{info['file_name']}".encode(), int(look, 16))
        for split, made in shards.items()
        for shard in made
        for info in shard.infos
        if (look := info.get("look"))
    ]
    names, class_of = [*packing.options["classes"]], packing.recipe.class_of
    found = label_agreement(packing.selection.images, same_photo(photos), class_of, names)
    return AgreementRecord(**asdict(found)) if found else None


def _tasks(packing: Packing) -> list[ShardTask]:
    """One task a shard; shards the manifest knows must hash to what it says to be kept."""
    known = _known_hashes(packing)
    return [
        ShardTask(
            path=packing.paths.shard(split, number),
            split=split,
            number=number,
            first=first,
            records=records[first : first + SAMPLES_PER_SHARD],
            sha256=known.get((split, number)),
        )
        for split, records in packing.selection.images.items()
        for number, first in enumerate(range(0, len(records), SAMPLES_PER_SHARD))
    ]


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
            if not packing.stored and (fault := fault_in_size(path, shard.bytes)):
                log.warning("%s %s: packing it again", path, fault)
            known[split, number] = shard.sha256
    return known


def _finish_split(packing: Packing, split: str, shards: list[Shard]) -> SplitRecord:
    """Write a split's index; what is lost is said, and refused where it is all."""
    stream, recipe = io.BytesIO(), packing.recipe
    np.save(stream, np.concatenate([shard.index for shard in shards]), allow_pickle=False)
    write_bytes(packing.paths.index(split), stream.getvalue())
    infos = [info for shard in shards for info in shard.infos]
    record = SplitRecord(
        samples=len(infos),
        shards=[
            ShardRecord(samples=len(shard.infos), bytes=shard.bytes, sha256=shard.sha256)
            for shard in shards
        ],
        index_sha256=hashlib.sha256(stream.getvalue()).hexdigest(),
        pixels=np.array([info["pixels"] for info in infos]).sum(axis=0).tolist(),
        overlapped_pixels=sum(info["overlapped_pixels"] for info in infos),
    )
    names, chosen = [BACKGROUND, *packing.options["classes"]], packing.selection
    told = {
        "lost": count_lost(infos, chosen.images[split], recipe.class_of, names),
        "left_out": chosen.left_out[split],
    }
    record = record.model_copy(update={key: value for key, value in told.items() if value})
    warn_of_losses(split, record, recipe.image_size, large_first=recipe.large_first)
    refuse_nothing(split, record, packing.source.source, subset=packing.options["subset"] < 1)
    return record
