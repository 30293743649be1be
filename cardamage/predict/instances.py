"""Regions of predicted class maps as COCO instances, which labelling tools import.

A COCO file of instances may give a region as polygons or run lengths (RLE). Polygons are what every
tool reads: Label Studio's converter has no RLE, CVAT makes brush masks of it. So each region of one
class whose pixels touch along sides is one annotation with one polygon, of whole numbers, from
which pycocotools draws the very same pixels: see :mod:`cardamage.predict.polygons`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cardamage.predict.polygons import Corner, outlines, simplify


class Instance(NamedTuple):
    """A region of one class in one photo."""

    class_id: int
    polygon: Sequence[Corner]
    """Its outline."""
    box: tuple[int, int, int, int]
    """Left, top, width and height, in pixels."""
    area: int
    """In pixels."""
    score: float
    """The mean over its pixels of the probability the model gives the class, 0 to 1."""


class PhotoInstances(NamedTuple):
    """All regions of a photo, whose width and height are in pixels, upright."""

    file_name: str
    width: int
    height: int
    instances: Sequence[Instance]


def find_instances(
    ids: NDArray[np.uint8], confidence: NDArray[np.uint8], *, simplify_px: float = 0
) -> list[Instance]:
    """Every region that is not background, by class id, then from the top.

    Class ids and, in 255ths, their probability are uint8 (H, W). With ``simplify_px`` corners of
    the outlines are left out, which then stray by this at most; box and area are those of what is
    left. A region that would be lost keeps its corners.
    """
    found = []
    for class_id in range(1, int(ids.max()) + 1):
        for outline in outlines(ids == class_id):
            polygon, (box, region) = outline, drawn(outline)
            left, top, width, height = box
            score = confidence[top : top + height, left : left + width][region].mean() / 255
            if simplify_px:
                fewer = simplify(outline, simplify_px)
                fewer_box, fewer_region = drawn(fewer)
                if fewer_region.any():
                    polygon, box, region = fewer, fewer_box, fewer_region
            area = int(np.count_nonzero(region))
            found.append(Instance(class_id, polygon, box, area, float(score)))
    return found


def drawn(polygon: Sequence[Corner]) -> tuple[tuple[int, int, int, int], NDArray[np.bool_]]:
    """A polygon's box, and in it the polygon's pixels as pycocotools draws them, bool (H, W)."""
    corners = np.array(polygon)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    box = left, top, right - left, bottom - top
    flat = (corners - (left, top)).astype(np.float64).ravel()
    (rle,) = coco_mask.frPyObjects([flat], max(1, box[3]), max(1, box[2]))
    drawn: NDArray[np.bool_] = coco_mask.decode(rle) == 1
    return box, drawn


def coco_content(
    photos: Sequence[PhotoInstances], class_names: Sequence[str], description: str
) -> dict[str, Any]:
    """A COCO file of instances: ids of images and annotations count from 1.

    ``class_names`` are by class id, background first; a category's id is its class id.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, photo in enumerate(photos, start=1):
        size = {"width": photo.width, "height": photo.height}
        images.append({"id": image_id, "file_name": photo.file_name, **size})
        annotations += [
            {
                "id": len(annotations) + number,
                "image_id": image_id,
                "category_id": instance.class_id,
                "segmentation": [[int(side) for corner in instance.polygon for side in corner]],
                "area": instance.area,
                "bbox": list(instance.box),
                "iscrowd": 0,
                "score": round(instance.score, 4),
            }
            for number, instance in enumerate(photo.instances, start=1)
        ]
    categories = [
        {"id": class_id, "name": name, "supercategory": "none"}
        for class_id, name in enumerate(class_names[1:], start=1)
    ]
    return {
        "info": {"description": description},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
