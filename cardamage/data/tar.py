"""One shard: a tar of samples in WebDataset's layout, the same bytes for the same samples."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cardamage.data.shard_index import INDEX_DTYPE
from cardamage.data.shards import key_of
from cardamage.errors import DataError
from cardamage.files import publish

_SUFFIXES = {"jpg": "image", "png": "image", "json": "info", "seg.png": "mask"}


@dataclass(frozen=True)
class PackedSample:
    """The bytes of one sample's members.

    Attributes:
        image: JPEG or PNG file, RGB.
        image_format: ``jpg`` or ``png``.
        info: what is known of the sample, as JSON values.
        mask: PNG file, 8-bit grey, class ids.
    """

    image: bytes
    image_format: str
    info: dict[str, Any]
    mask: bytes


def write_shard(path: Path, first: int, samples: Iterable[PackedSample]) -> None:
    """Publish a shard; samples are drawn one at a time, so only one is held in memory.

    Args:
        path: the tar.
        first: number, in the split, of its first sample.
        samples: in the order of the split.
    """
    with publish(path) as aside, tarfile.open(aside, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, sample in enumerate(samples, start=first):
            info = json.dumps(sample.info, ensure_ascii=False, sort_keys=True).encode()
            _add(archive, f"{key_of(number)}.{sample.image_format}", sample.image)
            _add(archive, f"{key_of(number)}.json", info)
            _add(archive, f"{key_of(number)}.seg.png", sample.mask)


@dataclass(frozen=True)
class ShardContents:
    """What reading a shard back gave.

    Attributes:
        index: of :data:`~cardamage.data.shard_index.INDEX_DTYPE`, one row a sample.
        infos: the JSON values stored with each sample.
    """

    index: NDArray[Any]
    infos: list[dict[str, Any]]


def read_shard(path: Path, *, shard: int, first: int, samples: int) -> ShardContents:
    """Read a whole shard back and say where everything lies in it.

    Args:
        path: the tar.
        shard: its number in the split.
        first: number, in the split, of its first sample.
        samples: how many it must have.

    Raises:
        DataError: it is not a whole shard of these samples.
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
    except (tarfile.TarError, LookupError, ValueError, RecursionError, EOFError, OSError) as error:
        raise DataError(f"{path} is no whole shard ({error})") from None
    expected = [
        (key_of(first + i), part) for i in range(samples) for part in ("image", "info", "mask")
    ]
    if found != expected:
        raise DataError(f"{path} is no whole shard of {samples} samples")
    return ShardContents(index, infos)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner and time stay 0: the bytes depend on the samples alone
    member.size = len(content)
    member.mode = 0o644
    archive.addfile(member, io.BytesIO(content))


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
