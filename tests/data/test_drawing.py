"""Colours, overlays, legends and sheets, pixel by pixel where it matters."""

import numpy as np
from PIL import Image

from cardamage.data.drawing import (
    ClassRow,
    class_table,
    colour_map,
    contact_sheet,
    cut,
    font,
    legend,
    overlay,
)
from cardamage.labels import colour

GREY = np.full((8, 8, 3), 100, dtype=np.uint8)


def mask_with_block() -> np.ndarray:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:7, 2:7] = 1
    return mask


def test_colour_map_gives_each_class_its_colour():
    mask = np.array([[0, 1], [2, 255]], dtype=np.uint8)
    coloured = colour_map(mask)
    assert coloured.dtype == np.uint8
    assert [tuple(pixel) for pixel in coloured.reshape(-1, 3).tolist()] == [
        (0, 0, 0),
        colour(1),
        colour(2),
        colour(255),
    ]


def test_overlay_leaves_the_background_and_outlines_regions():
    drawn = overlay(GREY, mask_with_block(), opacity=0.5)
    assert drawn.dtype == np.uint8
    assert (drawn[mask_with_block() == 0] == 100).all()
    assert drawn[2, 2].tolist() == list(colour(1))
    assert drawn[6, 4].tolist() == list(colour(1))
    middle = [round((100 + part) / 2) for part in colour(1)]
    assert drawn[4, 4].tolist() == middle
    assert (GREY == 100).all()


def test_overlay_at_either_end_of_opacity():
    mask = mask_with_block()
    assert (overlay(GREY, mask, opacity=1)[mask == 1] == colour(1)).all()
    assert overlay(GREY, mask, opacity=0)[4, 4].tolist() == [100, 100, 100]


def test_a_large_picture_has_white_around_its_regions():
    mask = np.zeros((480, 480), np.uint8)
    mask[100:200, 100:200] = 3
    drawn = overlay(np.zeros((480, 480, 3), np.uint8), mask)
    assert drawn[150, 100].tolist() == [255, 255, 255]
    assert drawn[150, 101].tolist() == list(colour(3))
    assert not drawn[150, 99].any()


def test_touching_regions_are_outlined_apart():
    mask = mask_with_block()
    mask[2:7, 4:7] = 2
    drawn = overlay(GREY, mask, opacity=0)
    assert drawn[4, 3].tolist() == list(colour(1))
    assert drawn[4, 4].tolist() == list(colour(2))


def test_a_mask_of_nothing_and_a_single_pixel():
    assert (overlay(GREY, np.zeros((8, 8), dtype=np.uint8)) == GREY).all()
    one = np.ones((1, 1), dtype=np.uint8)
    assert overlay(GREY[:1, :1], one).shape == (1, 1, 3)


def test_legend_shows_every_class_in_its_colour():
    picture = legend(["background", "scratch", "broken lamp"], height_px=30)
    assert picture.height == 30
    shown = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()}
    assert {colour(1), colour(2), (255, 255, 255)} <= shown
    assert colour(0) not in shown  # the background is not painted, so it has no colour
    assert legend(["background"], height_px=30).width < picture.width


def test_a_legend_of_many_classes_goes_on_in_the_next_row():
    names = [f"class number {number}" for number in range(40)]
    picture = legend(names, height_px=20, width_px=400)
    assert (picture.width, picture.height % 20) == (400, 0)
    assert picture.height > 5 * 20
    shown = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3).tolist()}
    assert {colour(number) for number in range(1, 40)} <= shown
    assert (np.asarray(picture)[:, -2:] == 255).all()  # nothing runs over the edge


def test_a_name_that_is_too_long_is_cut():
    picture = legend(["background", "a very " * 40 + "long name"], height_px=20, width_px=300)
    assert picture.size == (300, 40)
    assert (np.asarray(picture)[:, -2:] == 255).all()


def test_letters_of_many_languages_have_their_own_shapes():
    """A font without them draws the same box for each."""
    letters = "ğşıİçöüéñßłЖΩ"
    drawn = {bytes(font(20).getmask(letter)) for letter in letters}
    assert len(drawn) == len(letters)


def test_text_is_cut_where_its_room_ends():
    face = font(14)
    assert cut("short", face, 200) == "short"
    text = cut("much too long for so little room", face, 80)
    assert text.endswith("…")
    assert face.getlength(text) <= 80
    assert cut("two\nlines", face, 200) == "two lines"


def test_a_table_shows_colours_and_stays_in_its_width():
    rows = [ClassRow(i, "x" * 100, ["12.3 %", "0.500"]) for i in (0, 1, 200)]
    picture = class_table(["predicted", "Dice"], rows, width_px=400)
    assert picture.size == (400, 4 * 26 + 10)
    pixels = np.asarray(picture)
    shown = {tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}
    assert {colour(1), colour(200)} <= shown
    assert (pixels[:, -2:] == 255).all()


def test_contact_sheet_places_cells_in_rows():
    red, blue = Image.new("RGB", (20, 10), "red"), Image.new("RGB", (20, 10), "blue")
    sheet = contact_sheet([[("a", red), ("b", blue)], [("c", blue)]], title_px=12, gap_px=4)
    assert sheet.size == (4 + 2 * 24, 4 + 2 * 26)
    pixels = np.asarray(sheet)
    assert (pixels[4 + 12 : 26, 4:24] == (255, 0, 0)).all()
    assert (pixels[4 + 12 : 26, 28:48] == (0, 0, 255)).all()
    assert (pixels[30 + 12 : 52, 4:24] == (0, 0, 255)).all()
    assert (pixels[30:, 28:] == 255).all()


def test_contact_sheet_of_nothing_and_with_long_titles():
    assert contact_sheet([]).size == (8, 8)
    picture = Image.new("RGB", (30, 10))
    sheet = contact_sheet([[("a title much longer than thirty pixels", picture)]])
    assert sheet.width == 30 + 16
    assert (np.asarray(sheet)[:, -8:] == 255).all()
