"""Packed datasets: the manifest that describes one, and random access to its samples.

A packed dataset is a folder of tars, as :class:`cardamage.paths.ShardPaths` draws it::

    manifest.json              written last: what is here, and what it was made of
    train/000000.tar           00000000.jpg  00000000.json  00000000.seg.png  00000001.jpg ...
    train/index.npy            where each sample lies in the tars, and the CRC-32 of its parts

Tars are read by offset, so a sample costs two reads wherever it lies, and any tool that knows
WebDataset reads them too. What was cut short or changed after packing is noticed: the sizes and the
index when a reader opens, the bytes of a sample when it is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cardamage.data.openfiles import OpenFiles
from cardamage.data.shard_index import lies_inside, read_index
from cardamage.errors import DataError, MachineFault, of_storage
from cardamage.files import naming, write_text
from cardamage.paths import ShardPaths

VERSION = 1
"""Of the layout; part of every fingerprint, so another version never reads these shards."""

MAX_SIDE = 8192
"""Most pixels of an image's height or width as packed; the config allows no more."""


def key_of(number: int) -> str:
    """The key of a split's sample: its number, from 0, in digits only.

    WebDataset cuts keys at the first dot, so an original file name would not do.
    """
    return f"{number:08d}"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class ShardRecord(_Record):
    """One tar: how many samples and bytes it has, and its hash."""

    samples: _Count
    bytes: _Count
    sha256: str


class SplitRecord(_Record):
    """One split: its tars by number, its index, and what its masks hold."""

    samples: _Count
    shards: list[ShardRecord]
    index_sha256: str
    pixels: list[_Count]
    """Pixels of each class id over all masks as packed."""
    overlapped_pixels: _Count
    """Pixels, at the images' original size, that two or more painted annotations cover."""


class Manifest(_Record):
    """What a folder of shards holds and what it was made of."""

    version: int
    dataset: str
    fingerprint: str
    """Hex SHA-256 of what was packed and how; see :func:`cardamage.data.pack.fingerprint`."""
    class_names: list[str]
    """By class id, background first."""
    options: dict[str, Any]
    """How it was packed: classes, drop, image_size, subset, image_format, samples_per_shard."""
    image_size: tuple[_Side, _Side] = Field(strict=False)
    """Height and width of every image and mask, in pixels."""
    rasteriser: str
    encoder: str
    splits: dict[str, SplitRecord]
    sha256: str | None = None
    """Of all the rest, so that a flipped bit is noticed; older manifests have none."""


def write_manifest(paths: ShardPaths, manifest: Manifest) -> None:
    """Publish the manifest; from then on the shards count as complete."""
    signed = manifest.model_copy(update={"sha256": _hash_of(manifest)})
    write_text(paths.manifest, signed.model_dump_json(indent=2) + "\n")


