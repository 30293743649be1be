"""Pictures of an export for people to check: each photo, and beside it its masks drawn over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.console import Progress
from cardamage.data.coco import ImageRecord, ImageSource, read_export
from cardamage.data.images import decode_image, resize_image, resize_mask
from cardamage.data.masks import paint
from cardamage.drawing import (
    ClassRow,
    class_table,
    contact_sheet,
    heading,
    legend,
    overlay,
    stacked,
)
from cardamage.errors import DataError
from cardamage.files import new_folder
from cardamage.labels import BACKGROUND, MAX_CLASSES, unused_roots

Choice = Literal["spread", "random", "damaged"]
"""Which images: evenly over the names, by chance, or those with the largest share of damage."""

_SMALLEST_PX, _LARGEST_PX = 480, 960  # the longer side of a photo is brought between these
_THUMBNAIL_PX = 240
_COLUMNS, _ROWS = 5, 4


def preview(
    source: Path,
    out: Path,
    *,
    splits: Sequence[str],
    images: int,
    choice: Choice = "spread",
    seed: int = 0,
) -> int:
    """Write ``sheet-<split>-<n>.jpg`` and ``<split>/<n>-<name>.jpg`` for some images of each split.

    Every category that is no unused root is a class of its own.

    Args:
        source: the export.
        out: a new or empty folder; it appears whole or not at all.
        splits: which splits.
        images: how many of each split at most.
        choice: which.
        seed: of a choice by chance.

    Returns:
        How many images were drawn.

    Raises:
        ConfigError: ``out`` is not empty, or cannot be written.
        DataError: the export has an error, or more than 255 categories.
    """
    export = read_export(source)
    roots = unused_roots(export.categories, export.used_categories())
    classes = [category for category in export.categories if category not in roots]
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"{source} has {len(classes)} categories, and at most {MAX_CLASSES} can be told apart; "
            f"merge some"
        )
    class_of = {root.id: 0 for root in roots}
    class_of |= {category.id: number for number, category in enumerate(classes, start=1)}
    names = [BACKGROUND, *(category.name for category in classes)]
    files = ImageSource(source)
    drawn = 0
    with new_folder(out) as folder:
        for split in splits:
            records = export.splits[split].images
            chosen = choose(records, images, choice, class_of, seed)
            (folder / split).mkdir()
            thumbnails = []
            with Progress(f"draw {split}", len(chosen), "images") as progress:
                for number, record in enumerate(chosen):
                    content = files.read(split, record.file_name)
                    picture, thumbnail = _draw(content, record, class_of, names)
                    name = f"{number:04d}-{_plain(Path(record.file_name).stem)}.jpg"
                    _save(picture, folder / split / name)
                    thumbnails.append((record.file_name, thumbnail))
                    progress.advance()
            words = f"{len(chosen)} of {len(records)} images of {source.name}"
            _write_sheets(folder, split, thumbnails, names, words)
            drawn += len(chosen)
    files.close()
    return drawn


def choose(
    records: Sequence[ImageRecord],
    images: int,
    choice: Choice,
    class_of: Mapping[int, int],
    seed: int,
) -> list[ImageRecord]:
    """Some of the images of a split, in the order of their names, or the most damaged first.

    Args:
        records: all of them, by name.
        images: how many at most.
        choice: which.
        class_of: the class id of every category id; damage is what is not 0.
        seed: of a choice by chance.
    """
    shown = min(images, len(records))
    match choice:
        case "spread":
            return [records[number * len(records) // shown] for number in range(shown)]
        case "random":
            numbers = Random(seed).sample(range(len(records)), shown)  # noqa: S311 - no secret
            return [records[number] for number in sorted(numbers)]
        case "damaged":
            shares = [np.count_nonzero(_mask(r, class_of)) / (r.width * r.height) for r in records]
            order = sorted(range(len(records)), key=lambda number: -shares[number])
            return [records[number] for number in order[:shown]]
    assert_never(choice)


def _write_sheets(
    folder: Path,
    split: str,
    cells: Sequence[tuple[str, Image.Image]],
    names: Sequence[str],
    words: str,
) -> None:
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells), _COLUMNS)]
    for number, start in enumerate(range(0, len(rows), _ROWS), start=1):
        sheet = contact_sheet(rows[start : start + _ROWS], title_px=20)
        width = max(sheet.width, 3 * _THUMBNAIL_PX)
        title = split if len(rows) <= _ROWS else f"{split}, sheet {number}"
        whole = stacked(heading(title, words, width_px=width), sheet, legend(names, width_px=width))
        _save(whole, folder / f"sheet-{split}-{number:03d}.jpg")


def _draw(
    content: bytes, record: ImageRecord, class_of: Mapping[int, int], names: Sequence[str]
) -> tuple[Image.Image, Image.Image]:
    """The photo beside itself with its masks, over a table of its classes; and a thumbnail."""
    photo = decode_image(content, size=(record.width, record.height), name=record.file_name)
    mask = _mask(record, class_of)
    size = _shown_size(photo)
    photo = resize_image(photo, size)
    masked = Image.fromarray(overlay(np.asarray(photo), resize_mask(mask, size)))
    pixels = np.bincount(mask.ravel(), minlength=len(names))
    annotations = np.bincount(
        [class_of[a.category_id] for a in record.annotations], minlength=len(names)
    )
    rows = [
        ClassRow(
            i, name, [str(annotations[i]) if i else "", f"{100 * pixels[i] / mask.size:.1f} %"]
        )
        for i, name in enumerate(names)
        if i == 0 or annotations[i]
    ]
    pair = contact_sheet([[("photo", photo), ("annotated", masked)]], title_px=26)
    width = max(pair.width, 3 * _THUMBNAIL_PX)
    picture = stacked(
        heading(record.file_name, f"{record.width} x {record.height} pixels", width_px=width),
        pair,
        class_table(["annotations", "area"], rows, width_px=width),
    )
    masked.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return picture, masked


def _mask(record: ImageRecord, class_of: Mapping[int, int]) -> NDArray[np.uint8]:
    return paint(record, class_of).mask


def _shown_size(photo: Image.Image) -> tuple[int, int]:
    """Height and width: a small photo enlarged by a whole number, a large one made smaller."""
    longer = max(photo.size)
    factor = float(max(1, math.ceil(_SMALLEST_PX / longer)))
    factor = min(factor, _LARGEST_PX / longer)
    return max(1, round(photo.height * factor)), max(1, round(photo.width * factor))


def _save(picture: Image.Image, path: Path) -> None:
    picture.save(path, quality=90, subsampling=0)


def _plain(file_name: str) -> str:
    """ASCII letters, digits, dots, hyphens and underscores only, and not many: never a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", file_name)[:80]
