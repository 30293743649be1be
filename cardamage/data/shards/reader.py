"""Packed datasets: random access to their samples.

A packed dataset is a folder of tars, as :class:`cardamage.runs.paths.ShardPaths` draws it::

    manifest.json              written last: what is here, and what it was made of
    train/000000.tar           00000000.jpg  00000000.json  00000000.seg.png  00000001.jpg ...
    train/index.npy            where each sample lies in the tars, and the CRC-32 of its parts

Tars are read by offset, so a sample costs two reads wherever it lies, and any tool that knows
WebDataset reads them too. What was cut short or changed after packing is noticed: the sizes and the
index when a reader opens, the bytes of a sample when it is read. The tars may lie in object
storage instead, whose sizes only packing asks for: see :mod:`cardamage.data.shards.storage`.
"""

import hashlib
import io
import json
import os
import weakref
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from cardamage.config.dataset import Storage
from cardamage.config.experiment import Experiment
from cardamage.data.shards.manifest import (
    REPACK,
    SplitRecord,
    fault_in_size,
    read_manifest,
)
from cardamage.data.shards.mask_file import decode_mask
from cardamage.data.shards.storage import AT_ONCE, StoredSplit, StoredTars
from cardamage.data.shards.tar import INDEX_DTYPE, key_of, lies_inside
from cardamage.errors import DataError, MachineFault, of_storage
from cardamage.runs.paths import RunPaths, ShardPaths
from cardamage.runs.stages import require
from cardamage.system.files import naming

_BLOCK = 1024  # requests that are noted down at a time

_JPEG_START = b"\xff\xd8"
_IN_COLOUR = ("YCbCr", "RGB")  # as simplejpeg names what is stored


class Sample(NamedTuple):
    """One decoded sample."""

    key: str
    image: NDArray[np.uint8]
    """RGB of shape (H, W, 3)."""
    mask: NDArray[np.uint8]
    """Class ids of shape (H, W)."""


class _OpenTar:
    """A tar to read with ``os.pread``; it closes when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)


class ShardReader:
    """Random access to the samples of one split; safe to use from several threads.

    Attributes:
        class_names: by class id, background first.
        image_size: height and width of every image and mask, in pixels.
        keys: of shape (samples,), each sample's key.

    Args:
        split: ``train``, ``valid`` or ``test``.
        storage: where the tars lie; None where they lie in the folder.
        open_shards: how many tars are kept open at a time; more only while they are being read.

    Raises:
        DataError: the manifest or the index is missing or damaged, or a shard of the folder is
            missing or has another size than it was packed with.
    """

    def __init__(
        self, folder: Path, split: str, *, storage: Storage | None = None, open_shards: int = 64
    ) -> None:
        self.folder, self.split = folder, split
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
            if not storage and (fault := fault_in_size(path, shard.bytes)):
                raise DataError(f"{path} {fault}; {REPACK}")
        self._index = _read_index(paths.index(split), record)
        self._stored = None
        if storage:
            tars = StoredTars(storage, paths)
            self._stored = StoredSplit(
                tars, self.manifest, split, self._index, open_tars=open_shards
            )
        self.keys: NDArray[np.str_] = np.array([key_of(number) for number in range(len(self))])
        # Opening a file on a cluster's storage takes longer than reading a sample.
        self._open = lru_cache(open_shards)(_OpenTar)
        self._closed = False

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

        ``file_name``, ``width``, ``height`` (of the original image), ``pixels`` (of each class id
        in the mask as packed) and ``overlapped_pixels``; raises as :meth:`read`.
        """
        try:
            stored = json.loads(self._bytes(number, "info"))
        except (ValueError, RecursionError):
            stored = None
        if not isinstance(stored, dict):
            raise self._damaged(number, "an info that is no JSON object")
        return stored

    def shown(self) -> NDArray[np.bool_]:
        """Which classes each sample shows, by class id: of shape (samples, classes)."""
        return np.array([info["pixels"] for info in self.infos()]) > 0

    def infos(self) -> Iterator[dict[str, Any]]:
        """:meth:`info` of all samples, in their order; of object storage many at a time."""
        if not self._stored:
            yield from map(self.info, range(len(self)))
            return
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for start in range(0, len(self), _BLOCK):
                yield from threads.map(self.info, range(len(self))[start : start + _BLOCK])

    def close(self) -> None:
        """Close the tars; reading afterwards raises ValueError."""
        self._closed = True
        self._open.cache_clear()
        if self._stored:
            self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bytes(self, number: int, part: str) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        if self._closed:
            raise ValueError("reading after close()")
        content = self._stored.read(number, part) if self._stored else self._on_disk(number, part)
        if zlib.crc32(content) != self._index[number][f"{part}_crc32"]:
            raise self._damaged(number, f"other bytes in its {part} than were packed")
        return content

    def _on_disk(self, number: int, part: str) -> bytes:
        row = self._index[number]
        path = self._shards[int(row["shard"])]
        try:
            tar = self._open(path)  # held while it is read, whatever the cache drops meanwhile
            return os.pread(tar.descriptor, int(row[f"{part}_bytes"]), int(row[f"{part}_offset"]))
        except OSError as error:
            known = of_storage(error)
            where = f"{path}: sample {key_of(number)}"
            if isinstance(known, MachineFault):
                raise MachineFault(f"{where}: {known}") from None
            raise DataError(f"{where} cannot be read ({error.strerror}); {REPACK}") from None

    def _decode(self, number: int, part: str, mode: str) -> NDArray[np.uint8]:
        content = self._bytes(number, part)
        height, width = self.image_size
        quickly = _decode_jpeg if part == "image" else decode_mask
        if (pixels := quickly(content, (height, width))) is not None:
            return pixels
        try:
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
                # Before a pixel is decoded: a few bytes can stand for gigabytes of them.
                if image.size == (width, height) and image.mode == mode:
                    return np.asarray(image)
                found = f"{image.width}x{image.height} pixels of mode {image.mode}"
                fault = f"of {found}, not {width}x{height} of {mode}"
        except Exception as error:  # noqa: BLE001 - decoders raise nearly anything on broken bytes
            fault = f"that does not decode ({error})"
        raise self._damaged(number, f"an {part} {fault}")

    def _damaged(self, number: int, what: str) -> DataError:
        shard = self._shards[int(self._index[number]["shard"])]
        where = self._stored.tars.url(shard) if self._stored else shard
        return DataError(f"{where}: sample {key_of(number)} has {what}; {REPACK} --check")


