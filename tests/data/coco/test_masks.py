"""Label masks against masks computed by hand, and against pycocotools on the whole image."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cardamage.data.coco.masks import paint
from cardamage.data.coco.records import Annotation, ImageRecord

CLASSES = {0: 0, 1: 1, 2: 2, 3: 3}


def outlined(category: int, *polygons: Sequence[float]) -> Annotation:
    arrays = tuple(np.array(polygon, dtype=np.float64) for polygon in polygons)
    return Annotation(0, category, arrays, None, False)


def encoded(category: int, mask: np.ndarray) -> Annotation:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return Annotation(0, category, (), rle, False)


def record(*annotations: Annotation, width: int = 6, height: int = 4) -> ImageRecord:
    return ImageRecord(0, "a.jpg", width, height, annotations)


def test_an_empty_image():
    painted = paint(record(), CLASSES)
    assert painted.mask.shape == (4, 6)
    assert painted.mask.dtype == np.uint8
    assert painted.mask.flags.f_contiguous
    assert not painted.mask.any()
    assert (painted.overlapped_pixels, painted.skipped_annotations) == (0, 0)


def test_a_square():
    """Corners at pixel borders 1..4 and 1..3 hold columns 1-3 and rows 1-2."""
    painted = paint(record(outlined(2, [1, 1, 4, 1, 4, 3, 1, 3])), CLASSES)
    assert painted.mask.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 2, 2, 2, 0, 0],
        [0, 2, 2, 2, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_a_polygon_that_leaves_the_image_is_cut_off():
    painted = paint(record(outlined(1, [4, -5, 20, -5, 20, 2, 4, 2])), CLASSES)
    assert painted.mask.tolist() == [
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_a_hole_as_rle():
    ring = np.array([[1, 1, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0], [0] * 6])
    assert (paint(record(encoded(3, ring)), CLASSES).mask == 3 * ring).all()


def test_later_over_earlier_and_overlaps_counted_once():
    left = outlined(1, [0, 0, 3, 0, 3, 2, 0, 2])
    right = outlined(2, [2, 0, 5, 0, 5, 2, 2, 2])
    again = outlined(2, [2, 0, 4, 0, 4, 1, 2, 1])
    painted = paint(record(left, right, again), CLASSES)
    assert painted.mask[:2].tolist() == [[1, 1, 2, 2, 2, 0]] * 2
    # Column 2 lies under left and right; columns 2 and 3 of row 0 under again as well.
    assert painted.overlapped_pixels == 3
    turned = paint(record(right, left), CLASSES)
    assert turned.mask[:2].tolist() == [[1, 1, 1, 2, 2, 0]] * 2
    assert turned.overlapped_pixels == 2


def test_two_parts_of_one_annotation_do_not_overlap():
    twice = outlined(1, [0, 0, 3, 0, 3, 2, 0, 2], [1, 0, 4, 0, 4, 2, 1, 2])
    painted = paint(record(twice), CLASSES)
    assert painted.mask[:2].tolist() == [[1, 1, 1, 1, 0, 0]] * 2
    assert painted.overlapped_pixels == 0


def test_a_category_left_as_background_is_not_painted():
    damage = outlined(1, [0, 0, 3, 0, 3, 2, 0, 2])
    car = outlined(0, [0, 0, 6, 0, 6, 4, 0, 4])
    painted = paint(record(damage, car), CLASSES)
    assert painted.mask[:2].tolist() == [[1, 1, 1, 0, 0, 0]] * 2
    assert painted.overlapped_pixels == 0


def test_a_line_of_two_points_is_no_box():
    """pycocotools would read 0 0 3 2 as a box of 3 by 2."""
    line = outlined(1, [0, 0, 3, 2])
    painted = paint(record(line, outlined(2)), CLASSES)
    assert not painted.mask.any()
    assert painted.skipped_annotations == 2
    with_square = outlined(1, [0, 0, 3, 2], [4, 0, 6, 0, 6, 4, 4, 4])
    painted = paint(record(with_square), CLASSES)
    assert painted.mask.tolist() == [[0, 0, 0, 0, 1, 1]] * 4
    assert painted.skipped_annotations == 0


def test_a_crowd_is_painted_like_any_other():
    ring = np.zeros((4, 6), dtype=np.uint8)
    ring[1:3] = 1
    crowd = Annotation(0, 2, (), encoded(2, ring).rle, True)
    assert (paint(record(crowd), CLASSES).mask == 2 * ring).all()


COORDINATE = st.floats(-20, 60, width=32)
POLYGON = st.integers(3, 8).flatmap(lambda n: st.lists(COORDINATE, min_size=2 * n, max_size=2 * n))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(POLYGON, min_size=1, max_size=3)), max_size=5),
    st.integers(1, 45),
    st.integers(1, 45),
)
def test_pasting_bounding_boxes_is_painting_everything(shapes, width, height):
    """The plain way: every annotation decoded at full size and laid over the whole mask."""
    expected = np.zeros((height, width), dtype=np.uint8)
    layers = np.zeros((height, width), dtype=np.int64)
    annotations = []
    for category, polygons in shapes:
        annotation = outlined(category, *polygons)
        annotations.append(annotation)
        rles = coco_mask.frPyObjects(list(annotation.polygons), height, width)
        inside = coco_mask.decode(coco_mask.merge(rles)) == 1
        if category:
            expected[inside] = category
            layers += inside
    painted = paint(record(*annotations, width=width, height=height), CLASSES)
    assert (painted.mask == expected).all()
    assert painted.overlapped_pixels == (layers > 1).sum()


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 20))
def test_any_rle_is_painted_as_it_is(seed, width, height):
    generator = np.random.default_rng(seed)
    mask = generator.random((height, width)) < generator.random()
    painted = paint(record(encoded(2, mask), width=width, height=height), CLASSES)
    assert (painted.mask == 2 * mask).all()
