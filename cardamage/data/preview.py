"""Pictures of an export for people to check: each photo, and beside it its masks drawn over."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cardamage.data.coco import ImageRecord, ImageSource, read_export
from cardamage.data.images import decode_image, resize_image, resize_mask
from cardamage.data.masks import paint
from cardamage.drawing import contact_sheet, legend, overlay, stacked
from cardamage.errors import DataError
from cardamage.files import new_folder
from cardamage.labels import BACKGROUND, MAX_CLASSES, unused_roots

_SMALLEST_PX = 480  # a smaller photo is enlarged, to be seen
_THUMBNAIL_PX = 240
_COLUMNS, _ROWS = 5, 4


def preview(source: Path, out: Path, *, splits: Sequence[str], limit: int) -> int:
    """Write ``sheet-<split>-<n>.jpg`` and ``<split>/<n>-<name>.jpg`` for some images of each split.

    Every category that is no unused root is a class of its own. The images are spread evenly over
    the split in the order of their names.

    Args:
        source: the export.
        out: a new or empty folder; it appears whole or not at all.
        splits: which splits.
        limit: how many images of each split at most.

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
    names = legend([BACKGROUND, *(category.name for category in classes)])
    files = ImageSource(source)
    drawn = 0
    with new_folder(out) as folder:
        for split in splits:
            records = export.splits[split].images
            shown = min(limit, len(records))
            chosen = [records[number * len(records) // shown] for number in range(shown)]
            (folder / split).mkdir()
            cells = []
            for number, record in enumerate(chosen):
                content = files.read(split, record.file_name)
                photo, masked = _draw(content, record, class_of)
                pair = contact_sheet([[(record.file_name, photo), ("", masked)]])
                name = f"{number:04d}-{_plain(Path(record.file_name).stem)}.jpg"
                stacked(pair, names).save(folder / split / name, quality=90)
                masked.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
                cells.append((record.file_name, masked))
            drawn += len(chosen)
            _write_sheets(folder, split, cells, names)
    files.close()
    return drawn


def _write_sheets(
    folder: Path, split: str, cells: Sequence[tuple[str, Image.Image]], names: Image.Image
) -> None:
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells), _COLUMNS)]
    for number, start in enumerate(range(0, len(rows), _ROWS), start=1):
        sheet = contact_sheet(rows[start : start + _ROWS], title_px=16)
        stacked(sheet, names).save(folder / f"sheet-{split}-{number:03d}.jpg", quality=90)


def _draw(
    content: bytes, record: ImageRecord, class_of: Mapping[int, int]
) -> tuple[Image.Image, Image.Image]:
    """The photo, and the photo with its masks."""
    photo = decode_image(content, size=(record.width, record.height), name=record.file_name)
    mask = paint(record, class_of).mask
    factor = max(1, math.ceil(_SMALLEST_PX / max(photo.size)))
    size = (photo.height * factor, photo.width * factor)
    photo = resize_image(photo, size)
    masked = overlay(np.asarray(photo), resize_mask(mask, size))
    return photo, Image.fromarray(masked)


def _plain(file_name: str) -> str:
    """ASCII letters, digits, dots, hyphens and underscores only, and not many: never a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", file_name)[:80]
