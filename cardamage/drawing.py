"""Pictures for people: label maps in colour, masks over photos, legends, contact sheets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cardamage.labels import colour

_PAPER, _INK = (255, 255, 255), (40, 40, 40)
_ELLIPSIS = "…"


def colour_map(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A label map in the classes' colours; the background is black.

    Args:
        mask: class ids, uint8 of shape (H, W).

    Returns:
        RGB, uint8 of shape (H, W, 3).
    """
    table = np.array([colour(class_id) for class_id in range(256)], dtype=np.uint8)
    coloured: NDArray[np.uint8] = table[mask]
    return coloured


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], *, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """A photo with its label map over it: the background untouched, each region outlined.

    Args:
        image: RGB, uint8 of shape (H, W, 3).
        mask: class ids, uint8 of shape (H, W).
        opacity: 0 shows the photo within the outlines, 1 plain colour.

    Returns:
        RGB, uint8 of shape (H, W, 3).
    """
    colours = colour_map(mask)
    damaged = mask > 0
    result = image.copy()
    blended = (1 - opacity) * image[damaged] + opacity * colours[damaged]
    result[damaged] = np.round(blended).astype(np.uint8)
    outline = _inner_edge(mask, thickness=max(1, round(min(mask.shape) / 320)))
    result[outline] = colours[outline]
    return result


def legend(class_names: Sequence[str], *, height_px: int = 28) -> Image.Image:
    """One row of colour swatches with names, on white.

    Args:
        class_names: the name of each class id in order, the background first.
        height_px: height of the picture; its width follows from the names.
    """
    font = _font(height_px * 0.5)
    swatch, gap = round(height_px * 0.55), round(height_px * 0.3)
    widths = [round(font.getlength(name)) for name in class_names]
    picture = Image.new("RGB", (gap + sum(widths) + len(widths) * (swatch + 3 * gap), height_px))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, *picture.size), fill=_PAPER)
    left, top = gap, (height_px - swatch) // 2
    for class_id, (name, width) in enumerate(zip(class_names, widths, strict=True)):
        pen.rectangle((left, top, left + swatch, top + swatch), fill=colour(class_id), outline=_INK)
        left += swatch + gap
        pen.text((left, height_px / 2), name, fill=_INK, font=font, anchor="lm")
        left += width + 2 * gap
    return picture


def contact_sheet(
    rows: Sequence[Sequence[tuple[str, Image.Image]]], *, title_px: int = 18, gap_px: int = 8
) -> Image.Image:
    """Pictures in rows, each under its title, on white; titles too long for a cell are cut.

    Args:
        rows: titles and pictures; all cells are as large as the largest picture.
        title_px: height of the line for a title; 0 leaves titles out.
        gap_px: space between cells and around them.
    """
    pictures = [picture for row in rows for _, picture in row]
    if not pictures:
        return Image.new("RGB", (gap_px, gap_px), _PAPER)
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures) + title_px
    columns = max(len(row) for row in rows)
    sheet = Image.new(
        "RGB",
        (gap_px + columns * (width + gap_px), gap_px + len(rows) * (height + gap_px)),
        _PAPER,
    )
    pen, font = ImageDraw.Draw(sheet), _font(max(title_px, 1) * 0.7)
    for y, row in enumerate(rows):
        for x, (title, picture) in enumerate(row):
            left, top = gap_px + x * (width + gap_px), gap_px + y * (height + gap_px)
            if title_px:
                text = _cut(title, font, width)
                pen.text((left, top + title_px / 2), text, fill=_INK, font=font, anchor="lm")
            sheet.paste(picture, (left, top + title_px))
    return sheet


def stacked(above: Image.Image, below: Image.Image) -> Image.Image:
    """One picture above another, both at the left, on white."""
    width = max(above.width, below.width)
    picture = Image.new("RGB", (width, above.height + below.height), _PAPER)
    picture.paste(above, (0, 0))
    picture.paste(below, (0, above.height))
    return picture


def _inner_edge(mask: NDArray[np.uint8], thickness: int) -> NDArray[np.bool_]:
    """Pixels of a class other than background that border on another class, bool (H, W)."""
    edge = np.zeros(mask.shape, dtype=np.bool_)
    for step in range(1, thickness + 1):
        edge[step:] |= mask[step:] != mask[:-step]
        edge[:-step] |= mask[:-step] != mask[step:]
        edge[:, step:] |= mask[:, step:] != mask[:, :-step]
        edge[:, :-step] |= mask[:, :-step] != mask[:, step:]
    return edge & (mask > 0)


def _font(size_px: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(6.0, size_px))


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + _ELLIPSIS) > width:
        text = text[:-1]
    return text + _ELLIPSIS
