"""Labels to look at: where the chosen checkpoint surely contradicts the truth.

A region is listed when the model is at least :data:`SURE` of it: a mark that the truth lacks, by
the chosen checkpoint alone; damage of the truth that it takes for background, by every late epoch.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cardamage.data.drawing import overlay
from cardamage.evaluation.disagreements import COLUMNS, KINDS, WORDS
from cardamage.evaluation.results import TestResult, read_result
from cardamage.report.load import RunResults
from cardamage.runs.tables import Row

SURE = 0.8
"""Mean probability, over the pixels of a region, from which on it is listed."""

MAX_LISTED, MAX_SHOWN = 500, 12
"""In the table, and with pictures on the page."""

_LATE = 1 / 3  # of the tested epochs, the last


@dataclass(frozen=True)
class Suspect:
    """A region where label and model contradict each other.

    Attributes:
        number: of its image in the split.
        kind: of :data:`~cardamage.evaluation.disagreements.KINDS`.
        box: left, top, width, height in pixels of the packed image.
        confidence: how sure the chosen checkpoint is, 0 to 1.
    """

    number: int
    kind: str
    class_name: str
    box: tuple[int, int, int, int]
    pixels: int
    confidence: float

    @property
    def words(self) -> str:
        """The kind, for people."""
        return WORDS[self.kind]


@dataclass(frozen=True)
class ShownSuspect:
    """A suspect with its pictures, RGB, uint8 of shape (h, w, 3): a part of the image around it.

    The region is framed. ``prediction`` is None where the predicted map was not kept.
    """

    suspect: Suspect
    file_name: str
    photo: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8] | None


def suspects_of(results: RunResults) -> list[Suspect] | None:
    """The suspects, large and sure ones first; None where testing kept no disagreements.

    Raises:
        RunError: a result is damaged.
    """
    found = _sure(results.result)
    if found is None:
        return None
    epochs = results.tested_epochs
    late = [epoch for epoch in epochs[-ceil(_LATE * len(epochs)) :] if epoch != results.best]
    for epoch in late:
        others = _sure(read_result(results.run.test_counts(results.experiment.test.split, epoch)))
        if others is not None:
            found = {
                place: suspect
                for place, suspect in found.items()
                if suspect.kind == "unlabelled" or place in others
            }
    return sorted(found.values(), key=lambda s: -s.pixels * s.confidence)[:MAX_LISTED]


def _sure(result: TestResult) -> dict[tuple[int, ...], Suspect] | None:
    """The sure disagreements of one result, by image, kind and place."""
    if result.damages is None or result.damages.disagreements is None:
        return None
    suspects: dict[tuple[int, ...], Suspect] = {}
    for row in result.damages.disagreements.tolist():
        values = dict(zip(COLUMNS, row, strict=True))
        if values["confidence"] < SURE:
            continue
        number, kind, class_id, top, left, height, width, pixels = map(int, row[:-1])
        suspects[number, kind, top, left, height, width, pixels] = Suspect(
            number=number,
            kind=KINDS[kind],
            class_name=result.class_names[class_id],
            box=(left, top, width, height),
            pixels=pixels,
            confidence=values["confidence"],
        )
    return suspects


def suspect_table(
    suspects: Sequence[Suspect] | None, keys: Sequence[str], file_names: Sequence[str]
) -> list[Row]:
    """The suspects as rows of a table; keys and file names are in the order of the split."""
    return [
        {
            "key": keys[suspect.number],
            "file_name": file_names[suspect.number],
            "what": suspect.words,
            "class": suspect.class_name,
            "confidence": round(suspect.confidence, 4),
            "pixels": suspect.pixels,
            **dict(zip(("left", "top", "width", "height"), suspect.box, strict=True)),
        }
        for suspect in suspects or ()
    ]


def shown_suspects(
    results: RunResults, suspects: Sequence[Suspect] | None, file_names: Sequence[str]
) -> list[ShownSuspect]:
    """The first suspects with pictures; none where the tested shards are not here.

    Raises:
        DataError: a shard is damaged.
    """
    result, manifest = results.result, results.manifest
    if results.shards is None or manifest is None or manifest.fingerprint != result.fingerprint:
        return []
    maps = dict(zip(result.map_samples.tolist(), result.maps, strict=True))
    shown = []
    with results.tested_split() as reader:
        for suspect in (suspects or ())[:MAX_SHOWN]:
            sample, png = reader.read(suspect.number), maps.get(suspect.number)
            part = _around(suspect.box, sample.mask.shape)
            predicted = np.asarray(Image.open(io.BytesIO(png)))[part] if png else None
            photo, frame = sample.image[part], _frame(suspect.box, sample.mask.shape, part)
            shown.append(
                ShownSuspect(
                    suspect=suspect,
                    file_name=file_names[suspect.number],
                    photo=frame(photo),
                    truth=frame(overlay(photo, sample.mask[part])),
                    prediction=None if predicted is None else frame(overlay(photo, predicted)),
                )
            )
    return shown


def _around(box: tuple[int, int, int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    """A square part of an image around a box, three times as large and at least a third of it."""
    left, top, width, height = box
    side = min(max(3 * max(width, height), max(shape) // 3), *shape)

    def along(start: int, length: int, whole: int) -> slice:
        first = min(max(0, start + length // 2 - side // 2), whole - side)
        return slice(first, first + side)

    return along(top, height, shape[0]), along(left, width, shape[1])


def _frame(
    box: tuple[int, int, int, int], shape: tuple[int, ...], part: tuple[slice, slice]
) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """Draws a white frame with a black line around it, a little outside of the box."""
    left, top, width, height = box
    inside = np.zeros(shape[:2], dtype=bool)
    inside[max(0, top - 2) : top + height + 2, max(0, left - 2) : left + width + 2] = True
    rings = []
    for colour in (255, 0):
        wider = ndimage.binary_dilation(inside, np.ones((3, 3)))
        rings.append(((wider & ~inside)[part], colour))
        inside = wider

    def framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = picture.copy()
        for ring, colour in rings:
            picture[ring] = colour
        return picture

    return framed
