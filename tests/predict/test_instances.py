"""Regions of a map as COCO instances: by hand, and read back by pycocotools."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from cardamage.predict.instances import PhotoInstances, coco_content, find_instances

NAMES = ("background", "dent", "scratch")


def instances(ids):
    return find_instances(ids, np.full_like(ids, 255))


def test_a_region_by_hand():
    ids = np.zeros((4, 5), np.uint8)
    ids[1:3, 1:4] = 2
    confidence = np.full((4, 5), 51, np.uint8)
    confidence[1, 1:4] = 255
    (found,) = find_instances(ids, confidence)
    assert (found.class_id, found.box, found.area) == (2, (1, 1, 3, 2), 6)
    assert found.polygon == [(1, 1), (4, 1), (4, 3), (1, 3)]
    assert found.score == pytest.approx((1 + 0.2) / 2)


def test_regions_come_by_class_then_from_the_top():
    ids = np.array([[2, 0, 1], [0, 0, 0], [1, 0, 2]], np.uint8)
    assert [(i.class_id, i.box[:2]) for i in instances(ids)] == [
        (1, (2, 0)),
        (1, (0, 2)),
        (2, (0, 0)),
        (2, (2, 2)),
    ]


def test_nothing_found_is_no_instance():
    assert instances(np.zeros((3, 3), np.uint8)) == []


def test_pycocotools_reads_the_maps_back(tmp_path):
    """Blobs of three classes with holes and islands; the second photo shows nothing."""
    y, x = np.mgrid[:60, :90]
    waves = np.sin(x / 7) + np.cos(y / 5) + np.sin((x + y) / 11)
    first = np.digitize(waves, [0.3, 1.2]).astype(np.uint8)
    first[30:40, 30:60] = np.random.default_rng(0).integers(0, 3, (10, 30))
    maps = [first, np.zeros((7, 5), np.uint8)]
    photos = [
        PhotoInstances(name, ids.shape[1], ids.shape[0], instances(ids))
        for name, ids in zip(("a car.jpg", "ş.png"), maps, strict=True)
    ]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(coco_content(photos, NAMES, "a test")))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)

    named = {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())}
    assert named == {1: "dent", 2: "scratch"}
    assert [(i["file_name"], i["width"], i["height"]) for i in coco.loadImgs([1, 2])] == [
        ("a car.jpg", 90, 60),
        ("ş.png", 5, 7),
    ]
    again = np.zeros_like(first)
    for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[1])):
        mask = coco.annToMask(annotation).astype(bool)
        assert not again[mask].any()  # no pixel twice
        again[mask] = annotation["category_id"]
        rows, columns = np.nonzero(mask)
        left, top, width, height = annotation["bbox"]
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert annotation["area"] == mask.sum()
        assert (annotation["iscrowd"], annotation["score"]) == (0, 1.0)
    np.testing.assert_array_equal(again, first)
    assert coco.getAnnIds(imgIds=[2]) == []


def test_simplified_outlines_stay_near_and_small_regions_are_not_lost():
    y, x = np.mgrid[:200, :200]
    ids = ((x - 90) ** 2 + (y - 100) ** 2 < 70**2).astype(np.uint8)  # a disc, and a pixel
    ids[5, 190] = 1
    confidence = np.full_like(ids, 255)
    exact_dot, exact_disc = find_instances(ids, confidence)
    dot, disc = find_instances(ids, confidence, simplify_px=1)
    assert dot == exact_dot
    assert len(disc.polygon) * 5 < len(exact_disc.polygon)
    assert disc.area == pytest.approx(exact_disc.area, rel=0.02)
    assert disc.area != exact_disc.area
    left, top, width, height = disc.box
    corners = np.array(disc.polygon)
    assert corners.min(axis=0).tolist() == [left, top]
    assert corners.max(axis=0).tolist() == [left + width, top + height]
