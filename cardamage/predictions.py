"""What is kept of predictions on photos: maps, sheets to look at, and the rows of a table."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.images import resize_image, resize_mask
from cardamage.data.photos import Photo
from cardamage.drawing import contact_sheet, legend, overlay, stacked
from cardamage.files import write_bytes
from cardamage.metrics import scores
from cardamage.tally import confusion_counts

_VIEW_SIDE_PX = 640
"""Longest side of a photo on its sheet."""
_TITLE_PX = 26


@dataclass(frozen=True)
class Outcome:
    """What is known of one photo.

    Attributes:
        row: its row of the table.
        counts: int64 (C, C), pixels by true and predicted class; None for a photo without a mask.
    """

    row: dict[str, float | int | str]
    counts: NDArray[np.int64] | None


def keep(
    photo: Photo,
    image: Image.Image,
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    *,
    out: Path,
    class_names: Sequence[str],
) -> Outcome:
    """Publish ``<photo>.png``, the class ids in 8-bit grey, and ``<photo>.overlay.jpg``.

    Args:
        photo: the photo's file.
        image: its pixels.
        predicted: class ids, uint8 (H, W) of the photo.
        truth: what a person drew, uint8 (H, W), if anyone did.
        out: the folder they go to.
        class_names: by class id, background first.
    """
    row: dict[str, float | int | str] = {"image": photo.path.name}
    row |= {"width": image.width, "height": image.height}
    row |= class_shares(predicted, class_names)
    counts = None
    if truth is not None:
        counts = count_pixels(truth, predicted, len(class_names))
        row |= photo_scores([counts], class_names)
    write_bytes(out / f"{photo.name}.png", _encoded(Image.fromarray(predicted), "PNG"))
    sheet = draw_sheet(image, predicted, truth, class_names)
    write_bytes(out / f"{photo.name}.overlay.jpg", _encoded(sheet, "JPEG"))
    return Outcome(row, counts)


def rows(outcomes: Sequence[Outcome]) -> list[dict[str, float | int | str]]:
    """The rows of a table of all photos: the scores of those without a mask are NaN."""
    columns = max((outcome.row for outcome in outcomes), key=len)
    return [{name: outcome.row.get(name, math.nan) for name in columns} for outcome in outcomes]


def count_pixels(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int
) -> NDArray[np.int64]:
    """Pixels by true and predicted class, int64 (C, C), of two maps of one size."""
    predicted_ids = torch.from_numpy(predicted).long()[None]
    counts = confusion_counts(predicted_ids, torch.from_numpy(truth)[None], classes)
    found: NDArray[np.int64] = counts[0].numpy()
    return found


def class_shares(predicted: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, float]:
    """``share[<class>]``, the share of the pixels of each class, background included."""
    pixels = np.bincount(predicted.ravel(), minlength=len(class_names))
    return {
        f"share[{n}]": int(p) / predicted.size for n, p in zip(class_names, pixels, strict=True)
    }


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
    image: Image.Image,
    predicted: NDArray[np.uint8],
    truth: NDArray[np.uint8] | None,
    class_names: Sequence[str],
) -> Image.Image:
    """The photo, the prediction over it, what a person drew over it; the legend below them.

    Photos of all sizes are shown equally large, their longest side 640 pixels.

    Args:
        image: the photo, RGB.
        predicted: class ids, uint8 (H, W) of the photo.
        truth: what a person drew, uint8 (H, W), if anyone did.
        class_names: by class id, background first.
    """
    scale = _VIEW_SIDE_PX / max(image.size)
    size = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    pixels = np.asarray(resize_image(image, size))
    views = [("photo", pixels), ("predicted", overlay(pixels, resize_mask(predicted, size)))]
    if truth is not None:
        views.append(("drawn by hand", overlay(pixels, resize_mask(truth, size))))
    row = [(title, Image.fromarray(view)) for title, view in views]
    return stacked(contact_sheet([row], title_px=_TITLE_PX), legend(class_names))


def _encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()
