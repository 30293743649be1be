"""The index of a split's samples: where each lies in the tars, and the checksums of its parts."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARTS = ("image", "info", "mask")
"""A sample's members in the order of the tar, and the prefixes of the index's fields."""

INDEX_DTYPE = np.dtype(
    [("shard", "<u4")]
    + [
        field
        for part in PARTS
        for field in ((f"{part}_offset", "<u8"), (f"{part}_bytes", "<u4"), (f"{part}_crc32", "<u4"))
    ]
)
"""One row a sample: the shard's number, then offset, size in bytes and CRC-32 of each part."""


def read_index(content: bytes) -> NDArray[Any] | None:
    """The rows of an index as :func:`numpy.save` wrote them; None for anything else.

    Not by :func:`numpy.load`, which allocates whatever shape the header claims.
    """
    stream = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            return None
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception:  # noqa: BLE001 - the header is Python source, so nearly anything is raised
        return None
    whole = len(content) - stream.tell() == INDEX_DTYPE.itemsize * math.prod(shape)
    if dtype != INDEX_DTYPE or len(shape) != 1 or not whole:
        return None
    return np.frombuffer(content, INDEX_DTYPE, offset=stream.tell())


def lies_inside(index: NDArray[Any], sizes: NDArray[np.uint64]) -> bool:
    """Whether every part of every row lies inside its tar; ``sizes`` are the tars', in bytes."""
    if (index["shard"] >= len(sizes)).any():
        return False
    size = sizes[index["shard"]]
    return all(
        # Not offset + bytes <= size: the sum may leave 64 bits.
        (
            (size >= index[f"{part}_offset"])
            & (size - index[f"{part}_offset"] >= index[f"{part}_bytes"])
        ).all()
        for part in PARTS
    )
