"""Decoding whatever photo comes, and resizing that keeps masks and images aligned."""

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from cardamage.data.images import decode_image, resize_image, resize_mask
from cardamage.errors import DataError


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(content: bytes, **options: object) -> np.ndarray:
    image = decode_image(content, name="x", **options)
    assert image.mode == "RGB"
    return np.asarray(image)


def arrow() -> Image.Image:
    """4 wide, 2 high, red in the upper left corner only."""
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    return image


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(arrow(), exif=exif)


def test_grey_and_palette_and_cmyk_become_rgb():
    grey = Image.new("L", (3, 2), 77)
    assert (pixels(encoded(grey)) == 77).all()
    assert (pixels(encoded(grey.convert("P"))) == 77).all()
    assert (pixels(encoded(Image.new("1", (3, 2), 1))) == 255).all()
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = pixels(encoded(cmyk, "JPEG", quality=100))[0, 0].astype(int)
    assert red[0] > 240
    assert max(red[1:]) < 15


def test_16_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert pixels(encoded(Image.fromarray(values)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_transparency_shows_white():
    clear = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    clear.putpixel((1, 0), (200, 0, 0, 255))
    assert pixels(encoded(clear)).tolist() == [[[255, 255, 255], [200, 0, 0]]]
    assert (pixels(encoded(Image.new("LA", (2, 1), (9, 0)))) == 255).all()
    assert (pixels(encoded(Image.new("L", (2, 1), 9), transparency=9)) == 255).all()


def test_the_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(content)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("orientation", "row", "column"),
    [(1, 0, 0), (2, 0, 3), (3, 1, 3), (4, 1, 0), (5, 0, 0), (6, 0, 1), (7, 3, 1), (8, 3, 0)],
)
def test_exif_orientation(orientation, row, column):
    """Where the red corner ends up, by the definition of the EXIF tag."""
    upright = pixels(turned(orientation))
    assert upright.shape[:2] == ((2, 4) if orientation < 5 else (4, 2))
    assert upright[row, column].tolist() == [255, 0, 0]
    assert upright.sum() == 255


def test_orientation_follows_the_size_that_the_annotations_give():
    content = turned(6)
    assert pixels(content, size=(2, 4))[0, 1].tolist() == [255, 0, 0]
    assert pixels(content, size=(4, 2))[0, 0].tolist() == [255, 0, 0]
    assert pixels(turned(3), size=(4, 2))[1, 3].tolist() == [255, 0, 0]


def test_nonsense_orientation_is_none():
    assert pixels(turned(99))[0, 0].tolist() == [255, 0, 0]


def test_another_size_than_annotated():
    with pytest.raises(DataError, match=r"cars/a\.png has 4x2 pixels, but its annotations give"):
        decode_image(encoded(arrow()), size=(5, 2), name="cars/a.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match=r"a\.jpg cannot be decoded .*; replace or remove it"):
        decode_image(content[: len(content) // 2], name="a.jpg")


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"quality": 30}, {"restart_marker_blocks": 4}]
)
def test_a_jpeg_may_lack_its_end_marker_and_nothing_else(options):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG", **options)
    whole = np.asarray(decode_image(content, name="a.jpg"))
    for marker_bytes in (1, 2):
        found = decode_image(content[:-marker_bytes], name="a.jpg")
        np.testing.assert_array_equal(np.asarray(found), whole)
    for cut in (8, 40, len(content) // 2):
        with pytest.raises(DataError, match="cannot be decoded"):
            decode_image(content[:-cut], name="a.jpg")


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n" + b"x" * 9]
)
def test_what_is_no_image(content):
    with pytest.raises(DataError, match="cannot be decoded"):
        decode_image(content, name="a.jpg")


@given(st.data())
def test_garbled_images_are_refused_or_decoded_but_nothing_else(data):
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF"]))
    content = bytearray(encoded(arrow().resize((16, 16)), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(DataError):
        decode_image(bytes(content), name="a")


@pytest.mark.parametrize("side", [15_000, 30_000])
def test_a_decompression_bomb(side):
    """A hundred bytes that would become gigabytes; Pillow itself warns, then refuses."""
    header = struct.pack(">4sIIBBBBB", b"IHDR", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    with pytest.raises(DataError, match=r"megapixels|decompression bomb|exceeds limit"):
        decode_image(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\1\0IDAT" + b"x" * 60, name="bomb.png")


def test_a_kind_that_would_start_a_program():
    """Pillow hands EPS to Ghostscript, whose language can read and write files."""
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match=r"x\.jpg cannot be decoded \(it is none of BMP, GIF, JPEG"):
        decode_image(eps, name="x.jpg")


def test_a_large_photo_is_no_bomb():
    assert features.check("zlib")
    large = Image.new("1", (10_000, 9_500))
    assert decode_image(encoded(large), name="large.png").size == (10_000, 9_500)


def test_resizing_a_mask_by_hand():
    """4 pixels to 2: centres at 1.0 and 3.0, so pixels 1 and 3; 2 to 4: each twice."""
    row = np.array([[1, 2, 3, 4]], dtype=np.uint8)
    assert resize_mask(row, (1, 2)).tolist() == [[2, 4]]
    assert resize_mask(row[:, :2], (1, 4)).tolist() == [[1, 1, 2, 2]]
    # 5 to 3: centres at 0.83, 2.5, 4.17; 3 to 5: centres at 0.3, 0.9, 1.5, 2.1, 2.7.
    assert resize_mask(np.array([[0, 1, 2, 3, 4]], dtype=np.uint8), (1, 3)).tolist() == [[0, 2, 4]]
    down = np.array([[7], [8], [9]], dtype=np.uint8)
    assert resize_mask(down, (5, 1)).ravel().tolist() == [7, 7, 8, 9, 9]


@given(
    st.tuples(*[st.integers(1, 40)] * 4),
    st.integers(0, 2**32 - 1),
)
def test_resizing_a_mask_is_pillows_nearest(sides, seed):
    """Pillow's resize aligns pixel centres, for images and for masks."""
    old_height, old_width, height, width = sides
    mask = np.random.default_rng(seed).integers(0, 9, (old_height, old_width), dtype=np.uint8)
    resized = resize_mask(mask, (height, width))
    assert resized.dtype == np.uint8
    expected = Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST)
    # Where a centre falls on a border between two pixels, Pillow's floating point may take either.
    rows = (2 * np.arange(height) + 1) * old_height % (2 * height) != 0
    columns = (2 * np.arange(width) + 1) * old_width % (2 * width) != 0
    inner = np.ix_(rows, columns)
    assert (resized[inner] == np.asarray(expected)[inner]).all()


def test_image_and_mask_stay_aligned():
    """A white block and its mask, made smaller: the mask is where the image is brighter."""
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[12:36, 20:60] = 1
    small = resize_image(Image.fromarray(mask * 255).convert("RGB"), (15, 20))
    bright = np.asarray(small)[..., 0] > 127
    assert (bright == (resize_mask(mask, (15, 20)) == 1)).all()


def test_the_same_size_is_left_alone():
    image = arrow()
    assert resize_image(image, (2, 4)) is image
    mask = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert (resize_mask(mask, (2, 4)) == mask).all()


def scene(width: int, height: int) -> Image.Image:
    """Shapes of all sizes with sharp edges, and some noise."""
    draws = np.random.default_rng(0)
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    for side in np.geomspace(2, height / 2, 60).astype(int):
        top, left = draws.integers(height - side), draws.integers(width - side)
        picture[top : top + side, left : left + side] = draws.integers(256, size=3)
    noise = draws.normal(0, 4, picture.shape)
    return Image.fromarray((picture + noise).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("sides", "size", "decoded"),
    [
        ((640, 480), (240, 320), (640, 480)),  # half is no larger than what is wanted
        ((640, 480), (192, 256), (320, 240)),
        ((640, 480), (100, 256), (320, 240)),  # the side that needs more decides
        ((648, 480), (60, 81), (162, 120)),
        ((1280, 960), (96, 128), (160, 120)),
        ((642, 480), (60, 80), (321, 240)),  # 4 does not divide 642
        ((641, 480), (60, 80), (641, 480)),
    ],
)
def test_a_jpeg_is_decoded_smaller_and_resized_shows_nearly_the_same(sides, size, decoded):
    content = encoded(scene(*sides), "JPEG", quality=90)
    smaller = decode_image(content, shrink_to=size, name="x")
    assert smaller.size == decoded
    whole = resize_image(decode_image(content, name="x"), size)
    coded = Image.open(io.BytesIO(encoded(whole, "JPEG", quality=95, subsampling=0)))
    as_jpeg = np.asarray(coded).astype(float) - np.asarray(whole)
    differ = np.asarray(resize_image(smaller, size)).astype(float) - np.asarray(whole)
    assert differ.std() < max(1.5 * as_jpeg.std(), 3.5)
    assert abs(differ.mean()) < 0.2


def test_a_turned_jpeg_is_decoded_smaller_by_the_sides_one_sees():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(scene(640, 480), "JPEG", exif=exif)
    assert decode_image(content, shrink_to=(256, 192), name="x").size == (240, 320)
    assert decode_image(content, shrink_to=(192, 256), size=(640, 480), name="x").size == (320, 240)
    # Were it decoded by the sides as they are stored, 160 rows would become 200.
    assert decode_image(content, shrink_to=(200, 100), name="x").size == (240, 320)


def test_other_files_are_decoded_whole():
    assert decode_image(encoded(scene(64, 48)), shrink_to=(6, 8), name="x").size == (64, 48)
