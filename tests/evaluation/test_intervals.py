"""Intervals: exact where a hand can check them, and the same every time."""

import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap, kurtosis, norm
from scipy.stats import t as student

from cardamage.evaluation import intervals as statistics
from cardamage.evaluation import metrics
from cardamage.evaluation.metrics import scores
from cardamage.evaluation.results import TestResult


def result_of(counts, loss=None, fingerprint="f") -> TestResult:
    counts = np.asarray(counts, dtype=np.int64)
    names = ("background", "scratch", "dent")[: counts.shape[1]]
    return TestResult(
        epoch=1,
        weights_sha256="0",
        fingerprint=fingerprint,
        class_names=names,
        keys=np.array([f"{i:08d}" for i in range(len(counts))]),
        counts=counts,
        loss=np.arange(len(counts), dtype=np.float64) if loss is None else np.asarray(loss),
        map_samples=np.zeros(0, np.int64),
        maps=(),
    )


def some_result(images=20, classes=3, seed=0, **options) -> TestResult:
    generator = np.random.default_rng(seed)
    return result_of(generator.integers(0, 50, (images, classes, classes)), **options)


def estimates(result):
    return statistics.estimates(statistics.resample(result))


def differences(a, b):
    return statistics.estimates(
        statistics.difference(statistics.resample(a), statistics.resample(b))
    )


def test_a_replicate_that_draws_every_image_once_has_the_scores_of_the_split(monkeypatch):
    result = some_result()
    monkeypatch.setattr(statistics, "_draws", lambda images, **_: [np.ones((1, images))])

    drawn = statistics.resample(result, replicates=1).drawn

    expected = scores(result.counts, result.loss, result.class_names)
    assert list(drawn) == list(expected)
    assert {name: column[0] for name, column in drawn.items()} == pytest.approx(expected)


def test_undefined_scores_of_a_replicate_are_undefined_as_those_of_the_split(monkeypatch):
    empty = np.zeros((4, 3, 3), np.int64)
    empty[:, 0, 0] = 100  # no foreground anywhere
    result = result_of(empty)
    monkeypatch.setattr(statistics, "_draws", lambda images, **_: [np.ones((1, images))])

    drawn = statistics.resample(result, replicates=1).drawn

    expected = scores(result.counts, result.loss, result.class_names)
    actual = {name: column[0] for name, column in drawn.items()}
    assert actual == pytest.approx(expected, nan_ok=True)
    assert np.isnan(actual["dice_fg"])
    assert actual["dice"] == 1.0


def test_images_that_are_all_alike_leave_no_doubt():
    estimate = estimates(result_of([[[60, 10], [10, 20]]] * 5, loss=[0.5] * 5))["dice"]

    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2 / 3,) * 3)
    assert estimate.half_width == pytest.approx(0)


def test_an_interval_of_a_mean_is_as_wide_as_the_normal_one():
    loss = np.random.default_rng(1).normal(0, 1, 400)

    estimate = estimates(result_of([[[1, 0], [0, 1]]] * 400, loss=loss))["loss"]

    assert estimate.half_width == pytest.approx(1.96 * loss.std() / 20, rel=0.06)
    assert estimate.low < loss.mean() < estimate.high


def test_the_same_result_gives_the_same_interval_every_time():
    assert estimates(some_result()) == estimates(some_result())


def test_draws_in_small_portions_are_still_all_there(monkeypatch):
    monkeypatch.setattr(statistics, "_ENTRIES_AT_A_TIME", 60)  # 3 replicates of 20 images

    drawn = np.concatenate(list(statistics._draws(20, replicates=10, seed=0)))

    assert drawn.shape == (10, 20)
    assert (drawn.sum(axis=1) == 20).all()


def test_an_undefined_score_has_no_interval():
    empty = np.zeros((3, 2, 2), np.int64)
    empty[:, 0, 0] = 9

    estimate = estimates(result_of(empty))["dice_fg"]

    assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
    assert not estimate.excludes_zero


def test_one_image_gives_an_interval_of_no_width():
    estimate = estimates(result_of([[[5, 5], [0, 5]]]))["iou"]

    assert estimate.low == estimate.value == estimate.high


def test_a_checkpoint_differs_from_itself_by_nothing():
    found = differences(some_result(), some_result())

    assert all(d == statistics.Estimate(0, 0, 0) for d in found.values())


def test_a_small_constant_lead_shows_although_the_scores_themselves_are_uncertain():
    loss = np.linspace(0.1, 2.0, 20)
    a, b = some_result(loss=loss), some_result(loss=loss - 0.05)

    lead = differences(a, b)["loss"]

    assert (lead.value, lead.low, lead.high) == pytest.approx((0.05,) * 3)
    assert lead.excludes_zero
    assert estimates(a)["loss"].half_width > 0.2


def test_results_of_other_images_are_not_comparable_and_those_of_folds_have_the_same_truth():
    a, b, other = some_result(), some_result(fingerprint="another"), some_result(seed=1)

    assert statistics.comparable(a, a)
    assert not statistics.comparable(a, b)
    assert statistics.same_truth(a, b)
    assert not statistics.same_truth(a, other)


def test_scores_without_each_image_are_those_of_the_others():
    result = some_result(images=5)

    without = statistics.resample(result, replicates=1).without

    for left_out in range(5):
        kept = np.arange(5) != left_out
        expected = scores(result.counts[kept], result.loss[kept], result.class_names)
        assert {name: each[left_out] for name, each in without.items()} == pytest.approx(expected)


