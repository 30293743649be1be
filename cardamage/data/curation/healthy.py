"""Photos without damage, from a folder beside a dataset whose photos all have some."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cardamage.data.coco.layout import IMAGE_ENDINGS
from cardamage.data.coco.records import Export, ImageRecord, SplitExport
from cardamage.data.coco.source import HEALTHY, ImageSource
from cardamage.data.curation.deal import deal
from cardamage.data.images import upright_size
from cardamage.errors import DataError
from cardamage.system.console import log

SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
"""Of the photos, for each split that the dataset has; copies of a photo stay together."""


def healthy_files(folder: Path) -> list[Path]:
    """The photos of a folder, those in folders inside it too, in the order of their names.

    Raises:
        DataError: it is no folder, or holds fewer photos than there are splits.
    """
    if not folder.is_dir():
        raise DataError(f"data.healthy: {folder} is no folder; name one of photos without damage")
    found = sorted(path for path in _walk(folder) if path.suffix.lower() in IMAGE_ENDINGS)
    if len(found) < len(SHARES):
        raise DataError(
            f"data.healthy: {folder} holds {len(found)} photos ({', '.join(IMAGE_ENDINGS)}); "
            f"give {len(SHARES)} or more, so that each split has one"
        )
    return found


def with_healthy(
    export: Export, files: ImageSource, folder: Path, *, skip_broken: bool, workers: int | None
) -> Export:
    """The export with photos that have no annotations dealt to its splits, by :data:`SHARES`.

    Raises:
        DataError: see :func:`healthy_files`; or a photo cannot be read.
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


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            yield path
