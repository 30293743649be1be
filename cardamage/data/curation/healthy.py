"""Dealing photos without damage to the splits of a dataset."""

from dataclasses import replace
from pathlib import Path

from cardamage.data.coco.healthy import SHARES, healthy_files
from cardamage.data.coco.records import Export, ImageRecord, SplitExport
from cardamage.data.coco.source import HEALTHY, ImageSource
from cardamage.data.curation.deal import deal
from cardamage.data.images import upright_size
from cardamage.errors import DataError
from cardamage.system.console import log


def with_healthy(
    export: Export, files: ImageSource, folder: Path, *, skip_broken: bool, workers: int | None
) -> Export:
    """The export with the photos of a folder dealt to its splits, without annotations.

    Raises:
        DataError: the folder holds too few photos, or one cannot be read.
    """
    records = []
    for number, path in enumerate(healthy_files(folder)):
        name = f"{HEALTHY}/{path.relative_to(folder).as_posix()}"
        try:
            width, height = upright_size(files.read(HEALTHY, name), name)
        except DataError:
            if not skip_broken:
                raise
            log.warning("data.healthy: %s cannot be read, and is left out", path)
            continue
        records.append(ImageRecord(f"{HEALTHY}-{number}", name, width, height, ()))
    pool = replace(export, splits={HEALTHY: SplitExport(HEALTHY, (), tuple(records), len(records))})
    shares = {split: SHARES[split] for split in export.splits}
    shares = {split: share / sum(shares.values()) for split, share in shares.items()}
    groups = deal(pool, files, shares, seed=0, skip_broken=skip_broken, workers=workers)
    by_name = {record.file_name: replace(record, lies_in=HEALTHY) for record in records}
    splits = {}
    for name, split in export.splits.items():
        added = [by_name[photo] for group in groups[name] for _, photo in group]
        images = sorted([*split.images, *added], key=lambda image: image.file_name)
        splits[name] = replace(split, images=tuple(images), listed=split.listed + len(added))
        log.info("%s: %d photos without damage join %d", name, len(added), len(split.images))
    return replace(export, splits=splits)
