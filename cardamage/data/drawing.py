"""Pictures for people: masks over photos, legends, contact sheets, tables.

Lengths are in pixels.
"""

import io
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cardamage.labels import colour

PAPER, BACKDROP = (255, 255, 255), (238, 238, 238)
INK, PALE_INK = (40, 40, 40), (110, 110, 110)
_RULE = (205, 205, 205)
_ELLIPSIS = "…"


def colour_map(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A label map, uint8 (H, W), in the classes' colours, RGB (H, W, 3); background is black."""
    table = np.array([colour(class_id) for class_id in range(256)], dtype=np.uint8)
    coloured: NDArray[np.uint8] = table[mask]
    return coloured


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], *, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """A photo with its label map over it: the background untouched, each region outlined.

    In large pictures the outline is white on its outer side, to be seen on a photo of any colour.

    Args:
        image: RGB, uint8 of shape (H, W, 3), like the result.
        mask: class ids, uint8 of shape (H, W).
        opacity: 0 shows the photo within the outlines, 1 plain colour.
    """
    colours = colour_map(mask)
    # What each value of each channel becomes under each class: far quicker than blending pixels.
    classes = int(mask.max(initial=0)) + 1
    tints = np.array([colour(class_id) for class_id in range(classes)])[:, :, None]
    blended = np.round((1 - opacity) * np.arange(256) + opacity * tints).astype(np.uint8)
    blended[0] = np.arange(256)
    result: NDArray[np.uint8] = blended[mask[..., None], np.arange(3), image]
    thickness = max(1, round(min(mask.shape) / 240))
    outline = _inner_edge(mask, thickness)
    result[outline] = colours[outline]
    if thickness > 1:
        result[_inner_edge(mask, thickness // 2)] = PAPER
    return result


def layer_png(mask: NDArray[np.uint8]) -> bytes:
    """A label map, uint8 (H, W), as PNG to lay over a photo: ids as palette, 0 transparent."""
    picture = Image.fromarray(mask)
    highest = max(1, int(mask.max(initial=0)))
    picture.putpalette([channel for i in range(highest + 1) for channel in colour(i)])
    stream = io.BytesIO()
    picture.save(stream, "PNG", transparency=0)
    return stream.getvalue()


def legend(
    class_names: Sequence[str], *, height_px: int = 28, width_px: int | None = None
) -> Image.Image:
    """Colour swatches with names, on white; the background, which is not painted, has a white one.

    Args:
        class_names: the name of each class id in order, the background first.
        width_px: width of the picture, over which the names are laid in rows, cut where one alone
            is too long; None makes one row, as wide as it has to be.
    """
    face = font(height_px * 0.5)
    side, gap = round(height_px * 0.55), round(height_px * 0.3)
    room = math.inf if width_px is None else width_px - side - 5 * gap
    names = [cut(name, face, room) for name in class_names]
    places: list[tuple[int, int]] = []
    left, row, right = gap, 0, 0
    for name in names:
        width = side + gap + round(face.getlength(name)) + gap
        if width_px is not None and left + width > width_px and left > gap:
            left, row = gap, row + 1
        places.append((left, row * height_px))
        left += width + gap
        right = max(right, left)
    picture = Image.new("RGB", (width_px or right, (row + 1) * height_px), PAPER)
    pen = ImageDraw.Draw(picture)
    for class_id, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        swatch(pen, (x, y + (height_px - side) // 2), side, class_id)
        pen.text((x + side + gap, y + height_px / 2), name, fill=INK, font=face, anchor="lm")
    return picture


def swatch(pen: ImageDraw.ImageDraw, corner: tuple[int, int], side: int, class_id: int) -> None:
    """A small square in a class's colour, from its upper left corner; white for background."""
    x, y = corner
    pen.rectangle(
        (x, y, x + side, y + side), fill=colour(class_id) if class_id else PAPER, outline=PALE_INK
    )


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, Image.Image]]], *, title_px: int = 18, gap_px: int = 8
) -> Image.Image:
    """Pictures in rows, each under its title, on white; titles too long for a cell are cut.

    All cells are as large as the largest picture; a smaller one stands in the middle of its own.
    """
    pictures = [picture for row in rows for _, picture in row]
    if not pictures:
        return Image.new("RGB", (gap_px, gap_px), PAPER)
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures) + title_px
    columns = max(len(row) for row in rows)
    size = gap_px + columns * (width + gap_px), gap_px + len(rows) * (height + gap_px)
    sheet = Image.new("RGB", size, PAPER)
    pen, face = ImageDraw.Draw(sheet), font(max(title_px, 1) * 0.66)
    for y, row in enumerate(rows):
        for x, (title, picture) in enumerate(row):
            left, top = gap_px + x * (width + gap_px), gap_px + y * (height + gap_px)
            text = cut(title, face, width)
            pen.text((left, top + title_px / 2), text, fill=INK, font=face, anchor="lm")
            inset = (width - picture.width) // 2, (height - title_px - picture.height) // 2
            sheet.paste(picture, (left + inset[0], top + title_px + inset[1]))
    return sheet


