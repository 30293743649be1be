"""Regions as polygons: by hand, and against pycocotools' own drawing of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cardamage.predict.polygons import outlines, simplify


def drawn(polygon, shape):
    """What pycocotools makes of a polygon."""
    flat = [float(number) for corner in polygon for number in corner]
    return coco_mask.decode(coco_mask.frPyObjects([flat], *shape))[..., 0].astype(bool)


def picture(*rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_a_block_has_four_corners_clockwise():
    assert outlines(picture("....", ".##.", ".##.")) == [[(1, 1), (3, 1), (3, 3), (1, 3)]]


def test_a_region_over_the_whole_image():
    assert outlines(np.ones((2, 3), bool)) == [[(0, 0), (3, 0), (3, 2), (0, 2)]]


def test_nothing_has_no_outline():
    assert outlines(np.zeros((3, 3), bool)) == []


def test_pixels_that_touch_by_a_corner_are_two_regions():
    assert outlines(picture("#.", ".#")) == [
        [(0, 0), (1, 0), (1, 1), (0, 1)],
        [(1, 1), (2, 1), (2, 2), (1, 2)],
    ]


def test_a_hole_is_cut_open_to_its_left():
    (path,) = outlines(picture("###", "#.#", "###"))
    cut = [(0, 1), (1, 1)]
    assert path == [
        *[(0, 0), (3, 0), (3, 3), (0, 3)],
        *cut,
        *[(1, 2), (2, 2), (2, 1)],  # around the hole the other way
        *cut[::-1],
    ]


def test_an_island_in_a_hole_is_a_region_of_its_own():
    found = outlines(picture("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert [len(path) for path in found] == [11, 4]


@pytest.mark.parametrize(
    "rows",
    [
        ("#######", "#.#.#.#", "#######"),  # holes joined to holes
        ("######", "#.#..#", "###.##", "#..#.#", "######"),
        (".#.", "###", ".#."),
        ("#.#", ".#.", "#.#"),
    ],
)
def test_regions_by_hand_are_drawn_as_they_were(rows):
    inside = picture(*rows)
    again = sum(drawn(path, inside.shape).astype(int) for path in outlines(inside))
    np.testing.assert_array_equal(again, inside)


@settings(deadline=None)
@given(st.integers(1, 24), st.integers(1, 24), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_pycocotools_draws_the_same_pixels_again(height, width, share, seed):
    """Each pixel once, and pixels that touch along a side in one polygon."""
    inside = np.random.default_rng(seed).random((height, width)) < share
    regions = [drawn(path, inside.shape) for path in outlines(inside)]
    painted = sum((r.astype(int) for r in regions), np.zeros(inside.shape, int))
    np.testing.assert_array_equal(painted, inside)
    for region in regions:
        assert _is_connected(region)
    assert len(regions) == _count_regions(inside)


def test_a_staircase_becomes_a_slope():
    stairs = [(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3), (0, 3)]
    # The steps stand out from the straight way, from (0, 0) to (3, 3), by half a diagonal.
    assert simplify(stairs, 0.1) == stairs
    assert simplify(stairs, 0.71) == [(0, 0), (3, 3), (0, 3)]


def test_what_is_too_small_to_simplify_stays():
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert simplify(square, 5) == square


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 3.0])
def test_no_corner_lies_farther_from_the_simpler_path_than_allowed(tolerance):
    noise = np.random.default_rng(0).random((20, 20))
    for path in outlines(noise < 0.7):
        simpler = simplify(path, tolerance)
        assert set(simpler) <= set(path)
        starts, ends = np.array(simpler, float), np.roll(np.array(simpler, float), -1, axis=0)
        steps = np.linspace(0, 1, 201)[:, None, None]
        between = (starts * (1 - steps) + ends * steps).reshape(-1, 2)  # at most 0.1 apart
        for corner in path:
            assert np.hypot(*(between - corner).T).min() <= tolerance + 0.1


def _is_connected(region):
    return _count_regions(region) == 1


def _count_regions(inside):
    """Regions by flooding, pixel by pixel."""
    left = {(int(y), int(x)) for y, x in np.argwhere(inside)}
    regions = 0
    while left:
        regions += 1
        reached = [left.pop()]
        while reached:
            y, x = reached.pop()
            for place in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if place in left:
                    left.remove(place)
                    reached.append(place)
    return regions
