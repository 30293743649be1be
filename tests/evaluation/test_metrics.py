"""Scores: by hand, by property, and where there is nothing to score."""

import math
from typing import get_args

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cardamage.config.experiment import SelectBy
from cardamage.evaluation.metrics import HEADLINES, scores, scores_per_image, without_a_model

NAMES = ("background", "dent", "scratch")

# Two images of 20 pixels. Rows are the true class, columns the predicted one.
FIRST = [
    [10, 1, 0],  # 1 false positive
    [2, 3, 1],  # 2 missed; 3 + 1 hit, 1 of them of the wrong class
    [0, 1, 2],
]
SECOND = [
    [16, 0, 2],
    [0, 0, 0],  # no true dent
    [1, 0, 1],
]
COUNTS = np.array([FIRST, SECOND], dtype=np.int64)
LOSS = np.array([0.5, 1.5])

# Up to 2^40 pixels a cell: sums stay inside int64, and pass float32's and int32's reach.
counts_of_splits = hnp.arrays(
    np.int64,
    st.tuples(st.integers(1, 5), st.integers(2, 4)).map(lambda s: (s[0], s[1], s[1])),
    elements=st.one_of(st.just(0), st.integers(0, 50), st.integers(0, 2**40)),
)


def names(counts):
    return ["background", *(f"c{i}" for i in range(1, counts.shape[-1]))]


def test_every_score_by_hand():
    # Any foreground: first TP 7, FP 1, FN 2; second TP 1, FP 2, FN 1.
    row = scores(COUNTS, LOSS, NAMES)
    expected = {
        "loss": 1.0,
        "dice": (14 / 17 + 2 / 5) / 2,
        "iou": (7 / 10 + 1 / 4) / 2,
        "accuracy": (10 + 3 + 2 + 16 + 0 + 1) / 40,
        "dice_fg": 16 / 22,  # TP 8, FP 3, FN 3
        "iou_fg": 8 / 14,
        # Dent: 3 hit, 6 true, 5 predicted. Scratch: 3 hit, 5 true, 6 predicted.
        "mdice": (6 / 11 + 6 / 11) / 2,
        "miou": (3 / 8 + 3 / 8) / 2,
        "dice[dent]": 6 / 11,
        "iou[dent]": 3 / 8,
        "precision[dent]": 3 / 5,
        "recall[dent]": 3 / 6,
        "dice[scratch]": 6 / 11,
        "iou[scratch]": 3 / 8,
        "precision[scratch]": 3 / 6,
        "recall[scratch]": 3 / 5,
    }
    assert list(row) == list(expected)
    assert tuple(row)[: len(HEADLINES)] == HEADLINES
    assert row == pytest.approx(expected, abs=1e-15)
    assert all(type(value) is float for value in row.values())


def test_swapping_the_damage_classes_costs_the_study_scores_nothing():
    swapped = scores(COUNTS[:, :, [0, 2, 1]], LOSS, NAMES)
    row = scores(COUNTS, LOSS, NAMES)
    for name in ("dice", "iou", "dice_fg", "iou_fg"):
        assert swapped[name] == row[name]
    assert swapped["accuracy"] < row["accuracy"]
    assert swapped["mdice"] < row["mdice"]


def test_an_image_without_foreground_in_truth_and_prediction_scores_1():
    counts = np.array([[[9, 0], [0, 0]], [[8, 1], [0, 0]], [[8, 0], [1, 0]]], dtype=np.int64)
    each = scores_per_image(counts, np.zeros(len(counts)))
    dice, iou = each["dice"], each["iou"]
    assert dice.tolist() == [1.0, 0.0, 0.0]
    assert iou.tolist() == [1.0, 0.0, 0.0]
    row = scores(counts, np.zeros(3), ("background", "dent"))
    assert row["dice"] == row["iou"] == pytest.approx(1 / 3)
    assert row["dice_fg"] == 0.0


def test_a_split_without_any_foreground_has_no_foreground_scores():
    row = scores(np.array([[[9, 0], [0, 0]]]), np.array([0.1]), ("background", "dent"))
    assert row["dice"] == row["iou"] == row["accuracy"] == 1.0
    rest = list(row)[list(row).index("dice_fg") :]
    assert all(math.isnan(row[name]) for name in rest)


def test_a_class_absent_from_truth_and_prediction_is_left_out_of_the_means():
    counts = np.array([[[5, 1, 0], [1, 3, 0], [0, 0, 0]]])
    row = scores(counts, np.zeros(1), NAMES)
    assert math.isnan(row["dice[scratch]"])
    assert row["mdice"] == row["dice[dent]"] == 6 / 8
    assert row["miou"] == row["iou[dent]"] == 3 / 5


def test_a_class_that_is_only_falsely_predicted_counts_with_0():
    counts = np.array([[[5, 0, 1], [0, 4, 0], [0, 0, 0]]])
    row = scores(counts, np.zeros(1), NAMES)
    assert row["dice[scratch]"] == row["precision[scratch]"] == 0.0
    assert math.isnan(row["recall[scratch]"])
    assert row["mdice"] == row["miou"] == 0.5


def test_a_class_that_is_never_predicted_has_no_precision():
    row = scores(np.array([[[5, 0, 0], [0, 4, 0], [2, 0, 0]]]), np.zeros(1), NAMES)
    assert math.isnan(row["precision[scratch]"])
    assert row["recall[scratch]"] == 0.0