def stacked(*pictures: Image.Image) -> Image.Image:
    """Pictures one above another, all at the left, on white."""
    size = max(p.width for p in pictures), sum(p.height for p in pictures)
    sheet = Image.new("RGB", size, PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def heading(title: str, words: str, *, width_px: int) -> Image.Image:
    """A title, and under it a line in pale ink; both cut at the width."""
    picture = Image.new("RGB", (width_px, 62), PAPER)
    pen, large, small = ImageDraw.Draw(picture), font(22, bold=True), font(15)
    pen.text((8, 22), cut(title, large, width_px - 16), fill=INK, font=large, anchor="lm")
    pen.text((8, 47), cut(words, small, width_px - 16), fill=PALE_INK, font=small, anchor="lm")
    return picture


class ClassRow(NamedTuple):
    """One line of a :func:`class_table`; the id gives the colour."""

    class_id: int
    name: str
    values: Sequence[str]


def class_table(columns: Sequence[str], rows: Sequence[ClassRow], *, width_px: int) -> Image.Image:
    """A table of classes with their colours, numbers at the right of their columns.

    ``columns`` are the headings after the first; the names get what these leave, and are cut there.
    """
    line, column, side = 26, 110, 14
    face = font(15)
    names_px = min(width_px - len(columns) * column - 16, 420)
    picture = Image.new("RGB", (width_px, line * (len(rows) + 1) + 10), PAPER)
    pen = ImageDraw.Draw(picture)
    right = [8 + names_px + (number + 1) * column for number in range(len(columns))]
    for name, edge in zip(columns, right, strict=True):
        pen.text((edge, line / 2), name, fill=PALE_INK, font=face, anchor="rm")
    pen.line((8, line, max(right, default=names_px), line), fill=_RULE)
    for number, row in enumerate(rows, start=1):
        top = number * line
        swatch(pen, (8, top + (line - side) // 2), side, row.class_id)
        name = cut(row.name, face, names_px - side - 10)
        pen.text((8 + side + 10, top + line / 2), name, fill=INK, font=face, anchor="lm")
        for text, edge in zip(row.values, right, strict=True):
            pen.text((edge, top + line / 2), text, fill=INK, font=face, anchor="rm")
    return picture


@lru_cache(maxsize=32)
def font(size_px: float, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font lacks all but English letters."""
    spec = find_spec("matplotlib")  # not imported, which takes long and may write to $HOME
    assert spec is not None and spec.origin is not None  # noqa: PT018, S101 - a dependency
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(spec.origin).with_name("mpl-data") / "fonts" / "ttf" / name
    return ImageFont.truetype(path, size=max(6.0, size_px))


def cut(text: str, face: ImageFont.FreeTypeFont, width_px: float) -> str:
    """``text`` on one line, or as much of it as fits the width with an ellipsis."""
    text = " ".join(text.split())
    if face.getlength(text) <= width_px:
        return text
    while text and face.getlength(text + _ELLIPSIS) > width_px:
        text = text[:-1]
    return text + _ELLIPSIS


def _inner_edge(mask: NDArray[np.uint8], thickness: int) -> NDArray[np.bool_]:
    """Pixels of a class other than background that border on another class, bool (H, W)."""
    edge = np.zeros(mask.shape, dtype=np.bool_)
    for step in range(1, thickness + 1):
        edge[step:] |= mask[step:] != mask[:-step]
        edge[:-step] |= mask[:-step] != mask[step:]
        edge[:, step:] |= mask[:, step:] != mask[:, :-step]
        edge[:, :-step] |= mask[:, :-step] != mask[:, step:]
    return edge & (mask > 0)
