"""Intervals: exact where a hand can check them, and the same every time."""

import numpy as np
import pytest

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


def test_a_replicate_that_draws_every_image_once_has_the_scores_of_the_split(monkeypatch):
    result = some_result()
    monkeypatch.setattr(statistics, "_draws", lambda images, **_: [np.ones((1, images))])

    drawn = statistics.resampled_scores(result, replicates=1)

    expected = scores(result.counts, result.loss, result.class_names)
    assert list(drawn) == list(expected)
    assert {name: column[0] for name, column in drawn.items()} == pytest.approx(expected)


def test_undefined_scores_of_a_replicate_are_undefined_as_those_of_the_split(monkeypatch):
    empty = np.zeros((4, 3, 3), np.int64)
    empty[:, 0, 0] = 100  # no foreground anywhere
    result = result_of(empty)
    monkeypatch.setattr(statistics, "_draws", lambda images, **_: [np.ones((1, images))])

    drawn = statistics.resampled_scores(result, replicates=1)

    expected = scores(result.counts, result.loss, result.class_names)
    actual = {name: column[0] for name, column in drawn.items()}
    assert actual == pytest.approx(expected, nan_ok=True)
    assert np.isnan(actual["dice_fg"])
    assert actual["dice"] == 1.0


def test_images_that_are_all_alike_leave_no_doubt():
    estimate = statistics.estimates(result_of([[[60, 10], [10, 20]]] * 5, loss=[0.5] * 5))["dice"]

    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((2 / 3,) * 3)
    assert estimate.half_width == pytest.approx(0)


def test_an_interval_of_a_mean_is_as_wide_as_the_normal_one():
    loss = np.random.default_rng(1).normal(0, 1, 400)

    estimate = statistics.estimates(result_of([[[1, 0], [0, 1]]] * 400, loss=loss))["loss"]

    assert estimate.half_width == pytest.approx(1.96 * loss.std() / 20, rel=0.06)
    assert estimate.low < loss.mean() < estimate.high


def test_the_same_result_gives_the_same_interval_every_time():
    assert statistics.estimates(some_result()) == statistics.estimates(some_result())


def test_draws_in_small_portions_are_still_all_there(monkeypatch):
    monkeypatch.setattr(statistics, "_ENTRIES_AT_A_TIME", 60)  # 3 replicates of 20 images

    drawn = np.concatenate(list(statistics._draws(20, replicates=10, seed=0)))

    assert drawn.shape == (10, 20)
    assert (drawn.sum(axis=1) == 20).all()


def test_an_undefined_score_has_no_interval():
    empty = np.zeros((3, 2, 2), np.int64)
    empty[:, 0, 0] = 9

    estimate = statistics.estimates(result_of(empty))["dice_fg"]

    assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
    assert not estimate.excludes_zero


def test_one_image_gives_an_interval_of_no_width():
    estimate = statistics.estimates(result_of([[[5, 5], [0, 5]]]))["iou"]

    assert estimate.low == estimate.value == estimate.high


def test_a_checkpoint_differs_from_itself_by_nothing():
    differences = statistics.paired_differences(some_result(), some_result())

    assert all(d == statistics.Estimate(0, 0, 0) for d in differences.values())


def test_a_small_constant_lead_shows_although_the_scores_themselves_are_uncertain():
    loss = np.linspace(0.1, 2.0, 20)
    a, b = some_result(loss=loss), some_result(loss=loss - 0.05)

    lead = statistics.paired_differences(a, b)["loss"]

    assert (lead.value, lead.low, lead.high) == pytest.approx((0.05,) * 3)
    assert lead.excludes_zero
    assert statistics.estimates(a)["loss"].half_width > 0.2


def test_results_of_other_images_are_not_paired():
    a, b = some_result(), some_result(fingerprint="another")

    assert not statistics.comparable(a, b)
    with pytest.raises(ValueError, match="same images"):
        statistics.paired_differences(a, b)


def test_a_metric_that_is_added_gets_its_interval(monkeypatch):
    monkeypatch.setitem(metrics.OF_SPLIT, "predicted_fg", lambda c: c[..., 1:].sum((-2, -1)) / 100)
    monkeypatch.setitem(metrics.PER_IMAGE, "half", lambda c: np.full(len(c), 0.5))
    monkeypatch.setitem(metrics.OF_CLASS, "miss", lambda c: 1 - metrics.recall_of_class(c))

    found = statistics.estimates(some_result())

    assert found["half"] == statistics.Estimate(0.5, 0.5, 0.5)
    for name in ("predicted_fg", "miss[scratch]", "miss[dent]"):
        assert found[name].low < found[name].value < found[name].high
    assert found["miss[dent]"].value == pytest.approx(1 - found["recall[dent]"].value)
