"""Damages counted by hand on small maps, and the formulas over them against scikit-learn's ways."""

import numpy as np
import pytest
import torch

from cardamage.evaluation.confusion import foreground_confidence, foreground_probability
from cardamage.evaluation.damages import (
    BINS,
    BOUNDS,
    UNIT,
    calibration_error,
    count_damages,
    presence_curve,
)


def maps(truth: str, predicted: str):
    """Two label maps, drawn by rows of digits with / between them."""
    return [
        np.array([[int(c) for c in row] for row in drawn.split("/")], np.uint8)
        for drawn in (truth, predicted)
    ]


def totals(counts):
    """Damages, found, marks and false by class, over the sizes."""
    return counts.sum(axis=1).tolist()


def test_nothing_in_truth_and_prediction_counts_nothing():
    assert not count_damages(*maps("000/000", "000/000"), 3).any()


def test_a_quarter_of_a_damage_is_enough_to_be_found_and_less_is_not():
    enough = count_damages(*maps("1111/0000", "1000/0000"), 2)
    assert totals(enough) == [[1, 1, 1, 0], [1, 1, 1, 0]]
    less = count_damages(*maps("11111/00000", "10000/00000"), 2)
    assert totals(less)[1] == [1, 0, 1, 0]  # missed, though its mark is right


def test_a_mark_over_everything_is_false_though_it_covers_the_damage():
    counts = count_damages(*maps("10000/00000", "11111/11111"), 2)
    assert totals(counts)[1] == [1, 1, 1, 1]


def test_corners_join_and_gaps_part():
    counts = count_damages(*maps("10100/01000/00001", "00000/00000/00000"), 2)
    assert totals(counts)[1] == [2, 0, 0, 0]


def test_another_class_is_damage_all_the_same_and_not_that_class():
    counts = count_damages(*maps("1100/0000", "2200/0000"), 3)
    assert totals(counts) == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 1, 1]]


def test_several_predictions_find_one_damage_together():
    counts = count_damages(*maps("11111111/00000000", "10000001/00000000"), 2)
    assert totals(counts)[1] == [1, 1, 2, 0]


def test_sizes_are_shares_of_the_photo():
    side = 100
    for pixels, expected in (
        (int(BOUNDS[0] * side * side), 0),
        (int(BOUNDS[0] * side * side) + 1, 1),
        (int(BOUNDS[1] * side * side) - 1, 1),
        (int(BOUNDS[1] * side * side), 2),
    ):
        truth = np.zeros(side * side, np.uint8)
        truth[:pixels] = 1
        counts = count_damages(truth.reshape(side, side), np.zeros((side, side), np.uint8), 2)
        assert counts[1, :, 0].tolist() == [int(size == expected) for size in range(3)]


def test_the_window_around_the_damage_changes_nothing():
    generator = np.random.default_rng(0)
    truth, predicted = (generator.integers(0, 3, (9, 11)).astype(np.uint8) for _ in range(2))
    around = [np.pad(each, ((5, 3), (2, 7))) for each in (truth, predicted)]
    alone, padded = count_damages(truth, predicted, 3), count_damages(*around, 3)
    assert totals(alone) == totals(padded)


def test_sensitivity_and_specificity_at_every_threshold():
    presence = np.array([0.9, 0.2, 0.6, 0.4], np.float32)
    curve = presence_curve(presence, np.array([True, True, False, False]))
    for threshold, sensitivity, specificity in zip(
        curve.thresholds, curve.sensitivity, curve.specificity, strict=True
    ):
        called = presence.astype(np.float64) >= threshold
        assert sensitivity == called[:2].mean()
        assert specificity == (~called[2:]).mean()
    assert (curve.thresholds[0], curve.thresholds[-1]) == (0, 1)


def test_without_sound_photos_false_alarms_are_unknown():
    curve = presence_curve(np.array([0.5], np.float32), np.array([True]))
    assert np.isnan(curve.specificity).all()


def test_the_calibration_error_is_the_weighted_distance():
    reliability = np.zeros((BINS, 3), np.int64)
    reliability[2] = (30, 6, round(30 * 0.125 * UNIT))  # says 0.125, is 0.2
    reliability[19] = (10, 9, round(10 * 0.975 * UNIT))  # says 0.975, is 0.9
    assert calibration_error(reliability) == pytest.approx((30 * 0.075 + 10 * 0.075) / 40)
    assert np.isnan(calibration_error(np.zeros((BINS, 3), np.int64)))


def test_confidence_is_binned_pixel_by_pixel():
    torch.manual_seed(0)
    logits, target = 2 * torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5), dtype=torch.uint8)
    presence, reliability = foreground_confidence(foreground_probability(logits), target)
    probability = 1 - logits.softmax(dim=1)[:, 0].numpy()
    assert presence.tolist() == pytest.approx(probability.reshape(2, -1).max(axis=1).tolist())
    edges = np.linspace(0, 1, BINS + 1)
    pixels, _ = np.histogram(probability, edges)
    foreground, _ = np.histogram(probability[target.numpy() > 0], edges)
    sums, _ = np.histogram(probability, edges, weights=probability)
    assert reliability[:, 0].tolist() == pixels.tolist()
    assert reliability[:, 1].tolist() == foreground.tolist()
    assert (reliability[:, 2] / UNIT).tolist() == pytest.approx(sums.tolist(), abs=1e-3)
