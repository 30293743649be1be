"""One shard: a tar of samples in WebDataset's layout, the same bytes for the same samples."""

import hashlib
import json
import os
import sys
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cardamage.errors import DataError
from cardamage.system.files import publish, sha256_of

PARTS = ("image", "info", "mask")
"""A sample's members, and the prefixes of the index's fields."""

INDEX_DTYPE = np.dtype(
    [("shard", "<u4")]
    + [
        field
        for part in PARTS
        for field in ((f"{part}_offset", "<u8"), (f"{part}_bytes", "<u4"), (f"{part}_crc32", "<u4"))
    ]
)
"""One row per sample: the shard's number, then offset, size in bytes and CRC-32 of each part."""

_SUFFIXES = {"jpg": "image", "png": "image", "json": "info", "seg.png": "mask"}


@dataclass(frozen=True)
class Shard:
    """What a tar on disk holds."""

    index: NDArray[Any]
    """Of :data:`INDEX_DTYPE`, one row per sample."""
    infos: list[dict[str, Any]]
    bytes: int
    sha256: str


def key_of(number: int) -> str:
    """The key of a split's sample: its number, from 0, in digits only.

    WebDataset cuts keys at the first dot, so an original file name would not do.
    """
    return f"{number:08d}"


def write_shard(
    path: Path, first: int, samples: Iterable[dict[str, bytes]], *, shard: int = 0
) -> Shard:
    """Publish a shard; samples are drawn one at a time, so only one is held in memory.

    Args:
        first: number, in the split, of its first sample.
        samples: the files of each by suffix (``jpg`` or ``png``, RGB; ``json``; ``seg.png``, 8-bit
            grey, class ids), in the order of the split.
    """
    rows: list[tuple[int, ...]] = []
    infos: list[dict[str, Any]] = []
    with publish(path) as aside, aside.open("wb") as file:
        stream = _HashedStream(file)
        with _tar_writer()(stream, mtime=0, user="", group="", mode=0o644, encoder=False) as writer:
            for number, members in enumerate(samples, start=first):
                rows.append((shard, *_row(members, int(writer.tarstream.offset))))
                infos.append(json.loads(members["json"]))
                writer.write({"__key__": key_of(number), **members})
        size = file.tell()
    return Shard(np.array(rows, dtype=INDEX_DTYPE), infos, size, stream.sha256.hexdigest())


def read_shard(path: Path, *, shard: int, first: int, samples: int) -> Shard:
    """Read a whole shard of so many samples, which an interrupted packing may have left.

    ``shard`` is its number in the split, ``first`` that of its first sample.

    Raises:
        DataError: it is not a whole shard of these samples.
        OSError: it cannot be read.
    """
    index = np.zeros(samples, dtype=INDEX_DTYPE)
    index["shard"] = shard
    infos: list[dict[str, Any]] = []
    found = []
    try:
        with path.open("rb") as stream:
            for member in _members(stream):
                key, _, suffix = member.name.partition(".")
                part = _SUFFIXES[suffix]
                content = stream.read(member.size)
                row = index[int(key) - first]
                row[f"{part}_offset"] = stream.tell() - member.size
                row[f"{part}_bytes"] = len(content)
                row[f"{part}_crc32"] = zlib.crc32(content)
                found.append((key, part))
                if part == "info":
                    infos.append(json.loads(content))
        whole = Shard(index, infos, path.stat().st_size, sha256_of(path))
    except (tarfile.TarError, LookupError, ValueError, RecursionError, EOFError) as error:
        raise DataError(f"{path} is no whole shard ({error})") from None
    keys = [key_of(first + number) for number in range(samples) for _ in PARTS]
    # Within a sample, shards of PNG images are in either order: earlier versions put images first.
    if [key for key, _ in found] != keys or {*found} != {(k, part) for k in keys for part in PARTS}:
        raise DataError(f"{path} is no whole shard of {samples} samples")
    return whole


@cache
def _tar_writer() -> Any:
    """webdataset's, which imports torch where there is one: seconds, and only for its loaders."""
    if "torch" in sys.modules or "webdataset" in sys.modules:
        from webdataset import TarWriter  # noqa: PLC0415 - only to pack

        return TarWriter
    sys.modules["torch"] = None  # type: ignore[assignment]  # what Python takes for "not there"
    try:
        from webdataset import TarWriter  # noqa: PLC0415

        return TarWriter
    finally:  # who imports them later gets all of them
        del sys.modules["torch"]
        for name in [name for name in sys.modules if name.partition(".")[0] == "webdataset"]:
            del sys.modules[name]


class _HashedStream:
    """A file for TarWriter to write to, hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, block: bytes) -> int:
        self.sha256.update(block)
        return self._file.write(block)


def _row(members: Mapping[str, bytes], offset: int) -> list[int]:
    """Offset, size and CRC-32 of each part, for members that TarWriter puts at ``offset``."""
    fields = {}
    for suffix in sorted(members):  # the order in which TarWriter writes them
        content = members[suffix]
        offset += tarfile.BLOCKSIZE  # the member's header
        fields[_SUFFIXES[suffix]] = (offset, len(content), zlib.crc32(content))
        offset += -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return [field for part in PARTS for field in fields[part]]


def _members(stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The files of a tar, ``stream`` at the content of each in turn; up to the block at its end.

    Not by :class:`tarfile.TarFile`, which also follows what :func:`write_shard` never writes:
    links, sparse files that claim any size, extended headers that go round in circles.
    """
    size = os.fstat(stream.fileno()).st_size
    at = 0
    while True:
        stream.seek(at)
        block = stream.read(tarfile.BLOCKSIZE)
        if block == bytes(tarfile.BLOCKSIZE):
            return
        # Of a tar that was cut between two members only the missing block at its end tells.
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        at += tarfile.BLOCKSIZE
        if member.type != tarfile.REGTYPE:
            raise ValueError(f"{member.name} is no plain file")
        if not 0 <= member.size <= size - at:
            raise EOFError(f"{member.name} is cut short")
        yield member
        at += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def lies_inside(index: NDArray[Any], sizes: NDArray[np.uint64]) -> bool:
    """Whether every part of every row lies inside its tar; ``sizes`` are the tars', in bytes."""
    if (index["shard"] >= len(sizes)).any():
        return False
    size = sizes[index["shard"]]
    return all(
        # Not offset + bytes <= size: the sum may leave 64 bits.
        (size >= index[f"{part}_offset"]).all()
        and (size - index[f"{part}_offset"] >= index[f"{part}_bytes"]).all()
        for part in PARTS
    )
