"""Label masks, and what is lost on the way to them.

pycocotools is the definition of which pixels an annotation covers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cardamage.data.coco.records import Annotation, ImageRecord
from cardamage.data.coco.segmentation import MIN_NUMBERS, run_lengths
from cardamage.data.images import sampled


@dataclass
class Loss:
    """Annotations of one class that leave no pixel of it in a mask, each counted once.

    Attributes:
        no_outline: they have nothing to paint: no RLE, and no polygon of 3 points or more.
        no_area: they have, but cover no pixel of the image.
        too_thin: they cover pixels of the image, and none of the mask at its size.
        hidden: each pixel of theirs shows another class, that of an annotation painted later.
        pixels: of the image at its original size, that the last two kinds cover.
    """

    no_outline: int = 0
    no_area: int = 0
    too_thin: int = 0
    hidden: int = 0
    pixels: int = 0

    @property
    def annotations(self) -> int:
        """How many are lost in all."""
        return self.no_outline + self.no_area + self.too_thin + self.hidden

    def add(self, other: "Loss") -> None:
        """Count what is lost elsewhere too."""
        for name, count in vars(other).items():
            setattr(self, name, getattr(self, name) + count)


@dataclass(frozen=True)
class Painted:
    """An image's label mask.

    Attributes:
        mask: class ids, uint8 of shape (height, width), at the image's original size; column by
            column in memory, as pycocotools works.
        overlapped_pixels: pixels that two or more painted annotations cover, whether they are of
            the same class or not. Annotations of class 0 are not painted and do not count.
        lost: by class id, where something is lost.
    """

    mask: NDArray[np.uint8]
    overlapped_pixels: int
    lost: dict[int, Loss] = field(default_factory=dict)

    @property
    def skipped_annotations(self) -> int:
        """Annotations of a class other than 0 that have nothing to paint."""
        return sum(loss.no_outline for loss in self.lost.values())


def paint(
    record: ImageRecord,
    class_of: Mapping[int, int],
    *,
    size: tuple[int, int] | None = None,
    large_first: bool = False,
) -> Painted:
    """Paint an image's annotations, later over earlier.

    Args:
        record: the image, as :func:`cardamage.data.coco.export.read_export` checked it.
        class_of: the class id, 0 to 255, of every category id; 0 is not painted.
        size: height and width that the mask will be resized to, for what is lost by that; None
            for its own.
        large_first: the order is from the largest area to the smallest, and not the file's.
    """
    shown = record.height, record.width
    rows, columns = (sampled(*sides) for sides in zip(shown, size or shown, strict=True))
    # pycocotools works down the columns, and so do these arrays.
    mask = np.zeros(shown, dtype=np.uint8, order="F")
    overlapped = np.zeros_like(mask, dtype=np.bool_, order="F")
    lost: dict[int, Loss] = {}
    # From the last to the first: what an annotation shows is known once it is painted.
    for class_id, rle in reversed(_in_order(record, class_of, large_first=large_first)):
        loss = lost.setdefault(class_id, Loss())
        if rle is None:
            loss.no_outline += 1
            continue
        # Only the bounding box is touched: the same pixels at a fraction of the time.
        left, top, width, height = (int(side) for side in coco_mask.toBbox(rle))
        box = (slice(top, top + height), slice(left, left + width))
        part = _decoded(rle, left, width)[top : top + height]
        seen = mask[box]
        covered = seen != 0
        overlapped[box] |= covered & part
        np.copyto(seen, class_id, where=part & ~covered)
        if not part.any():
            loss.no_area += 1
            continue
        if size:
            at_rows, at_columns = _within(rows, top, height), _within(columns, left, width)
            part, seen = part[:, at_columns][at_rows], seen[:, at_columns][at_rows]
        if not part.any():
            loss.too_thin += 1
        elif not (seen[part] == class_id).any():
            loss.hidden += 1
        else:
            continue
        loss.pixels += int(coco_mask.area(rle))
    lost = {class_id: loss for class_id, loss in sorted(lost.items()) if loss.annotations}
    return Painted(mask, int(np.count_nonzero(overlapped)), lost)


def _decoded(rle: dict[str, Any], left: int, width: int) -> NDArray[np.bool_]:
    """The columns of an RLE from ``left`` on, outside of which it has no pixel.

    pycocotools would write all columns, one pixel after the other.
    """
    height = int(rle["size"][0])
    ends = np.cumsum(run_lengths(rle["counts"]))
    inside = np.clip(ends - left * height, 0, width * height)
    runs = np.diff(inside, prepend=0)
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return pixels.reshape(width, height).T


def _within(positions: NDArray[np.int64], start: int, length: int) -> NDArray[np.int64]:
    """Those of ascending positions in a range, counted from its start."""
    first, end = np.searchsorted(positions, (start, start + length))
    return positions[first:end] - start


def _in_order(
    record: ImageRecord, class_of: Mapping[int, int], *, large_first: bool
) -> list[tuple[int, dict[str, Any] | None]]:
    """Class ids and RLEs of the annotations that are painted, in the order of painting."""
    painted = [
        (class_id, _encoded(annotation, record.height, record.width))
        for annotation in record.annotations
        if (class_id := class_of[annotation.category_id])
    ]
    if large_first:
        painted.sort(key=lambda pair: -int(coco_mask.area(pair[1])) if pair[1] else 0)
    return painted


def _encoded(annotation: Annotation, height: int, width: int) -> dict[str, Any] | None:
    """An annotation as one RLE; None where there is nothing to paint."""
    if annotation.rle is not None:
        return annotation.rle
    # A polygon of 2 points is 4 numbers, which pycocotools takes for a box.
    polygons = [polygon for polygon in annotation.polygons if polygon.size >= MIN_NUMBERS]
    if not polygons:
        return None
    merged: dict[str, Any] = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return merged
