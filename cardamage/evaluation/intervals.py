"""How far test scores can be trusted: bootstrap intervals over the test images.

The images are what was sampled, so they are what is drawn again: each replicate draws as many
images as the split has, with replacement, and computes every score again from the summed counts of
its images. The interval holds the middle 95 % of the replicates (the percentile method). It speaks
of other photos like these, not of another training with another seed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan, nan

import numpy as np
from numpy.typing import NDArray

from cardamage.evaluation.metrics import scores, scores_of_split, scores_per_image
from cardamage.evaluation.results import TestResult

REPLICATES = 2000
SEED = 0
LEVEL = 0.95

_ENTRIES_AT_A_TIME = 4_000_000  # weights of replicates x images held at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A score and the bounds of its interval; NaN where undefined."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; False where it is undefined."""
        return self.low > 0 or self.high < 0


def estimates(result: TestResult) -> dict[str, Estimate]:
    """Every score of a tested checkpoint by column name, with its 95 % interval."""
    values = scores(result.counts, result.loss, result.class_names)
    drawn = resampled_scores(result)
    return {name: _estimate(value, drawn[name]) for name, value in values.items()}


def ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Estimate:
    """Sum of ``part`` over sum of ``whole``, int64 (N,) by image, with its 95 % interval."""
    table = np.column_stack([part, whole]).astype(np.float64)
    draws = _draws(len(table), replicates=REPLICATES, seed=SEED)
    sums = np.concatenate([weights @ table for weights in draws])
    parts, wholes = np.vstack([table.sum(axis=0), sums]).T
    shares = np.full(len(wholes), nan)
    np.divide(parts, wholes, out=shares, where=wholes > 0)
    return _estimate(float(shares[0]), shares[1:])


def comparable(a: TestResult, b: TestResult) -> bool:
    """Whether two results are of the same packed images and the same classes."""
    return (
        a.fingerprint == b.fingerprint
        and a.class_names == b.class_names
        and np.array_equal(a.keys, b.keys)
    )


def paired_differences(a: TestResult, b: TestResult) -> dict[str, Estimate]:
    """Score of ``a`` minus score of ``b`` on the same images, with its 95 % interval.

    Both are resampled with the same draws, so what makes an image hard for both cancels out.

    Raises:
        ValueError: the results are not :func:`comparable`.
    """
    if not comparable(a, b):
        raise ValueError("paired differences need results of the same images and classes")
    left, right = scores(a.counts, a.loss, a.class_names), scores(b.counts, b.loss, b.class_names)
    drawn_left, drawn_right = resampled_scores(a), resampled_scores(b)
    return {
        name: _estimate(left[name] - right[name], drawn_left[name] - drawn_right[name])
        for name in left
    }


def resampled_scores(
    result: TestResult, *, replicates: int = REPLICATES, seed: int = SEED
) -> dict[str, NDArray[np.float64]]:
    """Every score of each replicate: float64 of shape (replicates,) by column name.

    The draws depend on the seed and the number of images alone.
    """
    images, classes = len(result.counts), len(result.class_names)
    per_image = scores_per_image(result.counts, result.loss)
    table = np.column_stack(
        [*per_image.values(), result.counts.reshape(images, classes * classes)]
    ).astype(np.float64)
    sums = np.concatenate(
        [weights @ table for weights in _draws(images, replicates=replicates, seed=seed)]
    )
    means, totals = np.split(sums, [len(per_image)], axis=1)
    totals = totals.round().astype(np.int64).reshape(replicates, classes, classes)
    return {
        **dict(zip(per_image, means.T / images, strict=True)),
        **scores_of_split(totals, result.class_names),
    }


def _draws(images: int, *, replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn: float64 of shape (some replicates, images), all in turn.

    Philox's raw output is fixed by NumPy's compatibility policy, so the intervals are the same
    with every version.
    """
    source = np.random.Philox(np.random.SeedSequence(seed))
    rows = max(1, _ENTRIES_AT_A_TIME // images)
    for start in range(0, replicates, rows):
        count = min(rows, replicates - start)
        drawn = (source.random_raw(count * images) % np.uint64(images)).astype(np.int64)
        flat = drawn + np.repeat(np.arange(count) * images, images)
        weights = np.bincount(flat, minlength=count * images).reshape(count, images)
        yield weights.astype(np.float64)


def _estimate(value: float, drawn: NDArray[np.float64]) -> Estimate:
    defined = drawn[~np.isnan(drawn)]
    if isnan(value) or not len(defined):
        return Estimate(value, nan, nan)
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value, float(low), float(high))
