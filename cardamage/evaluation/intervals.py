"""How far test scores can be trusted: bootstrap intervals over the test images.

The images are what was sampled, so they are what is drawn again: each replicate draws as many
images as the split has, with replacement, and computes every score again from the summed counts of
its images. The interval is the expanded percentile interval of T. Hesterberg (What Teachers Should
Know About the Bootstrap, The American Statistician 69, 2015): the middle 95 % of the replicates, a
little more for few images, and more where few of them carry the score: see :func:`interval`. It
speaks of other photos like these. On drawn populations it held closer to 95 % than plain
percentiles, BCa and the studentised bootstrap did: benchmarks/coverage.py.

Several trainings of one setting add a second level: :func:`pool` also redraws the trainings, so
that the interval speaks of another seed as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import erfc, isnan, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from cardamage.evaluation.metrics import scores, scores_of_split, scores_per_image
from cardamage.evaluation.results import TestResult

REPLICATES = 2000
SEED = 0
LEVEL = 0.95

_ENTRIES_AT_A_TIME = 4_000_000  # weights of replicates x images held at once: 32 MB
_LEAST_FREEDOM = 2.0  # with less, 2000 replicates have no such quantile

Drawn = dict[str, NDArray[np.float64]]
"""A score by column name, once per replicate or once per image left out; NaN where undefined."""


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


@dataclass(frozen=True)
class Resampled:
    """Scores on a split, and what they would be on others like it.

    Attributes:
        values: the scores by column name.
        drawn: float64 of shape (replicates,): each score on redrawn images. The draws depend on
            the number of images alone, so those of two checkpoints tested alike are pairs.
        without: float64 of shape (N,): each score without each of the N images in turn.
    """

    values: Mapping[str, float]
    drawn: Drawn
    without: Drawn

    def only(self, columns: Sequence[str]) -> "Resampled":
        """The same for some of the scores."""
        return Resampled(
            {name: self.values[name] for name in columns},
            {name: self.drawn[name] for name in columns},
            {name: self.without[name] for name in columns},
        )


def resample(result: TestResult, *, replicates: int = REPLICATES, seed: int = SEED) -> Resampled:
    """Every score of a result, redrawn."""
    images, classes = len(result.counts), len(result.class_names)
    per_image = scores_per_image(result.counts, result.loss)
    table = np.column_stack(
        [*per_image.values(), result.counts.reshape(images, classes * classes)]
    ).astype(np.float64)
    sums = np.concatenate([w @ table for w in _draws(images, replicates=replicates, seed=seed)])
    drawn = _scores_of_sums(sums, images, list(per_image), result.class_names)
    if images > 1:
        left = table.sum(axis=0) - table
        without = _scores_of_sums(left, images - 1, list(per_image), result.class_names)
    else:
        without = {name: np.full(images, nan) for name in drawn}
    return Resampled(scores(result.counts, result.loss, result.class_names), drawn, without)


def _scores_of_sums(
    sums: NDArray[np.float64], images: int, per_image: Sequence[str], class_names: Sequence[str]
) -> Drawn:
    """Scores of sums over as many images: of each score per image, then of the counts."""
    means, totals = np.split(sums, [len(per_image)], axis=1)
    classes = len(class_names)
    whole = totals.round().astype(np.int64).reshape(len(sums), classes, classes)
    return {
        **dict(zip(per_image, means.T / images, strict=True)),
        **scores_of_split(whole, class_names),
    }


def estimates(resampled: Resampled) -> dict[str, Estimate]:
    """Every score with its 95 % interval, by column name."""
    return {name: interval(resampled, name) for name in resampled.values}


def interval(resampled: Resampled, name: str) -> Estimate:
    """One score with its 95 % interval.

    The replicates' quantiles at Phi(-q) and Phi(q) with q = t sqrt(n / (n - 1)), where t is
    Student's quantile: plain percentiles are too narrow, for the spread that they go by is itself
    estimated from n images. How well, its degrees of freedom tell: 2 n / (k - 1) and at most n - 1,
    with k the kurtosis of what each image contributes (F. Satterthwaite, Biometrics Bulletin 2,
    1946). So a few photos that hold most of the damage make it wider.
    """
    value = resampled.values[name]
    drawn = resampled.drawn[name]
    drawn = drawn[~np.isnan(drawn)]
    if isnan(value) or not len(drawn):
        return Estimate(value, nan, nan)
    outside = ndtr(-_widened_quantile(resampled.without[name]))
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return Estimate(value, float(low), float(high))


def ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> Estimate:
    """Sum of ``part`` over sum of ``whole``, int64 (N,) by image, with its 95 % interval.

    Where every image has none, or all, no redrawing differs; then the other bound is Clopper and
    Pearson's for the images that have any: with n of them 1 - 0.025^(1/n), or 0.025^(1/n).
    """
    table = np.column_stack([part, whole]).astype(np.float64)
    total = table.sum(axis=0)
    draws = _draws(len(table), replicates=REPLICATES, seed=SEED)
    drawn = np.concatenate([weights @ table for weights in draws])
    value, redrawn, without = map(_quotients, (total[None], drawn, total - table))
    if value[0] in (0, 1):
        reach = 1 - ((1 - LEVEL) / 2) ** (1 / int((whole > 0).sum()))
        return Estimate(float(value[0]), *((0.0, reach) if value[0] == 0 else (1 - reach, 1.0)))
    found = Resampled({"ratio": float(value[0])}, {"ratio": redrawn}, {"ratio": without})
    return interval(found, "ratio")


def _quotients(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """First column by second of (..., 2); NaN where that is 0."""
    shares: NDArray[np.float64] = np.full(len(sums), nan)
    np.divide(sums[:, 0], sums[:, 1], out=shares, where=sums[:, 1] > 0)
    return shares


def _widened_quantile(without: NDArray[np.float64]) -> float:
    """Student's quantile for the degrees of freedom of a spread, as :func:`interval` takes it.

    Args:
        without: the score without each image in turn, (n,); NaN where undefined.
    """
    without = without[~np.isnan(without)]
    images = len(without)
    if images < 2:
        return float(ndtri((1 + LEVEL) / 2))
    squares = (without - without.mean()) ** 2
    freedom = images - 1.0
    if (mean := squares.mean()) > 0 and (kurtosis := (squares**2).mean() / mean**2) > 1:
        freedom = min(freedom, max(_LEAST_FREEDOM, 2 * images / (kurtosis - 1)))
    return float(stdtrit(freedom, (1 + LEVEL) / 2) * sqrt(images / (images - 1)))


def comparable(a: TestResult, b: TestResult) -> bool:
    """Whether two results are of the same packed images and the same classes."""
    return a.fingerprint == b.fingerprint and same_truth(a, b)


def same_truth(a: TestResult, b: TestResult) -> bool:
    """Whether two results are of as many images with the same true pixels of the same classes.

    Two folds are packed separately, and their test images are the same.
    """
    return (
        a.class_names == b.class_names
        and np.array_equal(a.keys, b.keys)
        and np.array_equal(a.counts.sum(axis=2), b.counts.sum(axis=2))
    )


def difference(a: Resampled, b: Resampled) -> Resampled:
    """Scores of ``a`` minus scores of ``b`` on the same images.

    Both are resampled with the same draws, so what makes an image hard for both cancels out.
    Columns that only one of them has are left out.
    """
    columns = [name for name in a.values if name in b.values]
    return Resampled(
        {name: a.values[name] - b.values[name] for name in columns},
        {name: a.drawn[name] - b.drawn[name] for name in columns},
        {name: a.without[name] - b.without[name] for name in columns},
    )


def pool(members: Sequence[Resampled], *, seed: int) -> Resampled:
    """The mean scores of several trainings of one setting, tested on the same images.

    Each replicate draws images, the same for all, and K of the K trainings with replacement. What
    a training differs by from their mean is multiplied by sqrt(K / (K - 1)), for drawing again
    from K shrinks the variance by (K - 1) / K (J. Rao & C. Wu, JASA 83, 1988). One training alone
    says nothing of others: then the images are the only level.

    Args:
        seed: which trainings are drawn; another for each setting, whose trainings are no pairs.
    """
    count = len(members)
    if count == 1:
        return members[0]
    columns = list(members[0].values)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([SEED, seed])))
    replicates = len(members[0].drawn[columns[0]])
    picked = generator.integers(0, count, (replicates, count))
    weights = np.stack([(picked == k).sum(axis=1) for k in range(count)]) / count
    drawn = {}
    for name in columns:
        each = np.stack([member.drawn[name] for member in members])
        mean = each.mean(axis=0)
        drawn[name] = mean + sqrt(count / (count - 1)) * ((weights * each).sum(axis=0) - mean)
    return Resampled(
        {name: float(np.mean([m.values[name] for m in members])) for name in columns},
        drawn,
        {name: np.mean([m.without[name] for m in members], axis=0) for name in columns},
    )


def p_value(resampled: Resampled, name: str) -> float:
    """How often chance alone gives a difference so far from 0, both ways; NaN where undefined.

    Twice the share of replicates on the other side of 0. Where none is, which replicates cannot
    tell apart from rarer, the normal distribution with their standard deviation.
    """
    drawn = resampled.drawn[name]
    drawn = drawn[~np.isnan(drawn)]
    if isnan(resampled.values[name]) or not len(drawn):
        return nan
    beyond = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (int(beyond) + 1) / (len(drawn) + 1))
    spread = float(drawn.std())
    if beyond == 0 and spread > 0:
        p = min(p, erfc(abs(resampled.values[name]) / spread / sqrt(2)))
    return p


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several, by Holm's step-down method; NaN is no test.

    The smallest of m is multiplied by m, the next by m - 1 and so on, never below the one before
    (S. Holm, A simple sequentially rejective multiple test procedure, 1979).
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if not isnan(p))
    corrected, least = [nan] * len(p_values), 0.0
    for rank, (p, i) in enumerate(order):
        least = max(least, min(1.0, p * (len(order) - rank)))
        corrected[i] = least
    return corrected


def _draws(images: int, *, replicates: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn: float64 of shape (some replicates, images), all in turn.

    Philox's raw output is fixed by NumPy's compatibility policy, so the intervals are the same
    with every version.
    """
    rows = max(1, _ENTRIES_AT_A_TIME // images)
    if replicates <= rows:
        yield _all_draws(images, replicates, seed)
        return
    source = np.random.Philox(np.random.SeedSequence(seed))
    for start in range(0, replicates, rows):
        yield _weights(source, images, min(rows, replicates - start))


@lru_cache(maxsize=2)
def _all_draws(images: int, replicates: int, seed: int) -> NDArray[np.float64]:
    """Kept, for every checkpoint of a run is tested on the same images."""
    return _weights(np.random.Philox(np.random.SeedSequence(seed)), images, replicates)


def _weights(source: np.random.Philox, images: int, count: int) -> NDArray[np.float64]:
    drawn = (source.random_raw(count * images) % np.uint64(images)).astype(np.int64)
    flat = drawn + np.repeat(np.arange(count) * images, images)
    weights = np.bincount(flat, minlength=count * images).reshape(count, images)
    return weights.astype(np.float64)
