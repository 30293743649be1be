"""Label masks. pycocotools is the definition of which pixels an annotation covers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cardamage.data.coco import Annotation, ImageRecord
from cardamage.data.segmentation import MIN_NUMBERS


@dataclass(frozen=True)
class Painted:
    """An image's label mask.

    Attributes:
        mask: class ids, uint8 of shape (height, width), at the image's original size.
        overlapped_pixels: pixels that two or more painted annotations cover, whether they are of
            the same class or not. Annotations of class 0 are not painted and do not count.
        skipped_annotations: annotations of a class other than 0 that have nothing to paint: no
            RLE, and no polygon of 3 points or more.
        empty_annotations: annotations of a class other than 0 that have something to paint, but no
            pixel's worth of it.
    """

    mask: NDArray[np.uint8]
    overlapped_pixels: int
    skipped_annotations: int
    empty_annotations: int


def paint(record: ImageRecord, class_of: Mapping[int, int]) -> Painted:
    """Paint an image's annotations in their order, later over earlier.

    Args:
        record: the image, as :func:`cardamage.data.coco.read_export` checked it.
        class_of: the class id, 0 to 255, of every category id; 0 is not painted.
    """
    # pycocotools works down the columns, and so do these arrays until the end.
    mask = np.zeros((record.height, record.width), dtype=np.uint8, order="F")
    covered = np.zeros_like(mask, dtype=np.bool_, order="F")
    overlapped = np.zeros_like(covered, order="F")
    skipped = empty = 0
    for annotation in record.annotations:
        class_id = class_of[annotation.category_id]
        if class_id == 0:
            continue
        rle = _encoded(annotation, record.height, record.width)
        if rle is None:
            skipped += 1
            continue
        # Only the bounding box is touched: the same pixels at a fraction of the time.
        left, top, width, height = (int(side) for side in coco_mask.toBbox(rle))
        box = (slice(top, top + height), slice(left, left + width))
        part = coco_mask.decode(rle)[box].astype(np.bool_)
        empty += not part.any()
        mask[box][part] = class_id
        overlapped[box] |= covered[box] & part
        covered[box] |= part
    return Painted(np.ascontiguousarray(mask), int(np.count_nonzero(overlapped)), skipped, empty)


def _encoded(annotation: Annotation, height: int, width: int) -> dict[str, object] | None:
    """An annotation as one RLE; None where there is nothing to paint."""
    if annotation.rle is not None:
        return annotation.rle
    # A polygon of 2 points is 4 numbers, which pycocotools takes for a box.
    polygons = [polygon for polygon in annotation.polygons if polygon.size >= MIN_NUMBERS]
    if not polygons:
        return None
    merged: dict[str, object] = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return merged
