"""What is kept of a prediction: pixel counts and scores by hand, the files, the table's columns."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.data.photos import Photo
from cardamage.labels import colour
from cardamage.predictions import (
    Outcome,
    class_shares,
    count_pixels,
    draw_sheet,
    keep,
    photo_scores,
    rows,
)

NAMES = ("background", "dent", "scratch")


def test_pixels_are_counted_by_truth_and_prediction():
    truth = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    predicted = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    assert count_pixels(truth, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]


def test_shares_are_of_all_pixels():
    predicted = np.array([[0, 0, 0], [2, 2, 0]], np.uint8)
    assert class_shares(predicted, NAMES) == {
        "share[background]": 4 / 6,
        "share[dent]": 0.0,
        "share[scratch]": 2 / 6,
    }


def test_scores_of_one_photo_and_of_several():
    one = np.array([[4, 1, 0], [0, 2, 0], [0, 0, 0]])
    other = np.array([[6, 0, 0], [1, 0, 0], [0, 0, 0]])
    row = photo_scores([one], NAMES)
    assert "loss" not in row
    assert row["dice"] == row["dice_fg"] == row["dice[dent]"] == 4 / 5
    assert row["accuracy"] == 6 / 7
    both = photo_scores([one, other], NAMES)
    assert both["dice"] == (4 / 5 + 0) / 2
    assert both["dice_fg"] == 4 / 6
    assert both["accuracy"] == 12 / 14


def test_a_map_is_kept_in_8_bit_grey_beside_its_sheet(tmp_path):
    predicted = np.tile(np.array([[0, 1, 2, 2]], np.uint8), (30, 10))
    photo = Photo(Path("a photo.jpg"), "a photo")
    image = Image.new("RGB", (40, 30), (90, 90, 90))
    outcome = keep(photo, image, predicted, None, out=tmp_path, class_names=NAMES)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a photo.overlay.jpg", "a photo.png"]
    with Image.open(tmp_path / "a photo.png") as found:
        assert found.mode == "L"
        np.testing.assert_array_equal(np.asarray(found), predicted)
    assert outcome.counts is None
    assert outcome.row == {
        "image": "a photo.jpg",
        "width": 40,
        "height": 30,
        "share[background]": 0.25,
        "share[dent]": 0.25,
        "share[scratch]": 0.5,
    }


def test_a_photo_with_a_mask_is_scored(tmp_path):
    predicted, truth = np.ones((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    image = Image.new("RGB", (8, 8))
    photo = Photo(Path("a.jpg"), "a")
    outcome = keep(photo, image, predicted, truth, out=tmp_path, class_names=NAMES)
    assert outcome.counts.tolist() == [[0, 32, 0], [0, 32, 0], [0, 0, 0]]
    assert outcome.row["dice"] == pytest.approx(2 / 3)


def test_photos_without_a_mask_have_empty_scores():
    scored = Outcome({"image": "a", "dice": 0.5}, np.zeros((3, 3), np.int64))
    table = rows([Outcome({"image": "b"}, None), scored])
    assert table[1] == {"image": "a", "dice": 0.5}
    assert table[0]["image"] == "b"
    assert math.isnan(table[0]["dice"])
    assert rows([Outcome({"image": "b"}, None)]) == [{"image": "b"}]


@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (50, 900), (2000, 1500)])
def test_sheets_of_photos_of_all_sizes_are_alike(size):
    width, height = size
    image = Image.new("RGB", size, (90, 90, 90))
    predicted = np.ones((height, width), np.uint8)
    without = draw_sheet(image, predicted, None, NAMES)
    beside = draw_sheet(image, predicted, predicted, NAMES)
    assert beside.width >= without.width
    assert max(beside.size) < 3 * 640 + 100
    assert min(without.size) > 28


def test_a_sheet_shows_the_classes_in_their_colours():
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    plain = np.asarray(draw_sheet(image, np.zeros((64, 64), np.uint8), None, NAMES))
    marked = np.asarray(draw_sheet(image, np.full((64, 64), 2, np.uint8), None, NAMES))
    changed = (plain != marked).any(axis=-1)
    assert changed.any()
    tint = marked[changed].astype(int).mean(axis=0) - plain[changed].astype(int).mean(axis=0)
    towards = np.subtract(colour(2), 128)
    assert (np.sign(tint) == np.sign(towards)).all()