def _hash_of(manifest: Manifest) -> str:
    content = manifest.model_dump(mode="json", exclude={"sha256"})
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(paths: ShardPaths) -> Manifest:
    """The manifest of a shard folder.

    Raises:
        DataError: there is none, it is damaged, or another version of the layout wrote it.
    """
    try:
        with naming(paths.manifest):
            text = paths.manifest.read_text(encoding="utf-8")
        version = json.loads(text)["version"]
    except FileNotFoundError:
        raise DataError(
            f"{paths.root} holds no complete shards (it has no manifest.json); {_REPACK}"
        ) from None
    except (IsADirectoryError, ValueError, TypeError, KeyError, RecursionError):
        raise _damaged_manifest(paths) from None
    if version != VERSION:
        raise DataError(
            f"{paths.manifest} has version {str(version)[:20]} of the layout, not {VERSION}; "
            f"delete {paths.root} and {_REPACK}"
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError:
        raise _damaged_manifest(paths) from None
    if manifest.sha256 not in (None, _hash_of(manifest)):
        raise _damaged_manifest(paths)
    return manifest


class Sample(NamedTuple):
    """One decoded sample."""

    key: str
    image: NDArray[np.uint8]
    """RGB of shape (H, W, 3)."""
    mask: NDArray[np.uint8]
    """Class ids of shape (H, W)."""


class ShardReader:
    """Random access to the samples of one split; safe to use from several threads.

    Attributes:
        folder: the shard folder.
        split: the split.
        manifest: the folder's manifest.
        class_names: by class id, background first.
        image_size: height and width of every image and mask, in pixels.
        fingerprint: of the packed dataset, full length.
        keys: of shape (samples,), each sample's key.

    Args:
        folder: the shard folder.
        split: ``train``, ``valid`` or ``test``.
        open_shards: how many tars are kept open at a time.

    Raises:
        DataError: the manifest or the index is missing or damaged, or a shard is missing or has
            another size than it was packed with.
    """

    def __init__(self, folder: Path, split: str, *, open_shards: int = 64) -> None:
        self.folder = folder
        self.split = split
        paths = ShardPaths(folder)
        self.manifest = read_manifest(paths)
        self.class_names = tuple(self.manifest.class_names)
        self.image_size = self.manifest.image_size
        self.fingerprint = self.manifest.fingerprint
        if split not in self.manifest.splits:
            raise DataError(
                f'{folder} has no split "{split}"; it has {", ".join(self.manifest.splits)}'
            )
        record = self.manifest.splits[split]
        self._shards = [paths.shard(split, number) for number in range(len(record.shards))]
        for path, shard in zip(self._shards, record.shards, strict=True):
            if fault := fault_in_size(path, shard.bytes):
                raise DataError(f"{path} {fault}; {_REPACK}")
        self._index = _read_index(paths.index(split), record)
        self.keys: NDArray[np.str_] = np.array([key_of(number) for number in range(len(self))])
        self._files = OpenFiles(open_shards)

    def __len__(self) -> int:
        return len(self._index)

    def read(self, number: int) -> Sample:
        """Decode one sample; numbers count from 0.

        Raises:
            IndexError: there is no such sample.
            DataError: its bytes are not those that were packed.
        """
        image = self._decode(number, "image", "RGB")
        mask = self._decode(number, "mask", "L")
        return Sample(str(self.keys[number]), image, mask)

    def info(self, number: int) -> dict[str, Any]:
        """What is stored beside a sample.

        Returns:
            ``file_name``, ``width``, ``height`` (of the original image), ``pixels`` (of each class
            id in the mask as packed) and ``overlapped_pixels``.

        Raises:
            IndexError: there is no such sample.
            DataError: its bytes are not those that were packed.
        """
        try:
            stored = json.loads(self._bytes(number, "info"))
        except (ValueError, RecursionError):
            stored = None
        if not isinstance(stored, dict):
            raise self._damaged(number, "an info that is no JSON object")
        return stored

    def close(self) -> None:
        """Close the tars; reading afterwards raises ValueError."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bytes(self, number: int, part: str) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        row = self._index[number]
        offset, size = int(row[f"{part}_offset"]), int(row[f"{part}_bytes"])
        try:
            with self._files.borrow(self._shards[int(row["shard"])]) as descriptor:
                content = os.pread(descriptor, size, offset)
        except OSError as error:
            known = of_storage(error)
            where = f"{self._shards[int(row['shard'])]}: sample {key_of(number)}"
            if isinstance(known, MachineFault):
                raise MachineFault(f"{where}: {known}") from None
            raise DataError(f"{where} cannot be read ({error.strerror}); {_REPACK}") from None
        if zlib.crc32(content) != row[f"{part}_crc32"]:
            raise self._damaged(number, f"other bytes in its {part} than were packed")
        return content

    def _decode(self, number: int, part: str, mode: str) -> NDArray[np.uint8]:
        content = self._bytes(number, part)
        try:
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
                # Before a pixel is decoded: a few bytes can stand for gigabytes of them.
                if image.size == self.image_size[::-1] and image.mode == mode:
                    return np.asarray(image)
                kind = f"{image.width}x{image.height} pixels of mode {image.mode}"
        except Exception as error:  # noqa: BLE001 - decoders raise nearly anything on broken bytes
            raise self._damaged(number, f"an {part} that does not decode ({error})") from None
        height, width = self.image_size
        raise self._damaged(number, f"an {part} of {kind}, not {width}x{height} of {mode}")

    def _damaged(self, number: int, what: str) -> DataError:
        shard = self._shards[int(self._index[number]["shard"])]
        return DataError(f"{shard}: sample {key_of(number)} has {what}; {_REPACK} --check")


def fault_in_size(path: Path, expected: int) -> str | None:
    """What is wrong with a file that should have ``expected`` bytes; None when it has them."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    return None if found == expected else f"has {found} bytes, not {expected}"


def _read_index(path: Path, record: SplitRecord) -> NDArray[Any]:
    try:
        with naming(path):
            content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {_REPACK}") from None
    if hashlib.sha256(content).hexdigest() != record.index_sha256:
        raise DataError(f"{path} is not the index that was packed; {_REPACK}")
    index = read_index(content)
    sizes = np.array([shard.bytes for shard in record.shards], dtype=np.uint64)
    if index is None or len(index) != record.samples or not lies_inside(index, sizes):
        raise DataError(f"{path} does not fit the manifest; {_REPACK}")
    return index


_REPACK = "pack again: python jobs/pack.py CONFIG"


def _damaged_manifest(paths: ShardPaths) -> DataError:
    return DataError(f"{paths.manifest} is damaged; {_REPACK}")
