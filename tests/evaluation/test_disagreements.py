"""Where label and model contradict each other, on images small enough to count by hand."""

import numpy as np
import pytest

from cardamage.evaluation.disagreements import COLUMNS, MOST, find_disagreements

ROW = "0000000000"


def image(*rows):
    return np.array([[int(c) for c in row] for row in rows], np.uint8)


def test_a_mark_without_a_label_and_a_label_without_a_mark():
    truth = image(ROW, "0220000000", "0200000000", ROW, "0000111000")
    predicted = image("0000000110", "0000000100", ROW, ROW, "0000111000")
    foreground = np.where(predicted > 0, 0.9, 0.2).astype(np.float32)

    found = find_disagreements(7, truth, predicted, foreground)

    rows = [dict(zip(COLUMNS, row, strict=True)) for row in found.tolist()]
    places = [[int(row[name]) for name in COLUMNS[:-1]] for row in rows]
    assert places == [
        [7, 0, 1, 0, 7, 2, 2, 3],  # unlabelled
        [7, 1, 2, 1, 1, 2, 2, 3],  # unfound
    ]
    assert [row["confidence"] for row in rows] == pytest.approx([0.9, 0.8])


def test_a_mark_that_is_a_quarter_damage_and_a_label_in_doubt_are_none():
    truth = image(ROW, "0111100000", ROW)
    predicted = image(ROW, "0000111100", ROW)
    foreground = np.full((3, 10), 0.6, np.float32)

    assert find_disagreements(0, truth, predicted, foreground).shape == (0, len(COLUMNS))


def test_of_many_the_largest_are_kept():
    predicted = np.zeros((2, 4 * MOST), np.uint8)
    predicted[0, ::2] = 1
    predicted[:, 0] = 1
    nothing = np.zeros_like(predicted)

    found = find_disagreements(0, nothing, predicted, np.ones(predicted.shape, np.float32))

    assert len(found) == MOST
    assert found[0, COLUMNS.index("pixels")] == 2
