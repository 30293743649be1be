"""What is kept of predictions on photos: maps, sheets to look at, and the rows of a table."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cardamage.data.drawing import (
    BACKDROP,
    ClassRow,
    class_table,
    contact_sheet,
    heading,
    overlay,
    stacked,
)
from cardamage.data.images import encoded, resize_image, resize_mask
from cardamage.evaluation.metrics import scores
from cardamage.labels import colour
from cardamage.predict.index_page import index_page
from cardamage.predict.instances import PhotoInstances, coco_content, find_instances
from cardamage.predict.maps import ClassMap
from cardamage.predict.photos import Photo, Truth, read_photo
from cardamage.runs.tables import Row, write_table
from cardamage.system.files import write_bytes, write_json, write_text

SUMMARIES = ("predictions.csv", "predictions.json", "predictions.coco.json", "index.html")
"""Written last, so that a folder that has them is complete."""

ANY_DAMAGE = "any damage"
"""What all classes but the background are together, where truth and prediction are scored so."""

_SHEET = ".overlay.jpg"
_VIEW_SIDE_PX, _WIDE_VIEW_PX = 640, 844
"""Longest side of a photo on its sheet, and of a wide one, which has a row to itself."""

_NARROWEST_VIEW_PX = 240
"""A narrower photo gets margins on its sheet, so that its title fits."""

_NARROWEST_SHEET_PX = 860
_TITLE_PX = 26
_PIXELS_AT_ONCE = 1 << 20


class Prepared(NamedTuple):
    """What is kept of a photo while it is predicted on, which may itself be very large."""

    photo: Photo
    size: tuple[int, int]
    """Width and height in pixels, upright."""
    pixels: NDArray[np.uint8]
    """What the model sees, RGB at the model's size, uint8 (H, W, 3)."""
    view: Image.Image
    """What its sheet shows."""


class Outcome(NamedTuple):
    """What is known of one photo."""

    row: dict[str, float | int | str]
    """Its row of the table."""
    counts: NDArray[np.int64] | None
    """Pixels by true and predicted class, int64 (C, C); None for a photo without a mask."""
    instances: PhotoInstances
    sheet: str = ""
    """The file name of its sheet."""

    @property
    def name(self) -> str:
        """What its files are named after."""
        return self.sheet.removesuffix(_SHEET)


def prepare(photo: Photo, image_size: tuple[int, int]) -> Prepared:
    """Read a photo; make it as large as the model (height, width) and the sheet want it.

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
    binary: bool = False,
) -> Outcome:
    """Publish ``<photo>.png``, the class ids with a palette, and ``<photo>.overlay.jpg``.

    ``found`` and ``truth`` have the photo's size; ``source`` names what predicted, for the sheet;
    ``simplify_px`` is how far the outlines of regions may stray. With ``binary`` the truth has ids
    0 and 1, and is compared with all that is predicted and not background.
    """
    photo, (width, height) = prepared.photo, prepared.size
    row: dict[str, float | int | str] = {"image": photo.path.name, "width": width, "height": height}
    row |= class_shares("share", found.ids, class_names)
    counts = None
    names = scored_names(class_names, binary=binary)
    if truth is not None:
        predicted = (found.ids > 0).astype(np.uint8) if binary else found.ids
        if binary:
            row |= class_shares("share", predicted, names)
        row |= class_shares("drawn", truth.mask, names)
        row["overlapped_pixels"] = truth.overlapped_pixels
        counts = count_pixels(truth.mask, predicted, len(names))
        row |= photo_scores([counts], names)
    write_bytes(out / f"{photo.name}.png", palette_png(found.ids))
    sheet = draw_sheet(
        prepared.view,
        found.ids,
        None if truth is None else truth.mask,
        class_names if truth is None or not binary else [*class_names, ANY_DAMAGE],
        row,
        words=f"{width} x {height} pixels, {source}",
    )
    name = f"{photo.name}{_SHEET}"
    write_bytes(out / name, encoded(sheet, "JPEG", quality=92, subsampling=0))
    regions = find_instances(found.ids, found.confidence, simplify_px=simplify_px)
    return Outcome(row, counts, PhotoInstances(photo.path.name, width, height, regions), name)


def scored_names(class_names: Sequence[str], *, binary: bool) -> Sequence[str]:
    """The names of what is scored, background first; with ``binary`` all damage is one class."""
    return (class_names[0], ANY_DAMAGE) if binary else class_names


def palette_png(ids: NDArray[np.uint8]) -> bytes:
    """A PNG of class ids, uint8 (H, W): read as an array they are themselves, seen as colours."""
    image = Image.fromarray(ids)
    image.putpalette([channel for class_id in range(256) for channel in colour(class_id)])
    return encoded(image, "PNG", bits=8)


def summarise(
    outcomes: Sequence[Outcome],
    out: Path,
    class_names: Sequence[str],
    facts: Mapping[str, object],
    *,
    binary: bool = False,
) -> dict[str, float]:
    """Write :data:`SUMMARIES` into ``out``, and return the scores of the photos with a mask.

    ``facts`` tells what predicted: ``run``, ``checkpoint`` and what else is worth keeping.
    """
    counts = [outcome.counts for outcome in outcomes if outcome.counts is not None]
    names = scored_names(class_names, binary=binary)
    totals = photo_scores(counts, names) if counts else {}
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
    sheets = [(outcome.sheet, outcome.row) for outcome in outcomes]
    write_text(out / "index.html", index_page(sheets, class_names, facts))
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
    """The scores of at least one photo, from its :func:`count_pixels`; there is no loss."""
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
        words: what stands under the photo's name, before its scores.
    """
    pixels = np.asarray(view)

    def masked(title: str, mask: NDArray[np.uint8]) -> tuple[str, NDArray[np.uint8]]:
        drawn = overlay(pixels, resize_mask(mask, (view.height, view.width)))
        return title if mask.any() else f"{title}: nothing", drawn

    views = [("photo", pixels), masked("predicted", predicted)]
    columns = {"predicted": "share"}
    if truth is not None:
        views.append(masked("drawn by hand", truth))
        columns |= {"drawn": "drawn", "Dice": "dice", "IoU": "iou"}
        named = (("dice", "Dice"), ("iou", "IoU"), ("accuracy", "accuracy"))
        words = ", ".join([words, *(f"{name} {_shown(key, row[key])}" for key, name in named)])
    table = [
        ClassRow(i, name, [_shown(key, row.get(f"{key}[{name}]", "")) for key in columns.values()])
        for i, name in enumerate(class_names)
        if i == 0 or row[f"share[{name}]"] or row.get(f"drawn[{name}]")
    ]
    margin = max(0, _NARROWEST_VIEW_PX - view.width)
    border = (margin // 2, 0, margin - margin // 2, 0)
    cells = [(name, ImageOps.expand(Image.fromarray(v), border, BACKDROP)) for name, v in views]
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
