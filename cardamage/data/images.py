"""Decoding photos, whoever made them, and resizing images and masks so that they stay aligned."""

import io
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.errors import DataError

MAX_PIXELS = 200_000_000
"""A larger image is refused: no camera makes one, and a decompression bomb would."""

MAX_SIDE = 65_535
"""A longer image is refused: no JPEG can be, and painting takes time by the side too."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What counts as a photo, by Pillow's names. Not all Pillow knows: for EPS it starts a program."""

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
# Bits that decode to something, also behind each of the restart markers that may be waited for.
_FILLERS = [
    b"".join(bits + bytes([0xFF, 0xD0 + number]) for number in range(8)) + bits
    for bits in (bytes(range(0x55, 0xD5, 3)), bytes(range(0xD5, 0x55, -3)))
]

LEAVE_OUT = "replace it, or leave it out with data.skip_broken: true"
"""What to do about a broken image of a dataset."""

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


def decode_image(
    content: bytes,
    *,
    size: tuple[int, int] | None = None,
    shrink_to: tuple[int, int] | None = None,
    name: str,
    remedy: str = "replace or remove it",
) -> Image.Image:
    """Decode a photo of any of :data:`FORMATS` into 8-bit RGB.

    ``name`` and ``remedy`` are for errors.

    With ``shrink_to``, height and width in pixels that it is resized to next, a JPEG may come
    smaller, by 2, 4 or 8: its decoder leaves out what is too fine, in a fraction of the time. Its
    sides divide by that number and stay a quarter larger than these, so that the resized image
    differs from that of the whole photo by about as much as a JPEG of quality 95 does.

    16-bit grey is scaled to 8 bits, and so are floats from 0 to 1; transparent pixels are laid over
    white, as viewers show them; of an animation the first frame counts; a JPEG may lack its end
    marker. The EXIF orientation is applied, since people annotate what they see; where annotations
    give a ``size``, width and height in pixels, that only the image as stored has, it is not.

    Raises:
        DataError: the image is broken, cut short, of another size or of too many pixels.
    """
    try:
        turn, colours = _decoded(content, size, name, shrink_to)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on broken bytes
        whole = None
        with suppress(Exception):
            whole = _decoded(_ended(content), size, name, shrink_to)
        if whole is None:
            raise _undecodable(name, error, remedy) from error
        turn, colours = whole
    return colours.transpose(turn) if turn is not None else colours


def upright_size(content: bytes, name: str, remedy: str = LEAVE_OUT) -> tuple[int, int]:
    """Width and height in pixels of a photo as :func:`decode_image` gives it, from its header.

    ``name`` and ``remedy`` are for errors.

    Raises:
        DataError: it is no photo, or has too many pixels.
    """
    try:
        with _opened(content) as image:
            turned = _turn_upright(image, None, name) in SWAPS_SIDES
            return (image.height, image.width) if turned else image.size
    except DataError:
        raise
    except Exception as error:
        raise _undecodable(name, error, remedy) from error


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    """The file of an image, of a kind and with options as Pillow names them."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


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

    Pixel centres are aligned as in :func:`resize_image`; see :func:`sampled`.
    """
    rows, columns = (sampled(*sides) for sides in zip(mask.shape, size, strict=True))
    resized: NDArray[np.uint8] = np.ascontiguousarray(mask[:, columns][rows])
    return resized


def sampled(old: int, new: int) -> NDArray[np.int64]:
    """Which of ``old`` pixels in a row each of ``new`` shows: that under its centre, int64 (new,).

    The centre of pixel i lies at (i + 1/2) * old / new. In whole numbers, so that no rounding moves
    a pixel.
    """
    return (2 * np.arange(new) + 1) * old // (2 * new)


def _decoded(
    content: bytes, size: tuple[int, int] | None, name: str, shrink_to: tuple[int, int] | None
) -> tuple[Image.Transpose | None, Image.Image]:
    """What turns a photo as its annotations see it, and the photo as it is stored, RGB."""
    with _opened(content) as image:
        turn = _turn_upright(image, size, name)
        if shrink_to and image.format == "JPEG":
            _shrink(image, shrink_to[::-1] if turn in SWAPS_SIDES else shrink_to)
        return turn, _to_rgb(image)


def _shrink(image: Image.Image, size: tuple[int, int]) -> None:
    """Have a JPEG decoded smaller, yet larger than (height, width)."""
    height, width = size
    for scale in (8, 4, 2):
        small = image.width // scale, image.height // scale
        is_whole = image.size == (small[0] * scale, small[1] * scale)
        if is_whole and 4 * small[0] >= 5 * width and 4 * small[1] >= 5 * height:
            image.draft(None, small)
            return


def _ended(content: bytes) -> bytes:
    """A JPEG with an end marker, where that is all it lacks.

    Raises:
        ValueError: it is no JPEG, or lacks pixels as well: then what is put before the marker shows
            in the picture, whereas behind complete data it is passed over.
    """
    if not content.startswith(_JPEG_START):
        raise ValueError("no JPEG")
    content = content.removesuffix(_JPEG_END[:1])
    pictures = set()
    for filler in (b"", *_FILLERS):
        with _opened(content + filler + _JPEG_END) as image:
            pictures.add(image.tobytes())
    if len(pictures) > 1:
        raise ValueError("cut short")
    return content + _JPEG_END


def _opened(content: bytes) -> Image.Image:
    # Pillow refuses at twice this value; between the two we refuse ourselves.
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    return Image.open(io.BytesIO(content), formats=FORMATS)


def _undecodable(name: str, error: Exception, remedy: str) -> DataError:
    why = " ".join(str(error).split()) or type(error).__name__
    if "cannot identify" in why:
        why = f"it is none of {', '.join(FORMATS)}"
    return DataError(f"{name} cannot be decoded ({why}); {remedy}")


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):  # 16 bits, by whichever of its names
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        values += 128
        values //= 257
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # from 0 to 1, or from 0 to 255
        numbers = np.nan_to_num(np.asarray(image))
        numbers = np.clip(numbers * 255 if numbers.max() <= 1 else numbers, 0, 255)
        return Image.fromarray(numbers.round().astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, pixels).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _turn_upright(
    image: Image.Image, size: tuple[int, int] | None, name: str
) -> Image.Transpose | None:
    """What turns the stored image as its annotations see it; checks its size on the way."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"{name} has {width}x{height} pixels, and at most {MAX_PIXELS // 1_000_000} megapixels "
            f"are read; make it smaller"
        )
    turn = upright_turn(image)
    upright = (height, width) if turn in SWAPS_SIDES else (width, height)
    if size is None or size == upright:
        return turn
    if size == (height, width):
        raise DataError(
            f"{name} has {width}x{height} pixels, but its annotations give {size[0]}x{size[1]}; "
            f"swap width and height in the annotation file"
        )
    if size != (width, height):
        raise DataError(
            f"{name} has {width}x{height} pixels, but its annotations give {size[0]}x{size[1]}; "
            f"put back the image they were drawn on, or export again"
        )
    return None
