"""What is kept of predictions on photos: maps, sheets to look at, and the rows of a table."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.images import resize_image, resize_mask
from cardamage.data.photos import Photo, Truth, read_photo
from cardamage.drawing import (
    BACKDROP,
    ClassRow,
    class_table,
    contact_sheet,
    heading,
    overlay,
    stacked,
)
from cardamage.files import write_bytes, write_json
from cardamage.instances import PhotoInstances, coco_content, find_instances
from cardamage.metrics import scores
from cardamage.predict import ClassMap
from cardamage.tables import Row, write_table

SUMMARIES = ("predictions.csv", "predictions.json", "predictions.coco.json")
"""Written last, so that a folder that has them is complete."""

_VIEW_SIDE_PX, _WIDE_VIEW_PX = 640, 844
"""Longest side of a photo on its sheet, and of a wide one, which has a row to itself."""

_NARROWEST_VIEW_PX = 240
"""A narrower photo gets margins on its sheet, so that its title fits."""

_NARROWEST_SHEET_PX = 860
_TITLE_PX = 26
_PIXELS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Prepared:
    """What is kept of a photo while it is predicted on, which may itself be very large.

    Attributes:
        photo: its file.
        size: width and height in pixels, upright.
        pixels: what the model sees, RGB at the model's size, uint8 (H, W, 3).
        view: what its sheet shows.
    """

    photo: Photo
    size: tuple[int, int]
    pixels: NDArray[np.uint8]
    view: Image.Image


@dataclass(frozen=True)
class Outcome:
    """What is known of one photo.

    Attributes:
        row: its row of the table.
        counts: int64 (C, C), pixels by true and predicted class; None for a photo without a mask.
        instances: the regions found in it.
    """

    row: dict[str, float | int | str]
    counts: NDArray[np.int64] | None
    instances: PhotoInstances


def prepare(photo: Photo, image_size: tuple[int, int]) -> Prepared:
    """Read a photo, and make it as large as the model and the sheet want it.

    Args:
        photo: its file.
        image_size: height and width the model was trained at, in pixels.

    Raises:
        DataError: it cannot be read.
    """
    image = read_photo(photo)
    scale = (_WIDE_VIEW_PX if _is_wide(image) else _VIEW_SIDE_PX) / max(image.size)
    view_size = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    pixels = np.asarray(resize_image(image, image_size))
    return Prepared(photo, image.size, pixels, resize_image(image, view_size))


def keep(
    prepared: Prepared,
    found: ClassMap,
    truth: Truth | None,
    *,
    out: Path,
    class_names: Sequence[str],
    source: str,
    simplify_px: float,
) -> Outcome:
    """Publish ``<photo>.png``, the class ids in 8-bit grey, and ``<photo>.overlay.jpg``.

    Args:
        prepared: the photo.
        found: what the model says, at the photo's size.
        truth: what a person drew, at the photo's size, if anyone did.
        out: the folder they go to.
        class_names: by class id, background first.
        source: what predicted, for the sheet.
        simplify_px: how far the outlines of regions may stray.
    """
    photo, (width, height) = prepared.photo, prepared.size
    row: dict[str, float | int | str] = {"image": photo.path.name, "width": width, "height": height}
    row |= class_shares("share", found.ids, class_names)
    counts = None
    if truth is not None:
        row |= class_shares("drawn", truth.mask, class_names)
        row["overlapped_pixels"] = truth.overlapped_pixels
        counts = count_pixels(truth.mask, found.ids, len(class_names))
        row |= photo_scores([counts], class_names)
    write_bytes(out / f"{photo.name}.png", _encoded(Image.fromarray(found.ids), "PNG"))
    sheet = draw_sheet(
        prepared.view,
        found.ids,
        None if truth is None else truth.mask,
        class_names,
        row,
        words=f"{width} x {height} pixels, {source}",
    )
    write_bytes(
        out / f"{photo.name}.overlay.jpg", _encoded(sheet, "JPEG", quality=92, subsampling=0)
    )
    regions = find_instances(found.ids, found.confidence, simplify_px=simplify_px)
    return Outcome(row, counts, PhotoInstances(photo.path.name, width, height, regions))


def summarise(
    outcomes: Sequence[Outcome], out: Path, class_names: Sequence[str], facts: Mapping[str, object]
) -> dict[str, float]:
    """Write :data:`SUMMARIES`, and return the scores of the photos with a mask.

    Args:
        outcomes: of all photos.
        out: the folder they go to.
        class_names: by class id, background first.
        facts: what predicted: ``run``, ``checkpoint`` and what else is worth keeping.
    """
    counts = [outcome.counts for outcome in outcomes if outcome.counts is not None]
    totals = photo_scores(counts, class_names) if counts else {}
    table = rows(outcomes)
    write_table(out / "predictions.csv", table)
    summary = {
        **facts,
        "classes": class_names,
        "images_with_mask": len(counts),
        "scores": without_nan(totals),
        "images": [without_nan(row) for row in table],
    }
    write_json(out / "predictions.json", summary)
    description = f"{facts['run']}, {facts['checkpoint']}"
    found = coco_content([outcome.instances for outcome in outcomes], class_names, description)
    write_json(out / "predictions.coco.json", found)
    return totals


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, float | int | str]]:
    """The rows of a table of all photos: the scores of those without a mask are NaN."""
    columns = max((outcome.row for outcome in outcomes), key=len)
    return [{name: outcome.row.get(name, math.nan) for name in columns} for outcome in outcomes]


def without_nan(row: Row) -> dict[str, float | int | str | None]:
    """A row as JSON can hold it: null for what is undefined."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in row.items()
    }