@pytest.mark.parametrize("name", ["loss", "dice", "dice_fg", "miou"])
def test_intervals_are_those_of_scipy(name):
    result = some_result(images=100, seed=3)
    shares = statistics.resample(result, replicates=1).without[name]
    freedom = min(99, 200 / (kurtosis(shares, fisher=False) - 1))
    outside = norm.cdf(-student.ppf(0.975, freedom) * np.sqrt(100 / 99))

    def statistic(drawn):
        return scores(result.counts[drawn], result.loss[drawn], result.class_names)[name]

    expected = bootstrap(
        (np.arange(100),),
        statistic,
        vectorized=False,
        n_resamples=2000,
        confidence_level=1 - 2 * outside,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    found = estimates(result)[name]

    allowed = 0.06 * (expected.high - expected.low)  # 2000 replicates leave so much to chance
    assert found.low == pytest.approx(expected.low, abs=allowed)
    assert found.high == pytest.approx(expected.high, abs=allowed)


@pytest.mark.parametrize("images", [4, 10, 100, 1000])
def test_quantiles_are_students(images):
    even = np.resize([0.0, 1.0], images)  # of the least kurtosis there is, 1
    expected = student.ppf(0.975, images - 1) * np.sqrt(images / (images - 1))

    assert statistics._widened_quantile(even) == pytest.approx(expected)


def test_images_that_carry_most_of_a_score_leave_few_degrees_of_freedom():
    heavy = np.repeat([0.0, 1.0], [90, 10])  # kurtosis 1 / 0.09 - 3 = 8.11
    expected = student.ppf(0.975, 200 / (1 / 0.09 - 4)) * np.sqrt(100 / 99)

    assert statistics._widened_quantile(heavy) == pytest.approx(expected)
    assert statistics._widened_quantile(np.eye(100)[0]) == pytest.approx(
        student.ppf(0.975, 200 / (1 / 0.0099 - 4)) * np.sqrt(100 / 99)
    )


def test_holm_multiplies_the_smallest_most_and_never_falls():
    # by hand: 0.01 x 4, 0.02 x 3, max(0.03 x 2, 0.06), max(0.5 x 1, 0.06)
    assert statistics.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert statistics.holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert statistics.holm([]) == []
    corrected = statistics.holm([np.nan, 0.04])
    assert np.isnan(corrected[0])
    assert corrected[1] == 0.04


def differing_by(drawn, value):
    drawn = np.asarray(drawn, dtype=np.float64)
    return statistics.Resampled({"x": value}, {"x": drawn}, {"x": np.zeros(2)})


def test_p_counts_the_replicates_beyond_zero_on_both_sides():
    drawn = np.concatenate([np.full(30, -1.0), np.full(969, 1.0)])

    assert statistics.p_value(differing_by(drawn, 1.0), "x") == pytest.approx(2 * 31 / 1000)


def test_p_of_a_difference_far_from_zero_is_that_of_the_normal_distribution():
    drawn = np.random.default_rng(0).normal(6, 1, 2000)

    p = statistics.p_value(differing_by(drawn, 6.0), "x")

    assert p == pytest.approx(2 * norm.sf(6 / drawn.std()))
    assert p < 1e-6


def test_no_difference_at_all_is_chance():
    assert statistics.p_value(differing_by(np.zeros(100), 0.0), "x") == 1.0


def constant(value, images=4):
    """Scores that no image moves: only the trainings differ."""
    return statistics.Resampled(
        {"x": value}, {"x": np.full(20_000, value)}, {"x": np.full(images, value)}
    )


def test_a_pool_has_the_mean_and_the_standard_error_over_trainings():
    values = [0.5, 0.6, 0.8]

    pooled = statistics.pool([constant(v) for v in values], seed=1)

    assert pooled.values["x"] == pytest.approx(np.mean(values))
    standard_error = np.std(values, ddof=1) / np.sqrt(3)
    assert pooled.drawn["x"].std() == pytest.approx(standard_error, rel=0.02)
    assert pooled.drawn["x"].mean() == pytest.approx(np.mean(values), abs=0.003)


def test_pools_of_two_settings_draw_their_trainings_apart():
    a, b = (statistics.pool([constant(0.4), constant(0.8)], seed=seed) for seed in (0, 1))

    assert statistics.difference(a, b).drawn["x"].std() > 0.1


def test_a_pool_of_one_training_is_that_training():
    only = statistics.resample(some_result())

    assert statistics.pool([only], seed=3) is only


def test_a_metric_that_is_added_gets_its_interval(monkeypatch):
    monkeypatch.setitem(metrics.OF_SPLIT, "predicted_fg", lambda c: c[..., 1:].sum((-2, -1)) / 100)
    monkeypatch.setitem(metrics.PER_IMAGE, "half", lambda c: np.full(len(c), 0.5))
    monkeypatch.setitem(metrics.OF_CLASS, "miss", lambda c: 1 - metrics.recall_of_class(c))

    found = estimates(some_result())

    assert found["half"] == statistics.Estimate(0.5, 0.5, 0.5)
    for name in ("predicted_fg", "miss[scratch]", "miss[dent]"):
        assert found[name].low < found[name].value < found[name].high
    assert found["miss[dent]"].value == pytest.approx(1 - found["recall[dent]"].value)


@pytest.mark.parametrize("hit", [0, 3])
def test_a_share_that_no_image_breaks_has_the_bound_of_clopper_and_pearson(hit):
    whole = np.array([3, 0, 3, 3, 0, 3])

    found = statistics.ratio(np.where(whole, hit, 0), whole)

    exact = binomtest(4 if hit else 0, 4).proportion_ci(0.95, "exact")
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))