def _decode_jpeg(content: bytes, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """A JPEG in colour of this height and width; None where Pillow has to look at what is there.

    simplejpeg and Pillow decode by the same library with the same settings, so pixels are equal.
    """
    if not content.startswith(_JPEG_START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        # Before a pixel is decoded: a few bytes can stand for gigabytes of them.
        if (height, width) != size or colours not in _IN_COLOUR:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content)
    except ValueError:  # also where Pillow only shrugs
        return None
    return pixels


def _read_index(path: Path, record: SplitRecord) -> NDArray[Any]:
    try:
        with naming(path):
            content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {REPACK}") from None
    if hashlib.sha256(content).hexdigest() != record.index_sha256:
        raise DataError(f"{path} is not the index that was packed; {REPACK}")
    try:
        index: NDArray[Any] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception:  # noqa: BLE001 - the header is Python source, so nearly anything is raised
        index = np.empty(0)
    sizes = np.array([shard.bytes for shard in record.shards], dtype=np.uint64)
    fits = index.dtype == INDEX_DTYPE and index.shape == (record.samples,)
    if not (fits and lies_inside(index, sizes)):
        raise DataError(f"{path} does not fit the manifest; {REPACK}")
    return index


def packed_splits(run: RunPaths, experiment: Experiment, *splits: str) -> list[ShardReader]:
    """A reader for each split, in the order asked for.

    Raises:
        RunError: the run has not been packed.
        DataError: the shards are missing, damaged, or of other classes or another image size.
    """
    packed = require(run, "pack", f"`cardamage pack {run.root}`")
    folder = Path(packed.output["shards"])
    storage = experiment.data.storage
    readers = [ShardReader(folder, split, storage=storage) for split in splits]
    wanted = (experiment.data.class_names, experiment.data.image_size)
    for reader in readers:
        found = (tuple(reader.class_names), tuple(reader.image_size))
        if found != wanted:
            raise DataError(
                f"{folder} was packed for classes and size {found}, but the config asks for "
                f"{wanted}; run `cardamage pack {run.root}`"
            )
    return readers
