"""Scores from confusion counts: integers are summed over the split, and divided once.

The definitions, with ``counts[n, t, p]`` the pixels of image n of true class t and predicted
class p, and class 0 the background:

- ``dice``, ``iou``: any foreground against background, 2TP / (2TP + FP + FN) and
  TP / (TP + FP + FN) of each image, then the mean over images. An image with no foreground in truth
  and prediction scores 1. Which foreground class a pixel has does not matter.
- ``accuracy``: pixels of exactly the right class, background included, over all pixels.
- ``loss``: the mean over images of each image's mean per-pixel loss.
- ``dice_fg``, ``iou_fg``: as ``dice`` and ``iou``, from counts summed over the split.
- ``dice[c]``, ``iou[c]``, ``precision[c]``, ``recall[c]``: class c against all others, from summed
  counts.
- ``mdice``, ``miou``: the mean of ``dice[c]`` and ``iou[c]`` over the foreground classes present in
  the truth or the prediction of the split: one that is only falsely predicted counts, with 0.

What would be 0/0 is undefined, and NaN: ``dice_fg`` of a split with no foreground in truth and
prediction, ``recall`` of a class that is never true, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

HEADLINES = ("loss", "dice", "iou", "accuracy", "dice_fg", "iou_fg", "mdice", "miou")
"""The scores of a split as a whole, in the order of the columns."""


def dice_iou_per_image(
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dice and IoU of any foreground against background, for each image.

    Args:
        counts: int64 of shape (N, C, C), ``counts[n, t, p]`` as above.

    Returns:
        Two float64 arrays of shape (N,); 1 where an image has no foreground in truth and
        prediction.
    """
    hit, false, missed = _foreground(counts)
    wrong = false + missed
    empty = hit + wrong == 0
    dice = np.where(empty, 1.0, _ratio(2 * hit, 2 * hit + wrong))
    iou = np.where(empty, 1.0, _ratio(hit, hit + wrong))
    return dice, iou


def scores(
    counts: NDArray[np.int64], loss: NDArray[np.float64], class_names: Sequence[str]
) -> dict[str, float]:
    """Every score of a split, in the order of the columns; NaN where undefined.

    Args:
        counts: int64 of shape (N, C, C), ``counts[n, t, p]`` as above.
        loss: float64 of shape (N,), each image's mean per-pixel loss.
        class_names: the C names by class id, background first.

    Returns:
        :data:`HEADLINES`, then ``dice[c]``, ``iou[c]``, ``precision[c]`` and ``recall[c]`` for each
        foreground class c.
    """
    images, classes = len(counts), len(class_names)
    if counts.shape != (images, classes, classes) or loss.shape != (images,):
        raise ValueError(
            f"counts {counts.shape} and loss {loss.shape} do not fit {classes} class names"
        )
    total = counts.sum(axis=0, dtype=np.int64)
    hit, false, missed = _foreground(total)
    dice_image, iou_image = dice_iou_per_image(counts)

    hits = total.diagonal()
    predicted, true = total.sum(axis=0), total.sum(axis=1)
    dice_class = _ratio(2 * hits, true + predicted)
    iou_class = _ratio(hits, true + predicted - hits)
    precision = _ratio(hits, predicted)
    recall = _ratio(hits, true)

    row = {
        "loss": _mean(loss),
        "dice": _mean(dice_image),
        "iou": _mean(iou_image),
        "accuracy": float(
            _ratio(np.asarray(hits.sum(), np.int64), np.asarray(total.sum(), np.int64))
        ),
        "dice_fg": float(_ratio(2 * hit, 2 * hit + false + missed)),
        "iou_fg": float(_ratio(hit, hit + false + missed)),
        "mdice": _mean(dice_class[1:][~np.isnan(dice_class[1:])]),
        "miou": _mean(iou_class[1:][~np.isnan(iou_class[1:])]),
    }
    for i, name in enumerate(class_names[1:], start=1):
        row[f"dice[{name}]"] = float(dice_class[i])
        row[f"iou[{name}]"] = float(iou_class[i])
        row[f"precision[{name}]"] = float(precision[i])
        row[f"recall[{name}]"] = float(recall[i])
    return row


def without_a_model(counts: NDArray[np.int64]) -> tuple[float, float]:
    """What two answers score on a split that take no model: a score is worth what it is above them.

    Args:
        counts: int64 of shape (N, C, C), ``counts[n, t, p]`` as above; only the truth counts.

    Returns:
        ``accuracy`` of calling every pixel background, and ``dice_fg`` of calling every pixel
        foreground; NaN where undefined. With a share f of foreground they are 1 - f and
        2f / (1 + f).
    """
    true = counts.sum(axis=(0, 2), dtype=np.int64)
    background, foreground = true[:1].sum(), true[1:].sum()
    accuracy = _ratio(background, background + foreground)
    dice_fg = _ratio(2 * foreground, 2 * foreground + background)
    return float(accuracy), float(dice_fg if foreground else np.nan)


def _foreground(
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """True positives, false positives and false negatives of any foreground; shape (...)."""
    hit = counts[..., 1:, 1:].sum(axis=(-2, -1), dtype=np.int64)
    false = counts[..., 0, 1:].sum(axis=-1, dtype=np.int64)
    missed = counts[..., 1:, 0].sum(axis=-1, dtype=np.int64)
    return hit, false, missed


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """``part / whole`` in float64, NaN where ``whole`` is 0."""
    quotient: NDArray[np.float64] = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=quotient, where=np.asarray(whole) != 0)
    return quotient


def _mean(values: NDArray[np.float64]) -> float:
    """The mean, exact but for its last rounding and so the same in any order; NaN of nothing."""
    return math.fsum(values.tolist()) / len(values) if len(values) else math.nan