def count_pixels(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Pixels by true and predicted class, int64 (C, C), of two maps of one size."""
    counts = np.zeros(classes * classes, np.int64)
    for start in range(0, truth.size, _PIXELS_AT_ONCE):  # a pair takes eight times a pixel's room
        part = slice(start, start + _PIXELS_AT_ONCE)
        pairs = truth.ravel()[part].astype(np.int64) * classes + predicted.ravel()[part]
        counts += np.bincount(pairs, minlength=classes * classes)
    return counts.reshape(classes, classes)


def class_shares(name: str, ids: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, float]:
    """``<name>[<class>]``, the share of the pixels of each class, background included."""
    pixels = Image.fromarray(ids).histogram()  # which needs no room, unlike bincount
    return {f"{name}[{c}]": n / ids.size for c, n in zip(class_names, pixels, strict=False)}


def photo_scores(
    counts: Sequence[NDArray[np.int64]], class_names: Sequence[str]
) -> dict[str, float]:
    """The scores of photos as :func:`cardamage.metrics.scores` has them, but for the loss.

    Args:
        counts: int64 (C, C) of each photo, at least one, as :func:`count_pixels` gives them.
        class_names: by class id, background first.
    """
    row = scores(np.stack(counts), np.full(len(counts), np.nan), class_names)
    del row["loss"]
    return row


def draw_sheet(
    view: Image.Image,
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    class_names: Sequence[str],
    row: Row,
    *,
    words: str,
) -> Image.Image:
    """The photo, the prediction over it, what a person drew over it; a table of classes below.

    Wide photos stand one above another, others side by side. The table has the classes that occur.

    Args:
        view: the photo, RGB, as large as it is to be shown.
        predicted: class ids, uint8 (H, W) of the photo, which may be larger.
        truth: what a person drew, likewise, if anyone did.
        class_names: by class id, background first.
        row: the photo's row of the table of all photos.
        words: what stands under the photo's name, before its scores.
    """
    size = view.height, view.width
    pixels = np.asarray(view)
    nothing = "" if predicted.any() else ": nothing"
    views = [("photo", pixels)]
    views.append((f"predicted{nothing}", overlay(pixels, resize_mask(predicted, size))))
    columns = {"predicted": "share"}
    if truth is not None:
        nothing = "" if truth.any() else ": nothing"
        views.append((f"drawn by hand{nothing}", overlay(pixels, resize_mask(truth, size))))
        columns |= {"drawn": "drawn", "Dice": "dice", "IoU": "iou"}
        named = (("dice", "Dice"), ("iou", "IoU"), ("accuracy", "accuracy"))
        words = ", ".join([words, *(f"{name} {_shown(key, row[key])}" for key, name in named)])
    table = [
        ClassRow(i, name, [_shown(key, row.get(f"{key}[{name}]", "")) for key in columns.values()])
        for i, name in enumerate(class_names)
        if i == 0 or row[f"share[{name}]"] or row.get(f"drawn[{name}]")
    ]
    cells = [(name, _widened(Image.fromarray(shown))) for name, shown in views]
    grid = [[cell] for cell in cells] if _is_wide(view) else [cells]
    panels = contact_sheet(grid, title_px=_TITLE_PX)
    width = max(panels.width, _NARROWEST_SHEET_PX)
    return stacked(
        heading(str(row["image"]), words, width_px=width),
        panels,
        class_table(list(columns), table, width_px=width),
    )


def _is_wide(image: Image.Image) -> bool:
    return image.width > 2 * image.height


def _shown(key: str, value: float | str) -> str:
    """A share as percent, a score with three digits."""
    if isinstance(value, str) or math.isnan(value):
        return ""
    if key not in ("share", "drawn"):
        return f"{value:.3f}"
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def _widened(picture: Image.Image) -> Image.Image:
    """A picture with margins where it is narrow."""
    if picture.width >= _NARROWEST_VIEW_PX:
        return picture
    canvas = Image.new("RGB", (_NARROWEST_VIEW_PX, picture.height), BACKDROP)
    canvas.paste(picture, ((canvas.width - picture.width) // 2, 0))
    return canvas


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()
