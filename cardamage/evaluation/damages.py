"""Damages instead of pixels: which of them are found, which marks are false, and by what size.

A damage is a region of the truth whose pixels touch along sides or corners (8-connectivity), a mark
is such a region of the prediction. By one and the same share, :data:`SHARE`,

- a damage is *found* when predictions of its class cover at least that share of its pixels, else it
  is *missed*;
- a mark is *false* when less than that share of its pixels lies on damages of its class. So a mark
  over the whole photo is false, though it covers everything.

The share is a quarter: two people who outline the same scratch hardly overlap by more. Sizes are
COCO's, as shares of the photo: small is below 32 x 32 pixels of a photo of 640 x 480, large from
96 x 96 on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARE = 0.25
"""Of a damage that has to be covered to be found, and of a mark that has to be damage."""

SIZES = ("small", "middle", "large")
BOUNDS = (32 * 32 / (640 * 480), 96 * 96 / (640 * 480))
"""Shares of the photo at which middle and large begin."""

OUTCOMES = ("damages", "found", "marks", "false")
BINS = 20
"""Equal steps of the foreground probability, 0 to 1, in which calibration is counted."""

UNIT = 1 << 16
"""Sums of probabilities are kept as whole numbers of this many parts, so that they are exact."""

TOUCHING = np.ones((3, 3), dtype=np.int8)
"""What makes a region: pixels that touch along sides or corners."""


@dataclass(frozen=True)
class Damages:
    """What testing counted beside pixels on N images of C classes.

    Attributes:
        counts: int32 of shape (N, C, 3, 4), by image, class, size and :data:`OUTCOMES`; in the
            place of the background all damage as one class.
        presence: float32 of shape (N,), the largest foreground probability of a pixel of each
            image: how sure the model is that there is damage at all.
        reliability: int64 of shape (:data:`BINS`, 3): of the pixels of all images whose foreground
            probability is in each bin, how many there are, how many are foreground, and the sum of
            their probabilities in parts of :data:`UNIT`.
        disagreements: float32 of shape (M, 9), by the columns of
            :mod:`~cardamage.evaluation.disagreements`; None in results of before they were kept.
    """

    counts: NDArray[np.int32]
    presence: NDArray[np.float32]
    reliability: NDArray[np.int64]
    disagreements: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Curve:
    """Calling a photo damaged from a threshold on, for every threshold that makes a difference.

    Attributes:
        thresholds: of the largest foreground probability, ascending.
        sensitivity: share of the photos with damage that are called damaged; NaN without any.
        specificity: share of the photos without damage that are not; NaN without any.
    """

    thresholds: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    specificity: NDArray[np.float64]


def count_damages(
    truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int
) -> NDArray[np.int32]:
    """Damages and marks of one image, int32 (C, 3, 4) as in :attr:`Damages.counts`.

    Class ids are uint8 (H, W); C counts the background.
    """
    counts = np.zeros((classes, len(SIZES), len(OUTCOMES)), np.int32)
    painted = (truth > 0) | (predicted > 0)
    rows, columns = np.flatnonzero(painted.any(axis=1)), np.flatnonzero(painted.any(axis=0))
    if not len(rows):
        return counts
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    pixels, truth, predicted = truth.size, truth[window], predicted[window]
    counts[0] = _count(truth > 0, predicted > 0, pixels)
    present = np.bincount(truth.ravel(), minlength=classes) + np.bincount(
        predicted.ravel(), minlength=classes
    )
    for class_id in np.flatnonzero(present[1:]) + 1:
        counts[class_id] = _count(truth == class_id, predicted == class_id, pixels)
    return counts


def _count(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], pixels: int) -> NDArray[np.intp]:
    from scipy import ndimage  # noqa: PLC0415 - a third of a second, and not before a first step

    counts = np.zeros((len(SIZES), len(OUTCOMES)), np.intp)
    for column, (region, other) in enumerate(((truth, predicted), (predicted, truth))):
        labels, number = ndimage.label(region, TOUCHING)
        areas = np.bincount(labels.ravel(), minlength=number + 1)[1:]
        shared = np.bincount(labels[other], minlength=number + 1)[1:] >= SHARE * areas
        sizes = np.searchsorted(BOUNDS, areas / pixels, side="right")
        outcome = shared if column == 0 else ~shared
        counts[:, 2 * column] = np.bincount(sizes, minlength=len(SIZES))
        counts[:, 2 * column + 1] = np.bincount(sizes[outcome], minlength=len(SIZES))
    return counts


def presence_curve(presence: NDArray[np.float32], is_damaged: NDArray[np.bool_]) -> Curve:
    """Sensitivity and specificity over the thresholds, of photos as arrays of shape (N,)."""
    thresholds = np.unique(np.concatenate([[0.0], presence.astype(np.float64), [1.0]]))
    damaged, sound = np.sort(presence[is_damaged]), np.sort(presence[~is_damaged])

    def share_below(values: NDArray[np.float32]) -> NDArray[np.float64]:
        if not len(values):
            return np.full(len(thresholds), np.nan)
        return np.searchsorted(values.astype(np.float64), thresholds, side="left") / len(values)

    return Curve(thresholds, 1 - share_below(damaged), share_below(sound))


def calibration_error(reliability: NDArray[np.int64]) -> float:
    """The expected calibration error of the foreground probability (Naeini et al. 2015).

    The mean over pixels of the distance, in each bin, between the mean probability and the share of
    foreground. Of :attr:`Damages.reliability`; NaN without pixels.
    """
    pixels, foreground, sums = reliability.T.astype(np.float64)
    if not pixels.sum():
        return float("nan")
    return float(np.abs(sums / UNIT - foreground).sum() / pixels.sum())
