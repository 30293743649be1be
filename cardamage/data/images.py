"""Decoding photos, whoever made them, and resizing images and masks so that they stay aligned."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.source import MAX_PIXELS
from cardamage.errors import DataError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What counts as a photo, by Pillow's names. Not all Pillow knows: for EPS it starts a program."""

_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPS_SIDES = {_UPRIGHT[value] for value in (5, 6, 7, 8)}
"""The turns that make a wide image a tall one."""


def decode_image(content: bytes, *, size: tuple[int, int] | None = None, name: str) -> Image.Image:
    """Decode a photo of any of :data:`FORMATS` into 8-bit RGB.

    16-bit grey is scaled to 8 bits; transparent pixels are laid over white, as viewers show them;
    of an animation the first frame counts. The EXIF orientation is applied, since people annotate
    what they see; where annotations give a size that only the image as stored has, it is not.

    Args:
        content: the file.
        size: width and height in pixels that the annotations give; None takes any size.
        name: what to call the image in an error.

    Raises:
        DataError: the image is broken, cut short, of another size or of too many pixels.
    """
    # Pillow refuses at twice this value; between the two we refuse ourselves.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            turn = _turn_upright(image, size, name)
            colours = _to_rgb(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
        why = " ".join(str(error).split()) or type(error).__name__
        if "cannot identify" in why:
            why = f"it is none of {', '.join(FORMATS)}"
        raise DataError(f"{name} cannot be decoded ({why}); replace or remove it") from error
    return colours.transpose(turn) if turn is not None else colours


def orientation(image: Image.Image) -> int:
    """How EXIF says the camera was held, 1 to 8; 1, upright, where it says nothing sensible."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - the photo may be good even where its EXIF data is garbage
        return 1


def upright_turn(image: Image.Image) -> Image.Transpose | None:
    """How the image as it is stored is turned to stand upright, by EXIF; None if it does."""
    return _UPRIGHT.get(orientation(image))


def resize_image(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to (height, width) bilinearly, averaging over all the pixels it shrinks."""
    height, width = size
    if image.size == (width, height):
        return image
    return image.resize((width, height), Image.Resampling.BILINEAR)


def resize_mask(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize class ids to (height, width): each pixel takes the class under its centre.

    Pixel centres are aligned as in :func:`resize_image`: the centre of output pixel i lies at
    (i + 1/2) * old / new. In whole numbers, so that no rounding moves a pixel.

    Args:
        mask: uint8 of shape (H, W).
        size: height and width of the result.
    """
    height, width = size
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    resized: NDArray[np.uint8] = mask[rows[:, None], columns]
    return resized


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):  # 16 bits, by whichever of its names
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        values += 128
        values //= 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    return image.convert("RGB")


def _turn_upright(
    image: Image.Image, size: tuple[int, int] | None, name: str
) -> Image.Transpose | None:
    """What turns the stored image as its annotations see it; checks its size on the way."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width}x{height} pixels, and at most {MAX_PIXELS // 1_000_000} megapixels "
            f"are read; make it smaller or remove it"
        )
    turn = upright_turn(image)
    upright = (height, width) if turn in SWAPS_SIDES else (width, height)
    if size is None or size == upright:
        return turn
    if size != (width, height):
        raise DataError(
            f"{name} has {width}x{height} pixels, but its annotations give {size[0]}x{size[1]}; "
            f"put back the image they were drawn on, or export again"
        )
    return None
