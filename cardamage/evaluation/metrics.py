"""Scores from confusion counts: integers are summed over the split, and divided once.

The definitions, with ``counts[n, t, p]`` the pixels of image n of true class t and predicted
class p, and class 0 the background:

- ``dice``, ``iou``: any foreground against background, 2TP / (2TP + FP + FN) and
  TP / (TP + FP + FN) of each image, then the mean over images. An image with no foreground in truth
  and prediction scores 1. Which foreground class a pixel has does not matter.
- ``accuracy``: pixels of exactly the right class, background included, over all pixels.
- ``loss``: the mean over images of each image's loss.
- ``dice_fg``, ``iou_fg``: as ``dice`` and ``iou``, from counts summed over the split.
- ``dice[c]``, ``iou[c]``, ``precision[c]``, ``recall[c]``: class c against all others, from summed
  counts.
- ``mdice``, ``miou``: the mean of ``dice[c]`` and ``iou[c]`` over the foreground classes present in
  the truth or the prediction of the split: one that is only falsely predicted counts, with 0.

What would be 0/0 is undefined, and NaN: ``dice_fg`` of a split with no foreground in truth and
prediction, ``recall`` of a class that is never true, and so on.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Formula = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""Confusion counts (..., C, C) to a score: (...), or (..., C) where it is one of each class."""


def dice_of_foreground(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice of any foreground against background, shape (...)."""
    hit, wrong = _foreground(counts)
    return _ratio(2 * hit, 2 * hit + wrong)


def iou_of_foreground(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of any foreground against background, shape (...)."""
    hit, wrong = _foreground(counts)
    return _ratio(hit, hit + wrong)


def accuracy(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the pixels whose class is exactly right, shape (...)."""
    return _ratio(_hits(counts).sum(axis=-1), counts.sum(axis=(-2, -1)))


def dice_of_class(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Dice of each class against all others, shape (..., C)."""
    return _ratio(2 * _hits(counts), counts.sum(axis=-1) + counts.sum(axis=-2))


def iou_of_class(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """IoU of each class against all others, shape (..., C)."""
    hits = _hits(counts)
    return _ratio(hits, counts.sum(axis=-1) + counts.sum(axis=-2) - hits)


def precision_of_class(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the pixels predicted as a class, the share that is that class; shape (..., C)."""
    return _ratio(_hits(counts), counts.sum(axis=-2))


def recall_of_class(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the pixels of a class, the share that is predicted as it; shape (..., C)."""
    return _ratio(_hits(counts), counts.sum(axis=-1))


PER_IMAGE: dict[str, Formula] = {
    "dice": lambda counts: _or_1(dice_of_foreground(counts)),
    "iou": lambda counts: _or_1(iou_of_foreground(counts)),
}
"""Scores of each image, averaged over images."""

OF_SPLIT: dict[str, Formula] = {
    "accuracy": accuracy,
    "dice_fg": dice_of_foreground,
    "iou_fg": iou_of_foreground,
    "mdice": lambda counts: _mean_of_defined(dice_of_class(counts)[..., 1:]),
    "miou": lambda counts: _mean_of_defined(iou_of_class(counts)[..., 1:]),
}
"""Scores from counts summed over the split."""

OF_CLASS: dict[str, Formula] = {
    "dice": dice_of_class,
    "iou": iou_of_class,
    "precision": precision_of_class,
    "recall": recall_of_class,
}
"""Scores of each foreground class, from counts summed over the split."""

HEADLINES = ("loss", *PER_IMAGE, *OF_SPLIT)
"""The scores of a split as a whole, in the order of the columns."""


def scores_per_image(
    counts: NDArray[np.int64], loss: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The scores whose mean over images is the split's: the loss and :data:`PER_IMAGE`.

    Args:
        counts: int64 of shape (N, C, C), ``counts[n, t, p]`` as above.
        loss: float64 of shape (N,), each image's loss.

    Returns:
        float64 of shape (N,) by column name.
    """
    return {"loss": loss, **{name: formula(counts) for name, formula in PER_IMAGE.items()}}


def scores_of_split(
    totals: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """The scores made of summed counts: :data:`OF_SPLIT`, then :data:`OF_CLASS` of each class.

    Args:
        totals: int64 of shape (..., C, C), each summed over the images of one split.
        class_names: the C names by class id, background first.

    Returns:
        float64 of shape (...) by column name.
    """
    columns = {name: formula(totals) for name, formula in OF_SPLIT.items()}
    of_class = {name: formula(totals) for name, formula in OF_CLASS.items()}
    for i, class_name in enumerate(class_names[1:], start=1):
        columns |= {f"{name}[{class_name}]": score[..., i] for name, score in of_class.items()}
    return columns


def scores(
    counts: NDArray[np.int64], loss: NDArray[np.float64], class_names: Sequence[str]
) -> dict[str, float]:
    """Every score of a split, in the order of the columns; NaN where undefined.

    Args:
        counts: int64 of shape (N, C, C), ``counts[n, t, p]`` as above.
        loss: float64 of shape (N,), each image's loss.
        class_names: the C names by class id, background first.

    Returns:
        :data:`HEADLINES`, then :data:`OF_CLASS` as ``dice[c]``, ... for each foreground class c.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    images, classes = len(counts), len(class_names)
    if counts.shape != (images, classes, classes) or loss.shape != (images,):
        raise ValueError(
            f"counts {counts.shape} and loss {loss.shape} do not fit {classes} class names"
        )
    split = scores_of_split(counts.sum(axis=0, dtype=np.int64), class_names)
    return {
        **{name: float(_mean(each)) for name, each in scores_per_image(counts, loss).items()},
        **{name: float(score) for name, score in split.items()},
    }


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


def _foreground(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pixels of any foreground found, and those found wrongly or missed; shape (...)."""
    hit = counts[..., 1:, 1:].sum(axis=(-2, -1), dtype=np.int64)
    false = counts[..., 0, 1:].sum(axis=-1, dtype=np.int64)
    missed = counts[..., 1:, 0].sum(axis=-1, dtype=np.int64)
    return hit, false + missed


def _hits(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return counts.diagonal(axis1=-2, axis2=-1)


def _or_1(score: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isnan(score), 1.0, score)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    """``part / whole`` in float64, NaN where ``whole`` is 0."""
    quotient: NDArray[np.float64] = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=quotient, where=np.asarray(whole) != 0)
    return quotient


def _mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over the last axis of what is not NaN; NaN where nothing is defined."""
    means = [_mean(row[~np.isnan(row)]) for row in values.reshape(-1, values.shape[-1])]
    return np.array(means).reshape(values.shape[:-1])


def _mean(values: NDArray[np.float64]) -> float:
    """The mean, exact but for its last rounding and so the same in any order; NaN of nothing."""
    return math.fsum(values.tolist()) / len(values) if len(values) else math.nan
