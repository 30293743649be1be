"""The ``segmentation`` of a COCO annotation, checked before pycocotools sees it.

pycocotools trusts its input: an RLE that does not fit its size writes past the end of the mask,
and a polygon with far-away points asks for all the memory there is.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from cardamage.data.coco.annotation_file import as_whole
from cardamage.data.images import MAX_PIXELS
from cardamage.errors import shown

MIN_NUMBERS = 6
"""Numbers in the shortest polygon that has an area; of 4 numbers pycocotools makes a box."""

MAX_SIDES_AWAY = 10
"""Coordinates farther away than this many times the image's longer side are refused."""

MAX_OUTLINE_PIXELS = 4_000_000
"""Longer polygons are refused: pycocotools takes some 100 bytes for every pixel of an outline."""

_FAR = 1e9  # no image is so large

_MORE = 32  # in a letter of compressed counts: the number goes on in the next
_LETTERS = 9  # of a number: 45 bits, more than any image has pixels

Polygon = NDArray[np.float64]
"""Corners as x, y, x, y, ... in pixels of the original image; float64 of shape (2 * corners,)."""


class SegmentationError(ValueError):
    """A segmentation cannot be painted; ``kind`` is the finding's kind."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


def parse(value: Any) -> tuple[tuple[Polygon, ...], dict[str, Any] | None]:
    """The polygons or the RLE of a segmentation; no polygons and None where there is nothing.

    Short polygons are kept; who paints leaves them out.

    Args:
        value: what the JSON holds: a list of flat lists of numbers, one such list, an RLE object,
            also in a list of its own, or None.

    Returns:
        The polygons, and the RLE as ``{"size": [height, width], "counts": bytes}``, compressed.

    Raises:
        SegmentationError: it is none of these.
    """
    match value:
        case None:
            return (), None
        case dict() | [dict()]:
            return (), _rle(value if isinstance(value, dict) else value[0])
        case [int() | float(), *_]:
            return (_polygon(value),), None
        case list():
            return tuple(_polygon(part) for part in value if part != []), None
    raise SegmentationError("malformed segmentation", f"it is {type(value).__name__}")


def parse_box(value: Any) -> Polygon | None:
    """A ``bbox``, x, y, width and height in pixels, as a polygon; None where it is no such box."""
    if not isinstance(value, list) or len(value) != 4 or not _numbers(value):
        return None
    x, y, width, height = value
    if not (abs(x) < _FAR and abs(y) < _FAR and 0 < width < _FAR and 0 < height < _FAR):
        return None  # nor is NaN
    right, bottom = x + width, y + height
    return np.array([x, y, right, y, right, bottom, x, bottom], dtype=np.float64)


def is_normalised(polygon: Polygon) -> bool:
    """Whether all coordinates lie from 0 to 1, as shares of the image's sides do."""
    return bool(polygon.min() >= 0 and polygon.max() <= 1)


def check_polygon(polygon: Polygon, width: int, height: int) -> bool:
    """Whether a polygon of 3 points or more lies within its image, edges included.

    Raises:
        SegmentationError: it lies wholly outside, or its coordinates are absurd.
    """
    x, y = polygon[::2], polygon[1::2]
    left, right, top, bottom = x.min(), x.max(), y.min(), y.max()
    if right < 0 or bottom < 0 or left > width or top > height:
        raise SegmentationError(
            "polygon outside",
            f"it spans x {left:g} to {right:g}, y {top:g} to {bottom:g} of {width}x{height} pixels",
        )
    far = MAX_SIDES_AWAY * max(width, height)
    if max(right, bottom, -left, -top) > far:
        raise SegmentationError(
            "impossible coordinates", f"a coordinate is more than {far} pixels away"
        )
    steps = np.maximum(np.abs(np.diff(x, append=x[0])), np.abs(np.diff(y, append=y[0])))
    if steps.sum() > MAX_OUTLINE_PIXELS:
        raise SegmentationError(
            "impossible coordinates", f"the outline is longer than {MAX_OUTLINE_PIXELS} pixels"
        )
    return bool(left >= 0 and top >= 0 and right <= width and bottom <= height)


def _numbers(values: list[Any]) -> bool:
    return {type(number) for number in values} <= {int, float}


def _polygon(part: Any) -> Polygon:
    if not isinstance(part, list) or not _numbers(part):
        raise SegmentationError("malformed segmentation", "a polygon is no flat list of numbers")
    if len(part) % 2:
        raise SegmentationError("impossible coordinates", f"{len(part)} numbers are no pairs")
    try:
        polygon = np.array(part, dtype=np.float64)
    except OverflowError:  # an integer beyond every float
        polygon = np.array([np.inf])
    if not np.isfinite(polygon).all():
        raise SegmentationError("impossible coordinates", "a coordinate is not finite")
    return polygon


def _rle(value: dict[str, Any]) -> dict[str, Any]:
    size, counts = value.get("size"), value.get("counts")
    sides = [as_whole(side) for side in size] if isinstance(size, list) else []
    match sides:
        case [int() as height, int() as width]:
            pass
        case _:
            raise SegmentationError("malformed RLE", "its size is not [height, width]")
    if min(height, width) < 1 or height * width > MAX_PIXELS:
        raise SegmentationError("malformed RLE", f"{shown(width)}x{shown(height)} pixels cannot be")
    match counts:
        case str():
            runs = run_lengths(counts.encode(errors="surrogatepass")).tolist()
        case list() if None not in (whole := [as_whole(run) for run in counts]):
            runs = [run for run in whole if run is not None]
        case _:
            raise SegmentationError("malformed RLE", "its counts are no string or list of numbers")
    # pycocotools never checks runs against the size.
    if min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise SegmentationError("malformed RLE", f"its counts do not fill {width}x{height} pixels")
    # Nor is a string handed on as it is: its decoder shifts bits out of 32-bit numbers where ours
    # does not, and would then write past the end of the mask.
    compressed: dict[str, Any] = coco_mask.frPyObjects(
        {"size": [height, width], "counts": runs}, height, width
    )
    return compressed


def run_lengths(counts: bytes) -> NDArray[np.int64]:
    """Lengths in pixels, int64 (R,), of runs without and with the object in turn.

    Args:
        counts: COCO's compressed counts: groups of 5 bits, signed, each relative to two before.

    Raises:
        SegmentationError: they are no such counts.
    """
    if not counts:
        return np.zeros(0, dtype=np.int64)
    bits = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - 48
    if ((bits < 0) | (bits >= 64)).any():
        raise SegmentationError("malformed RLE", "its counts are not in COCO's letters")
    ends = np.flatnonzero(bits < _MORE)
    if bits[-1] >= _MORE:
        raise SegmentationError("malformed RLE", "its counts break off")
    starts = np.append(0, ends[:-1] + 1)
    letters = ends + 1 - starts
    if letters.max() > _LETTERS:
        raise SegmentationError("malformed RLE", "its counts are not in COCO's letters")
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, letters))
    runs: NDArray[np.int64] = np.add.reduceat((bits & 31) << shifts, starts)
    runs -= np.where(bits[ends] & 16, 1 << 5 * letters, 0)
    for chain in (runs[1::2], runs[2::2]):
        np.cumsum(chain, out=chain)
    return runs