def test_no_images_have_no_scores():
    row = scores(np.zeros((0, 3, 3), np.int64), np.zeros(0), NAMES)
    assert all(math.isnan(value) for value in row.values())


def test_accuracy_is_of_the_split_and_not_a_mean_over_images():
    counts = np.array([[[1, 0], [0, 0]], [[0, 99], [0, 0]]])
    assert scores(counts, np.zeros(2), ("background", "dent"))["accuracy"] == 0.01


def test_shapes_that_do_not_fit_are_a_defect():
    with pytest.raises(ValueError, match="do not fit 2 class names"):
        scores(COUNTS, LOSS, NAMES[:2])
    with pytest.raises(ValueError, match="do not fit"):
        scores(COUNTS, LOSS[:1], NAMES)


@given(counts_of_splits, st.randoms(use_true_random=False))
def test_the_order_of_images_changes_no_bit(counts, random):
    loss = np.array([random.uniform(0, 9) for _ in counts])
    order = list(range(len(counts)))
    random.shuffle(order)
    np.testing.assert_equal(
        scores(counts[order], loss[order], names(counts)), scores(counts, loss, names(counts))
    )


@given(counts_of_splits)
def test_scores_lie_between_0_and_1_and_agree_with_each_other(counts):
    row = scores(counts, np.zeros(len(counts)), names(counts))
    for name, value in row.items():
        assert math.isnan(value) or 0 <= value <= 1, name
    for name, dice in row.items():
        if name.startswith(("dice_fg", "dice[")):
            iou = row[name.replace("dice", "iou")]
            assert math.isnan(dice) == math.isnan(iou)
            assert math.isnan(dice) or dice == pytest.approx(2 * iou / (1 + iou), abs=1e-12)
    each = scores_per_image(counts, np.zeros(len(counts)))
    dice, iou = each["dice"], each["iou"]
    np.testing.assert_allclose(dice, 2 * iou / (1 + iou), atol=1e-12)


@given(counts_of_splits)
def test_transposing_swaps_precision_and_recall_only(counts):
    row = scores(counts, np.zeros(len(counts)), names(counts))
    turned = scores(counts.transpose(0, 2, 1), np.zeros(len(counts)), names(counts))
    swap = {"precision": "recall", "recall": "precision"}
    for name, value in row.items():
        kind, bracket, rest = name.partition("[")
        np.testing.assert_equal(turned[swap.get(kind, kind) + bracket + rest], value)


@given(hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 2)))
def test_a_perfect_prediction_scores_1(truth):
    counts = np.stack([np.diag(np.bincount(mask.ravel(), minlength=3)) for mask in truth])
    row = scores(counts, np.zeros(3), NAMES)
    assert {v for v in row.values() if not math.isnan(v)} <= {0.0, 1.0}
    assert row["loss"] == 0.0
    assert row["dice"] == row["iou"] == row["accuracy"] == 1.0


def test_the_best_epoch_may_be_chosen_by_headline_scores():
    assert set(get_args(SelectBy)) <= set(HEADLINES)


@given(counts_of_splits)
def test_answers_without_a_model_score_what_such_predictions_would(counts):
    def answering(class_id: int):
        answered = np.zeros_like(counts)
        answered[:, :, class_id] = counts.sum(axis=2)
        return scores(answered, np.zeros(len(counts)), names(counts))

    accuracy, dice_fg = without_a_model(counts)
    assert accuracy == pytest.approx(answering(0)["accuracy"], nan_ok=True)
    if counts[:, 1:].any():
        assert dice_fg == pytest.approx(answering(1)["dice_fg"])
    else:
        assert math.isnan(dice_fg)


def test_answers_without_a_model_by_hand():
    # of 40 pixels 11 are foreground
    assert without_a_model(COUNTS) == pytest.approx((29 / 40, 22 / 51))


def test_scores_from_counts_are_those_of_scikit_learn():
    generator = np.random.default_rng(5)
    true = generator.integers(0, 3, (6, 400))
    predicted = np.where(generator.random((6, 400)) < 0.6, true, generator.integers(0, 3, (6, 400)))
    counts = np.stack(
        [
            sklearn.metrics.confusion_matrix(t, p, labels=[0, 1, 2])
            for t, p in zip(true, predicted, strict=True)
        ]
    ).astype(np.int64)

    found = scores(counts, np.zeros(6), ("background", "a", "b"))

    t, p = true.ravel(), predicted.ravel()
    precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(t, p, labels=[1, 2])
    iou = sklearn.metrics.jaccard_score(t, p, labels=[1, 2], average=None)
    each = [sklearn.metrics.f1_score(a > 0, b > 0) for a, b in zip(true, predicted, strict=True)]
    expected = {
        "accuracy": sklearn.metrics.accuracy_score(t, p),
        "dice": np.mean(each),
        "dice_fg": sklearn.metrics.f1_score(t > 0, p > 0),
        "iou_fg": sklearn.metrics.jaccard_score(t > 0, p > 0),
        "mdice": f1.mean(),
        "miou": iou.mean(),
        **{
            f"{name}[{c}]": values[i]
            for name, values in (
                ("precision", precision),
                ("recall", recall),
                ("dice", f1),
                ("iou", iou),
            )
            for i, c in enumerate("ab")
        },
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
