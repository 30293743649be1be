"""The PNG file of a label mask: written so that it is read quickly, by any reader of PNG.

PNG may predict each row from its neighbours, which photos gain by. A mask is a few flat areas: left
as they are, its rows compress as well, and reading is undoing zlib, without the interpreter's lock.
The format is that of https://www.w3.org/TR/png-3/.
"""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_START = b"\x89PNG\r\n\x1a\n"
_LEVEL = 3  # zlib's quick way of searching; the next level takes five times as long
_HEADER = struct.Struct(">I4sIIBBBBB")


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """A PNG file of class ids, uint8 of shape (height, width), as 8-bit grey."""
    height, width = mask.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each begins with 0: not predicted
    rows[:, 1:] = mask
    chunks = (
        _header(height, width)[4:],
        b"IDAT" + zlib.compress(rows.tobytes(), _LEVEL),
        b"IEND",
    )
    return _START + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def decode_mask(content: bytes, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The class ids in a file of :func:`encode_mask` of this height and width.

    None where it is another file, which may be a PNG all the same. Checksums are not looked at.
    """
    height, width = size
    head = _START + _header(height, width)
    start = len(head) + 4  # behind the checksum
    if not content.startswith(head) or content[start + 4 : start + 8] != b"IDAT":
        return None
    (length,) = struct.unpack_from(">I", content, start)
    pixels = height * (width + 1)
    try:
        unpacked = zlib.decompressobj().decompress(content[start + 8 :][:length], pixels)
    except zlib.error:
        return None
    if len(unpacked) != pixels:
        return None
    rows = np.frombuffer(unpacked, dtype=np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]


def _header(height: int, width: int) -> bytes:
    """The first chunk, without its checksum: its length, name, and 8 bits of grey a pixel."""
    return _HEADER.pack(13, b"IHDR", width, height, 8, 0, 0, 0, 0)
