"""How well two people agree on the damage of one photo, measured on photos labelled twice."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cardamage.data.coco.masks import paint
from cardamage.data.coco.records import ImageRecord
from cardamage.data.curation.copies import Photo, stem_of
from cardamage.data.images import resize_mask
from cardamage.data.pool import stop_if_unwanted
from cardamage.labels import MAX_CLASSES

_SIDE = 256  # copies of a photo may differ in size
_RESAMPLES = 2000


@dataclass(frozen=True)
class Agreement:
    """The Dice of two labellings of the same photos, pixels summed over photos.

    Attributes:
        photos: how many are labelled twice or more, not all alike.
        dice: of any damage against background.
        low, high: its 95 % percentile bootstrap interval over photos; wide with few photos.
        classes: by name, of each class that one of the labellings shows.
    """

    photos: int
    dice: float
    low: float
    high: float
    classes: dict[str, float] = field(default_factory=dict)


def label_agreement(
    images: Mapping[str, Sequence[ImageRecord]],
    copies: Sequence[Sequence[Photo]],
    class_of: Mapping[int, int],
    names: Sequence[str],
) -> Agreement | None:
    """The agreement on photos that are there more than once, each time with other labels.

    Copies with one Roboflow stem were labelled once, and so were those with equal masks.

    Args:
        images: by split.
        copies: groups of photos that look the same.
        class_of: the class id of every category id, background 0.
        names: of the classes 1, 2, ...
    """
    if len(names) > MAX_CLASSES:  # more than a mask can tell apart
        return None
    records = {(split, image.file_name): image for split, part in images.items() for image in part}
    photos = []
    for group in copies:
        stop_if_unwanted()
        of_stem = {stem_of(photo.name): (photo.split, photo.name) for photo in group}
        # One mask at a time: there may be thousands of copies, most of them labelled alike.
        masks = (_mask(records[place], class_of) for place in of_stem.values() if place in records)
        different = list({mask.tobytes(): mask for mask in masks}.values())
        if len(different) > 1:
            photos.append(different)
    return agreement(photos, names)


def agreement(
    photos: Sequence[Sequence[NDArray[np.uint8]]], names: Sequence[str]
) -> Agreement | None:
    """The agreement of the labellings of each photo; None without photos or damage.

    All pairs of a photo's labellings count, together as much as the one pair of another photo.

    Args:
        photos: of each its masks, class ids of shape (H, W).
        names: of the classes 1, 2, ...; 254 at most.
    """
    classes = len(names) + 1
    both, either = (np.zeros((len(photos), classes)) for _ in range(2))  # [:, 0]: any damage
    for number, masks in enumerate(photos):
        pairs = list(combinations(masks, 2))
        for one, other in pairs:
            for i in range(classes):
                a, b = (one == i, other == i) if i else (one > 0, other > 0)
                both[number, i] += np.count_nonzero(a & b) / len(pairs)
                either[number, i] += np.count_nonzero(a) / len(pairs)
                either[number, i] += np.count_nonzero(b) / len(pairs)
    if not either[:, 0].sum():
        return None
    drawn = np.random.default_rng(0).integers(0, len(photos), (_RESAMPLES, len(photos)))
    wholes = either[drawn, 0].sum(axis=1)
    dices = 2 * both[drawn, 0].sum(axis=1)[wholes > 0] / wholes[wholes > 0]
    low, high = np.quantile(dices, [0.025, 0.975])
    pooled = {
        name: float(2 * both[:, i].sum() / either[:, i].sum())
        for i, name in enumerate(names, start=1)
        if either[:, i].any()
    }
    dice = float(2 * both[:, 0].sum() / either[:, 0].sum())
    return Agreement(len(photos), dice, float(low), float(high), pooled)


def _mask(record: ImageRecord, class_of: Mapping[int, int]) -> NDArray[np.uint8]:
    return resize_mask(paint(record, class_of).mask, (_SIDE, _SIDE))
