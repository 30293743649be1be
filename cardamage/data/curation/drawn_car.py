"""Draws one car from the side, and damages on it whose outlines are known exactly.

All shapes are in units of the picture's side, x to the right and y down, both 0..1. Random numbers
come from Python's Mersenne Twister, whose ``random()`` is the same on every machine and version.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Points = tuple[tuple[float, float], ...]
Colour = tuple[int, int, int]

DAMAGES = ("scratch", "dent", "broken lamp")
"""The categories."""

Wish = Literal[
    "scratch", "interrupted scratch", "dent", "dent with a hole", "scratched dent", "broken lamp"
]
"""What can be asked for; a scratched dent is two damages, one over the other."""

_FINER = 3  # drawn this many times larger, then averaged down, so that edges are smooth

_PAINTS: tuple[Colour, ...] = (
    (186, 54, 44),
    (36, 96, 160),
    (38, 126, 94),
    (204, 136, 36),
    (126, 84, 150),
    (84, 112, 130),
)
_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((138, 184, 226), (228, 238, 242)),
    ((232, 176, 138), (248, 230, 206)),
    ((160, 170, 182), (216, 218, 222)),
)
_ROAD, _KERB = (118, 118, 120), (168, 166, 160)
_GLASS, _TYRE, _RIM = (66, 88, 108), (34, 35, 38), (176, 180, 184)

_BODY: Points = (
    (0.04, 0.67), (0.045, 0.51), (0.12, 0.455), (0.24, 0.43), (0.34, 0.22), (0.48, 0.20),
    (0.61, 0.22), (0.74, 0.43), (0.90, 0.475), (0.96, 0.56), (0.965, 0.72), (0.94, 0.80),
    (0.06, 0.80),
)  # fmt: skip
_WINDOWS: tuple[Points, ...] = (
    ((0.28, 0.435), (0.365, 0.265), (0.475, 0.255), (0.475, 0.435)),
    ((0.505, 0.435), (0.505, 0.255), (0.595, 0.265), (0.69, 0.435)),
)
_WHEELS = ((0.22, 0.80), (0.78, 0.80))
_LAMP = (0.915, 0.58)
_PLACES = ((0.405, 0.625), (0.60, 0.625), (0.165, 0.565))  # where dents and scratches go


@dataclass(frozen=True)
class Damage:
    """One damage as drawn.

    Attributes:
        parts: its outlines; more than one where it is interrupted.
        hole: an outline inside the only part, within which there is no damage.
    """

    category: str
    parts: tuple[Points, ...]
    hole: Points | None = None


def draw_car(
    random: Random, pixels: int, wishes: Sequence[Wish]
) -> tuple[Image.Image, list[Damage]]:
    """Draw a car with damages.

    Args:
        wishes: the damages; at most one broken lamp and three others.

    Returns:
        An RGB picture, and the damages in the order in which they were drawn, later over earlier.
    """
    scene = _Scene(random, pixels * _FINER)
    scene.draw_surroundings()
    scene.draw_car()
    places = random.sample(_PLACES, len(_PLACES))
    damages: list[Damage] = []
    for wish in wishes:
        match wish:
            case "broken lamp":
                damages.append(scene.draw_broken_lamp())
            case "dent":
                damages.append(scene.draw_dent(places.pop()))
            case "dent with a hole":
                damages.append(scene.draw_dent(places.pop(), holed=True))
            case "scratched dent":
                place = places.pop()
                damages += [scene.draw_dent(place), scene.draw_scratch(place, steep=True)]
            case "scratch":
                damages.append(scene.draw_scratch(places.pop()))
            case "interrupted scratch":
                damages.append(scene.draw_scratch(places.pop(), interrupted=True))
    return scene.image.resize((pixels, pixels), Image.Resampling.BOX), damages


class _Scene:
    """A picture being drawn; ``_on_car`` takes points of the car to points of the picture."""

    def __init__(self, random: Random, side: int) -> None:
        self._random, self._side = random, side
        self.image = Image.new("RGB", (side, side))
        self._pen = ImageDraw.Draw(self.image)
        self._paint = random.choice(_PAINTS)
        self._scale = random.uniform(0.92, 1.0)
        self._faces_left = random.random() < 0.5
        self._left = random.uniform(0.0, 1.0 - self._scale)
        self._top = random.uniform(0.01, 0.06)

    def draw_surroundings(self) -> None:
        random = self._random
        high, low = random.choice(_SKIES)
        horizon = self._top + 0.58 + random.uniform(-0.03, 0.03)
        rows = Image.linear_gradient("L").resize((self._side, round(horizon * self._side)))
        self.image.paste(high, (0, 0, self._side, self._side))
        self.image.paste(low, (0, 0, *rows.size), rows)
        left = random.uniform(-0.1, 0.0)
        while left < 1:
            width, height = random.uniform(0.1, 0.22), random.uniform(0.08, 0.3)
            wall = _mixed(low, (128, 130, 140), random.uniform(0.35, 0.6))
            self._box((left, horizon - height, left + width, horizon), wall)
            for x in range(1, int(width / 0.035)):
                for y in range(1, int(height / 0.05)):
                    corner = (left + x * 0.035, horizon - height + y * 0.05 - 0.02)
                    pane = _mixed(wall, (60, 66, 80), random.choice((0.2, 0.35)))
                    self._box((*corner, corner[0] + 0.016, corner[1] + 0.026), pane)
            left += width + random.uniform(0.0, 0.06)
        self._box((0, horizon, 1, 1), _ROAD)
        self._box((0, horizon, 1, horizon + 0.03), _KERB)
        dash = random.uniform(-0.2, 0.0)
        while dash < 1:
            self._box((dash, 0.955, dash + 0.14, 0.975), (206, 204, 190))
            dash += 0.26

    def draw_car(self) -> None:
        dark = _mixed(self._paint, (0, 0, 0), 0.45)
        shadow = self._mask(_ellipse(0.5, 0.90, 0.47, 0.03))
        blur = ImageFilter.GaussianBlur(0.012 * self._side)
        self._coat((40, 40, 44), shadow.filter(blur))
        body = _smooth(_BODY)
        self._shape(body, self._paint)
        self._shade(body)
        for window in _WINDOWS:
            self._shape(window, _GLASS)
            (x, low), (_, high) = window[0], window[1]
            glint = ((x + 0.10, low), (x + 0.16, high), (x + 0.18, high), (x + 0.13, low))
            seen = ImageChops.darker(self._mask(glint), self._mask(window))
            self._coat(_mixed(_GLASS, (255, 255, 255), 0.25), seen)
        for line in (
            ((0.49, 0.25), (0.49, 0.78)),
            ((0.285, 0.445), (0.295, 0.68)),
            ((0.70, 0.445), (0.69, 0.74)),
        ):
            self._line(line, dark, 0.004)
        for x in (0.43, 0.64):
            self._shape(_ellipse(x, 0.48, 0.028, 0.009, 0.4), dark)
        self._shape(_ellipse(0.5, 0.785, 0.43, 0.013, 0.4), _mixed(dark, (0, 0, 0), 0.4))
        for x, y in _WHEELS:
            self._shape(_ellipse(x, y - 0.01, 0.112, 0.112), (24, 24, 26))
            self._shape(_ellipse(x, y, 0.096, 0.096), _TYRE)
            self._shape(_ellipse(x, y, 0.06, 0.06), _RIM)
            for spoke in range(5):
                angle = spoke * math.tau / 5 + self._left * 20
                tip = (x + 0.055 * math.cos(angle), y + 0.055 * math.sin(angle))
                self._line(((x, y), tip), (110, 114, 120), 0.014)
            self._shape(_ellipse(x, y, 0.016, 0.016), (90, 92, 96))
        self._shape(_ellipse(*_LAMP, 0.04, 0.036), (244, 240, 214))
        self._shape(_ellipse(_LAMP[0] + 0.008, _LAMP[1], 0.02, 0.018), (255, 255, 250))
        self._shape(_ellipse(0.06, 0.57, 0.016, 0.04, 0.4), (150, 20, 24))

    def draw_dent(self, place: tuple[float, float], *, holed: bool = False) -> Damage:
        """A dark hollow with a bright lower rim; with a hole, the metal in its middle is whole."""
        random = self._random
        x, y = place[0] + random.uniform(-0.01, 0.01), place[1] + random.uniform(-0.01, 0.01)
        wide, high = random.uniform(0.085, 0.098), random.uniform(0.10, 0.12)
        turn = random.uniform(0, math.tau)
        waves = [random.uniform(-0.10, 0.10) for _ in range(3)]

        def outline(size: float) -> Points:
            points = []
            for a in (step * math.tau / 20 for step in range(20)):
                r = size * (1 + sum(w * math.sin((n + 2) * a + turn) for n, w in enumerate(waves)))
                points.append((x + wide * r * math.cos(a), y + high * r * math.sin(a)))
            return tuple(points)

        edge = outline(1.0)
        whole = self.image.copy()
        for step in range(8):
            self._shape(outline(1 - step / 9), _mixed(self._paint, (18, 16, 26), 0.5 + step * 0.06))
        rim = ImageChops.subtract(
            self._mask(edge), self._mask(tuple((a, b - 0.026) for a, b in edge))
        )
        self._coat((244, 240, 236), rim.point(lambda value: int(value * 0.55)))
        hole = outline(0.42) if holed else None
        if hole:
            self.image.paste(whole, (0, 0), self._mask(hole))
        return Damage("dent", (self._placed(edge),), self._placed(hole) if hole else None)

    def draw_scratch(
        self, place: tuple[float, float], *, steep: bool = False, interrupted: bool = False
    ) -> Damage:
        """Bare bright metal torn along a bent line, in one part or two."""
        random = self._random
        length = random.uniform(0.2, 0.23) if steep else random.uniform(0.2, 0.25)
        slope = random.choice((-1, 1)) * random.uniform(*((0.5, 0.6) if steep else (0.1, 0.35)))
        bend = random.uniform(-0.03, 0.03)
        middle = [
            (
                place[0] + length * t * math.cos(slope),
                place[1] + length * t * math.sin(slope) + bend * (0.25 - t * t),
            )
            for t in (step / 8 - 0.5 for step in range(9))
        ]
        pieces = (middle[:4], middle[5:]) if interrupted else (middle,)
        thick = random.uniform(0.03, 0.038)
        parts = []
        for piece in pieces:
            widths = [thick * random.uniform(0.75, 1.1) for _ in piece]
            widths[0] = widths[-1] = thick * 0.45
            upper = [(x, y - w) for (x, y), w in zip(piece, widths, strict=True)]
            lower = [(x, y + w) for (x, y), w in zip(piece, widths, strict=True)]
            part = (*upper, *reversed(lower))
            self._shape(part, (226, 224, 222))
            for shift, grey in ((-0.35, 250), (0.1, 166), (0.5, 255)):
                stroke = tuple((x, y + shift * thick) for x, y in piece)
                self._line(stroke, (grey, grey, grey), 0.01)
            parts.append(self._placed(part))
        return Damage("scratch", tuple(parts))

    def draw_broken_lamp(self) -> Damage:
        """A dark socket with shards of glass and an orange bulb."""
        random = self._random
        (x, y), corners = _LAMP, 11

        def star(size: float, rough: float) -> Points:
            points = []
            for step in range(corners):
                angle = step * math.tau / corners
                radius = size * random.uniform(1 - rough, 1)
                points.append(
                    (x - 0.01 + radius * math.cos(angle), y + 0.95 * radius * math.sin(angle))
                )
            return tuple(points)

        edge = star(0.088, 0.2)
        self._shape(edge, (30, 28, 30))
        self._shape(star(0.068, 0.4), (248, 168, 32))
        for _ in range(6):
            angle, away = random.uniform(0, math.tau), random.uniform(0.016, 0.045)
            tip = (x - 0.01 + away * math.cos(angle), y + away * math.sin(angle))
            shard = (
                tip,
                (tip[0] + random.uniform(0.01, 0.024), tip[1] + 0.006),
                (tip[0] + 0.006, tip[1] + random.uniform(0.012, 0.028)),
            )
            self._shape(shard, random.choice(((255, 244, 190), (40, 34, 34), (255, 214, 90))))
        return Damage("broken lamp", (self._placed(edge),))

    def _placed(self, points: Points) -> Points:
        """Points of the car, a unit square, as points of the picture."""
        return tuple(
            (
                self._left + self._scale * (1 - x if self._faces_left else x),
                self._top + self._scale * y,
            )
            for x, y in points
        )

    def _pixels(self, points: Points) -> list[tuple[float, float]]:
        return [(x * self._side, y * self._side) for x, y in self._placed(points)]

    def _shape(self, points: Points, colour: Colour) -> None:
        self._pen.polygon(self._pixels(points), fill=colour)

    def _line(self, points: Points, colour: Colour, width: float) -> None:
        thick = max(1, round(width * self._side * self._scale))
        self._pen.line(self._pixels(points), fill=colour, width=thick, joint="curve")

    def _box(self, box: tuple[float, float, float, float], colour: Colour) -> None:
        left, top, right, bottom = (side * self._side for side in box)
        self._pen.rectangle((left, top, right, bottom), fill=colour)

    def _mask(self, points: Points) -> Image.Image:
        """Grey, 255 inside the shape and 0 outside."""
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(self._pixels(points), fill=255)
        return mask

    def _coat(self, colour: Colour, opacity: Image.Image) -> None:
        """Colour the picture as far as a grey mask says."""
        self.image.paste(colour, (0, 0, self._side, self._side), opacity)

    def _shade(self, body: Points) -> None:
        """Light from above: the body brighter at its shoulder, darker towards the sill."""
        mask = self._mask(body)
        for light, top, bottom, opacity in (
            ((255, 255, 255), 0.60, 0.43, 0.28),
            ((0, 0, 0), 0.56, 0.82, 0.38),
        ):
            start, end = (round((self._top + self._scale * y) * self._side) for y in (top, bottom))
            ramp = Image.linear_gradient("L").resize((self._side, abs(end - start)))
            ramp = ramp.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if end < start else ramp
            layer = Image.new("L", self.image.size)
            layer.paste(ramp.point([round(v * opacity) for v in range(256)]), (0, min(start, end)))
            self._coat(light, ImageChops.darker(layer, mask))


def _ellipse(x: float, y: float, wide: float, high: float, power: float = 1.0) -> Points:
    """An ellipse of half sides ``wide`` and ``high``; the smaller ``power``, the squarer it is."""
    turns = [step * math.tau / 48 for step in range(48)]
    return tuple(
        (
            x + wide * math.copysign(abs(math.cos(turn)) ** power, math.cos(turn)),
            y + high * math.copysign(abs(math.sin(turn)) ** power, math.sin(turn)),
        )
        for turn in turns
    )


def _smooth(points: Points) -> Points:
    """Corners cut three times over, after Chaikin."""
    for _ in range(3):
        following = (*points[1:], points[0])
        points = tuple(
            (a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1]))
            for a, b in zip(points, following, strict=True)
            for share in (0.25, 0.75)
        )
    return points


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    """``share`` of the other colour in the one."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue
