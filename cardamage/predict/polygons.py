"""Regions of a class map as polygons that pycocotools draws back to the very same pixels.

A region is a set of pixels of one class that touch along sides. Its polygon runs along the sides of
its pixels, so every corner is a whole number. COCO's polygons cannot have holes: a hole is joined
to the outline around it by a cut without width, there and back, which takes no pixel away.

Work and memory beyond one byte a pixel grow with the corners, not with the area.
"""

from bisect import bisect_right
from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]
"""x and y of a corner between pixels, from the upper left corner of the image."""


def outlines(inside: NDArray[np.bool_]) -> list[list[Corner]]:
    """The outline of every region of ``inside``, bool (H, W), by their uppermost corners.

    Outlines are clockwise; the last corner is joined to the first.
    """
    padded = np.pad(inside, 1)
    corners = _Corners(padded)
    loops = corners.loops()
    # A hole is cut open from its leftmost corner, leftwards, so what it is joined to begins farther
    # left: from the right to the left, every hole is whole before it is joined to another loop.
    whole: list[list[Corner]] = []
    cuts: defaultdict[int, list[tuple[int, list[Corner]]]] = defaultdict(list)
    for loop in sorted(loops, key=lambda loop: -min(corners.x[c] for c in loop)):
        path: list[Corner] = []
        first = min(loop, key=lambda c: (corners.x[c], corners.y[c]))
        start = loop.index(first)
        for corner in loop[start:] + loop[:start]:
            path.append((corners.x[corner], corners.y[corner]))
            for y, hole in sorted(cuts.pop(corner, []), key=lambda cut: -cut[0]):
                beside = (corners.x[corner], y)
                path += [beside, *hole, hole[0], beside]
        # At its leftmost corner, the uppermost of them, an outline turns right and a hole down.
        if path[1][1] == path[0][1]:
            whole.append(path)
        else:
            x, y = path[0]
            edge = int(np.flatnonzero(~padded[y + 1, : x + 1])[-1])  # padded: one farther right
            cuts[corners.below(edge, y)].append((y, path))
    return sorted(whole, key=lambda path: min((y, x) for x, y in path))


def simplify(path: list[Corner], tolerance_px: float) -> list[Corner]:
    """A closed path with fewer corners: those left out lie near what joins the others.

    The method of Ramer, Douglas and Peucker, from the first corner and the one farthest from it. No
    corner of the old path is farther than the tolerance from the new one. All are kept where fewer
    than 3 would be left.
    """
    points = np.array([*path, path[0]], np.float64)
    farthest = int(np.argmax(np.hypot(*(points - points[0]).T)))
    kept = {0, farthest}
    parts = [(0, farthest), (farthest, len(path))]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        distances = _distances(points[first + 1 : last], points[first], points[last])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance_px:
            middle = first + 1 + worst
            kept.add(middle)
            parts += [(first, middle), (middle, last)]
    return [path[i] for i in sorted(kept)] if len(kept) >= 3 else path


def _distances(
    points: NDArray[np.float64], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far each of (N, 2) points is from the straight way from one point to another."""
    way = end - start
    length_squared = float(way @ way)
    along = (points - start) @ way / length_squared if length_squared else np.zeros(len(points))
    nearest = start + np.clip(along, 0, 1)[:, None] * way
    distances: NDArray[np.float64] = np.hypot(*(points - nearest).T)
    return distances


class _Corners:
    """The corners of all regions, and where the outline continues from each of them.

    Outlines are walked with the region on the right: along upper sides to the right, along right
    sides down. From each corner one side runs left or right and one up or down; along both, corners
    come in pairs. Where two pixels of the class touch by a corner only, there are two corners, one
    of each, so that regions do not grow together there. ``padded`` tells which pixels belong to
    regions, with a border of pixels that do not.
    """

    def __init__(self, padded: NDArray[np.bool_]) -> None:
        found = [_corners_of_quadrant(padded, down, right) for down in (0, 1) for right in (0, 1)]
        x, y, right, down, goes_sideways = np.concatenate(found, axis=1)
        sideways = np.lexsort((right, x, y))
        upright = np.lexsort((down, y, x))
        succeeding = np.empty(len(x), np.int64)
        for order, goes in ((sideways, goes_sideways == 1), (upright, goes_sideways == 0)):
            partner = np.empty_like(succeeding)
            partner[order] = order.reshape(-1, 2)[:, ::-1].ravel()
            succeeding[goes] = partner[goes]
        self.x: list[int] = x.tolist()
        self.y: list[int] = y.tolist()
        self._succeeding: list[int] = succeeding.tolist()
        self._upright: list[int] = upright.tolist()

    def loops(self) -> list[list[int]]:
        """Every closed outline as numbers of corners."""
        left = [True] * len(self.x)
        loops = []
        for first in range(len(self.x)):
            loop = []
            corner = first
            while left[corner]:
                left[corner] = False
                loop.append(corner)
                corner = self._succeeding[corner]
            if loop:
                loops.append(loop)
        return loops

    def below(self, x: int, y: int) -> int:
        """The corner where the side from (x, y) to (x, y + 1) ends at its lower end."""
        place = bisect_right(self._upright, (x, y), key=lambda c: (self.x[c], self.y[c]))
        return self._upright[place]


def _corners_of_quadrant(padded: NDArray[np.bool_], down: int, right: int) -> NDArray[np.int64]:
    """The corners that one of the four pixels around a point makes, alone inside or alone outside.

    The pixel is below the point where ``down`` is 1, to its right where ``right`` is 1. Of each
    corner x, y, whether its sides run right and down, and whether the outline leaves it sideways;
    int64 (5, corners).
    """

    def pixels(below: int, beside: int) -> NDArray[np.bool_]:
        height, width = padded.shape
        return padded[below : height - 1 + below, beside : width - 1 + beside]

    own, beside = pixels(down, right), pixels(down, 1 - right)
    above, across = pixels(1 - down, right), pixels(1 - down, 1 - right)
    parts = []
    for corner, sideways in (
        (own & ~beside & ~above, down == right),
        (~own & beside & above & across, down != right),
    ):
        y, x = np.nonzero(corner)
        facts = [np.full(len(x), fact) for fact in (right, down, int(sideways))]
        parts.append(np.stack([x, y, *facts]))
    return np.concatenate(parts, axis=1)
