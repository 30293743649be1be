"""Where a label and a model contradict each other, region by region, for people to look at.

Regions are of any damage and touch along sides or corners (8-connectivity). There are two kinds:

- *unlabelled*: a mark of which less than :data:`~cardamage.evaluation.damages.SHARE` is damage by
  the label. Its confidence is the mean foreground probability of its pixels.
- *unfound*: a damage of the label that the model takes for background. Its confidence is the mean
  background probability of its pixels.

Either may be wrong, the label or the model.
"""

import numpy as np
from numpy.typing import NDArray

from cardamage.evaluation.damages import SHARE, TOUCHING

KINDS = ("unlabelled", "unfound")
WORDS = {"unlabelled": "marked, not labelled", "unfound": "labelled, not found"}
"""The kinds, for people."""

COLUMNS = ("image", "kind", "class", "top", "left", "height", "width", "pixels", "confidence")
"""Of a disagreement: its image in the split and its kind by number, its class by id."""

LEAST_CONFIDENCE = 0.5
MOST = 20
"""Of each kind and image the largest so many are kept."""


def find_disagreements(
    number: int,
    truth: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    foreground: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The disagreements on one image, float32 (M, 9) by :data:`COLUMNS`.

    Args:
        number: of the image in its split.
        truth: class ids (H, W), as ``predicted``.
        foreground: probability of any damage (H, W).
    """
    from scipy import ndimage  # noqa: PLC0415 - a third of a second, and not before a first step

    rows = []
    for kind, (ids, other, sure) in enumerate(
        ((predicted, truth > 0, foreground), (truth, None, 1 - foreground))
    ):
        labels, regions = ndimage.label(ids > 0, TOUCHING)
        if not regions:
            continue
        pixels = np.bincount(labels.ravel(), minlength=regions + 1)
        sums = np.bincount(labels.ravel(), weights=sure.ravel(), minlength=regions + 1)
        is_kept = sums >= LEAST_CONFIDENCE * pixels
        if other is not None:
            is_kept &= np.bincount(labels[other], minlength=regions + 1) < SHARE * pixels
        is_kept[0] = False
        kept = np.flatnonzero(is_kept)
        boxes = ndimage.find_objects(labels)
        for region in kept[np.argsort(-pixels[kept], kind="stable")][:MOST]:
            box = boxes[region - 1]
            classes = np.bincount(ids[box][labels[box] == region])
            (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
            place = top, left, bottom - top, right - left
            confidence = sums[region] / pixels[region]
            rows.append((number, kind, classes.argmax(), *place, pixels[region], confidence))
    return np.array(rows, np.float32).reshape(-1, len(COLUMNS))
