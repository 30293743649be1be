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


def encode_mask(mask: NDArray[np.uint8]) -> bytes:
    """A PNG file of class ids, uint8 of shape (height, width), as 8-bit grey."""
    height, width = mask.shape
    rows = np.zeros((height, width + 1), dtype=np.uint8)  # each begins with 0: not predicted
    rows[:, 1:] = mask
    packed = zlib.compress(rows.tobytes(), _LEVEL)
    return _head(height, width) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def decode_mask(content: bytes, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The class ids in a file of :func:`encode_mask` of this height and width.

    None where it is another file, which may be a PNG all the same. The checksum of the pixels is
    not looked at.
    """
    height, width = size
    head = _head(height, width)
    start = len(head)
    if not content.startswith(head) or content[start + 4 : start + 8] != b"IDAT":
        return None
    length = int.from_bytes(content[start : start + 4], "big")
    pixels = height * (width + 1)
    try:
        unpacked = zlib.decompressobj().decompress(content[start + 8 :][:length], pixels)
    except zlib.error:
        return None
    if len(unpacked) != pixels:
        return None
    rows = np.frombuffer(unpacked, dtype=np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:]


def _head(height: int, width: int) -> bytes:
    """All that stands before the pixels: 8 bits of grey each."""
    return _START + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
