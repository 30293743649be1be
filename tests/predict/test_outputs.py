"""What is kept of a prediction: pixel counts and scores by hand, the files, the table's columns."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.labels import colour
from cardamage.predict.instances import PhotoInstances
from cardamage.predict.maps import ClassMap
from cardamage.predict.outputs import (
    Outcome,
    class_shares,
    count_pixels,
    draw_sheet,
    keep,
    photo_scores,
    prepare,
    rows,
    without_nan,
)
from cardamage.predict.photos import Photo, Truth

NAMES = ("background", "dent", "scratch")


def test_pixels_are_counted_by_truth_and_prediction():
    truth = np.array([[0, 0, 1], [1, 2, 2]], np.uint8)
    predicted = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    assert count_pixels(truth, predicted, 3).tolist() == [[1, 1, 0], [0, 1, 1], [1, 0, 1]]


def test_pixels_of_a_large_photo_are_counted_in_parts(monkeypatch):
    monkeypatch.setattr("cardamage.predict.outputs._PIXELS_AT_ONCE", 7)
    truth, predicted = np.random.default_rng(0).integers(0, 3, (2, 5, 6), dtype=np.uint8)
    expected = [[((truth == t) & (predicted == p)).sum() for p in range(3)] for t in range(3)]
    assert count_pixels(truth, predicted, 3).tolist() == expected


def test_shares_are_of_all_pixels():
    predicted = np.array([[0, 0, 0], [2, 2, 0]], np.uint8)
    assert class_shares("share", predicted, NAMES) == {
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


def kept(folder, name, predicted, truth=None):
    """What is kept of a grey photo, which the model is wholly sure of."""
    height, width = predicted.shape
    Image.new("RGB", (width, height), (90, 90, 90)).save(folder / name)
    prepared = prepare(Photo(folder / name, Path(name).stem), (16, 24))
    assert (prepared.size, prepared.pixels.shape) == ((width, height), (16, 24, 3))
    found = ClassMap(predicted, np.full_like(predicted, 255))
    out = folder / "out"
    return keep(prepared, found, truth, out=out, class_names=NAMES, source="a test", simplify_px=0)


def test_a_map_is_kept_with_a_palette_beside_its_sheet(tmp_path):
    predicted = np.tile(np.array([[0, 1, 2, 2]], np.uint8), (30, 10))
    outcome = kept(tmp_path, "a photo.jpg", predicted)
    out = tmp_path / "out"
    assert sorted(p.name for p in out.iterdir()) == ["a photo.overlay.jpg", "a photo.png"]
    with Image.open(out / "a photo.png") as found:
        assert found.mode == "P"
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
    assert (outcome.instances.file_name, len(outcome.instances.instances)) == ("a photo.jpg", 20)


def test_a_photo_with_a_mask_is_scored(tmp_path):
    predicted, truth = np.ones((8, 8), np.uint8), np.zeros((8, 8), np.uint8)
    truth[:4] = 1
    outcome = kept(tmp_path, "a.png", predicted, Truth(truth, 3))
    assert outcome.counts.tolist() == [[0, 32, 0], [0, 32, 0], [0, 0, 0]]
    assert outcome.row["dice"] == pytest.approx(2 / 3)
    assert (outcome.row["drawn[dent]"], outcome.row["overlapped_pixels"]) == (0.5, 3)


def test_photos_without_a_mask_have_empty_scores():
    nothing = PhotoInstances("b", 1, 1, [])
    scored = Outcome({"image": "a", "dice": 0.5}, np.zeros((3, 3), np.int64), nothing)
    table = rows([Outcome({"image": "b"}, None, nothing), scored])
    assert table[1] == {"image": "a", "dice": 0.5}
    assert table[0]["image"] == "b"
    assert math.isnan(table[0]["dice"])
    assert without_nan(table[0]) == {"image": "b", "dice": None}
    assert rows([Outcome({"image": "b"}, None, nothing)]) == [{"image": "b"}]


def sheet(size, class_id, *, drawn):
    """The sheet of a grey photo that is all of one class, and drawn so as well."""
    view = Image.new("RGB", size, (128, 128, 128))
    mask = np.full((size[1], size[0]), class_id, np.uint8)
    row = {"image": "a.jpg", **class_shares("share", mask, NAMES)}
    if drawn:
        counts = [count_pixels(mask, mask, 3)]
        row |= class_shares("drawn", mask, NAMES) | photo_scores(counts, NAMES)
    return draw_sheet(view, mask, mask if drawn else None, NAMES, row, words="in a test")


@pytest.mark.parametrize("size", [(1, 1), (640, 1), (40, 640), (640, 480)])
def test_sheets_of_photos_of_all_shapes_are_large_enough_for_words(size):
    without, beside = sheet(size, 1, drawn=False), sheet(size, 1, drawn=True)
    assert min(without.width, beside.width) >= 860
    assert beside.width * beside.height > without.width * without.height * 0.99
    assert max(beside.size) < 3 * 640 + 100


def test_wide_photos_stand_one_above_another():
    assert sheet((640, 200), 1, drawn=True).width < 900
    assert sheet((640, 480), 1, drawn=True).width > 3 * 640


def test_a_sheet_shows_the_classes_in_their_colours():
    plain = np.asarray(sheet((64, 64), 0, drawn=False))
    marked = np.asarray(sheet((64, 64), 2, drawn=False))[: len(plain)]
    assert (marked == colour(2)).all(axis=-1).any()  # in the table, and the outline
    # The photo of 64 pixels stands in the middle of 240, the prediction 248 to its right.
    inside = slice(62 + 26 + 8 + 20, 62 + 26 + 8 + 44), slice(8 + 248 + 88 + 20, 8 + 248 + 88 + 44)
    assert (plain[inside] == 128).all()
    expected = np.round((np.array(colour(2)) + 128) / 2)
    assert (marked[inside] == expected).all()
