"""Pictures of an export for people to check: each photo, and beside it its masks drawn over."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.config.dataset import Boxes, PaintOrder
from cardamage.data.coco.boxes import settle_boxes
from cardamage.data.coco.categories import map_categories, unused_roots
from cardamage.data.coco.export import read_export
from cardamage.data.coco.masks import paint
from cardamage.data.coco.records import Export, ImageRecord
from cardamage.data.coco.source import ImageSource
from cardamage.data.drawing import (
    ClassRow,
    class_table,
    contact_sheet,
    heading,
    legend,
    overlay,
    stacked,
)
from cardamage.data.images import LEAVE_OUT, decode_image, resize_image, resize_mask
from cardamage.errors import DataError, did_you_mean
from cardamage.labels import BACKGROUND, MAX_CLASSES
from cardamage.runs.paths import SPLITS
from cardamage.system.console import Progress, log
from cardamage.system.files import new_folder

Choice = Literal["spread", "random", "damaged"]
"""Which images: evenly over the names, by chance, or those with the largest share of damage."""

_SMALLEST_PX, _LARGEST_PX = 480, 960  # the longer side of a photo is brought between these
_THUMBNAIL_PX = 240
_COLUMNS, _ROWS = 5, 4


def preview(
    source: Path,
    out: Path,
    *,
    splits: Sequence[str] | None = None,
    images: int,
    annotations: Mapping[str, str] | None = None,
    choice: Choice = "spread",
    seed: int = 0,
    category: str | None = None,
    classes: Mapping[str, Sequence[str]] | None = None,
    drop: Sequence[str] = (),
    boxes: Boxes = "refuse",
    paint_order: PaintOrder = "file",
    skip_broken: bool = False,
) -> int:
    """Write ``sheet-<split>-<n>.jpg`` and ``<split>/<n>-<name>.jpg`` for some images of each split.

    Without ``classes`` every category that is no unused root is a class of its own.

    Args:
        out: a new or empty folder; it appears whole or not at all.
        splits: which; None for all there are.
        images: how many of each split at most.
        category: only images that show this category, or class, are chosen from.
        classes: category names of each class, to draw masks as they would be packed; so are the
            options after it.
        annotations: annotation files by split, where several could be meant.

    Returns:
        How many images were drawn.

    Raises:
        ConfigError: ``out`` is not empty, or cannot be written.
        DataError: the export has an error, or more than 255 categories, or no such ``category``;
            ``classes`` and ``drop`` do not suit it.
    """
    export = read_export(source, annotations, may_lack=SPLITS, skip_broken=skip_broken)
    if absent := set(splits or ()) - {*export.splits}:
        raise DataError(f"{source} has no split {absent.pop()}; it has {', '.join(export.splits)}")
    names, class_of = _name_classes(export, classes, drop)
    wanted = _ids_of(category, export, names, class_of) if category is not None else None
    files = ImageSource(source, annotations)
    drawn = 0
    with new_folder(out) as folder:
        for split in splits or export.splits:
            records = settle_boxes(export.splits[split].images, class_of, boxes)
            if wanted is not None:
                records = tuple(
                    r for r in records if any(a.category_id in wanted for a in r.annotations)
                )
            chosen = choose(records, images, choice, class_of, seed)
            (folder / split).mkdir()
            thumbnails = []
            with Progress(f"draw {split}", len(chosen), "images") as progress:
                for number, record in enumerate(chosen):
                    progress.advance()
                    painted = paint(record, class_of, large_first=paint_order == "large_first")
                    try:
                        content = files.read(split, record.file_name)
                        picture, thumbnail = _draw(content, record, painted.mask, class_of, names)
                    except DataError as error:
                        if not skip_broken:
                            raise
                        log.warning("%s", error)
                        continue
                    name = f"{number:04d}-{_plain(Path(record.file_name).stem)}.jpg"
                    save(picture, folder / split / name)
                    thumbnails.append((record.file_name, thumbnail))
            which = "" if category is None else f' that show "{category}"'
            words = f"{len(chosen)} of {len(records)} images of {source.name}{which}"
            _write_sheets(folder, split, thumbnails, names, words)
            drawn += len(thumbnails)
    files.close()
    return drawn


def _name_classes(
    export: Export, classes: Mapping[str, Sequence[str]] | None, drop: Sequence[str]
) -> tuple[list[str], dict[int, int]]:
    """The names of the class ids, background first, and the class id of every category id."""
    used = export.used_categories()
    if classes is not None:
        return [BACKGROUND, *classes], map_categories(export.categories, used, classes, drop)
    roots = unused_roots(export.categories, used)
    found = [category for category in export.categories if category not in roots]
    if len(found) > MAX_CLASSES:
        raise DataError(
            f"{export.source} has {len(found)} categories, and at most {MAX_CLASSES} can be told "
            f"apart; merge some with --config"
        )
    class_of = {root.id: 0 for root in roots}
    class_of |= {category.id: number for number, category in enumerate(found, start=1)}
    return [BACKGROUND, *(category.name for category in found)], class_of


def _ids_of(
    name: str, export: Export, names: Sequence[str], class_of: Mapping[int, int]
) -> set[int]:
    """The category ids of a category or class."""
    known = {category.id: category.name for category in export.categories}
    ids = {i for i in known if known[i] == name or (class_of[i] and names[class_of[i]] == name)}
    if not ids:
        listed = sorted({*known.values(), *names[1:]})
        raise DataError(
            f'there is no category "{name}"{did_you_mean(name, listed)}; '
            f"there are: {', '.join(listed)}"
        )
    return ids


def choose(
    records: Sequence[ImageRecord],
    images: int,
    choice: Choice,
    class_of: Mapping[int, int],
    seed: int,
) -> list[ImageRecord]:
    """Some of the images of a split, in the order of their names, or the most damaged first.

    Args:
        images: how many at most.
        class_of: the class id of every category id; damage is what is not 0.
    """

    def damage(number: int) -> float:
        record = records[number]
        return np.count_nonzero(_mask(record, class_of)) / (record.width * record.height)

    return [records[number] for number in pick(len(records), images, choice, damage, seed)]


def pick(
    count: int, images: int, choice: Choice, damage: Callable[[int], float], seed: int
) -> list[int]:
    """At most ``images`` of the numbers from 0 up to ``count``.

    Args:
        damage: the share of a numbered image that is damaged, asked for where the choice needs it.
    """
    shown = min(images, count)
    match choice:
        case "spread":
            return [number * count // shown for number in range(shown)]
        case "random":
            return sorted(Random(seed).sample(range(count), shown))  # noqa: S311 - no secret
        case "damaged":
            shares = [damage(number) for number in range(count)]
            return sorted(range(count), key=lambda number: -shares[number])[:shown]
    assert_never(choice)


def save(picture: Image.Image, path: Path) -> None:
    """Write a JPEG in which thin outlines keep their colours."""
    picture.save(path, quality=90, subsampling=0)


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
        save(whole, folder / f"sheet-{split}-{number:03d}.jpg")


def _draw(
    content: bytes,
    record: ImageRecord,
    mask: NDArray[np.uint8],
    class_of: Mapping[int, int],
    names: Sequence[str],
) -> tuple[Image.Image, Image.Image]:
    """The photo beside itself with its masks, over a table of its classes; and a thumbnail."""
    sides, name = (record.width, record.height), record.file_name
    photo = decode_image(content, size=sides, name=name, remedy=LEAVE_OUT)
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


def _plain(file_name: str) -> str:
    """ASCII letters, digits, dots, hyphens and underscores only, and not many: never a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", file_name)[:80]
