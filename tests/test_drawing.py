"""Colours, overlays, legends and sheets, pixel by pixel where it matters."""

import numpy as np
from PIL import Image

from cardamage.drawing import colour_map, contact_sheet, legend, overlay
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
    assert {colour(0), colour(1), colour(2), (255, 255, 255)} <= shown
    assert legend(["background"], height_px=30).width < picture.width


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
