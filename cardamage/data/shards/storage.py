"""Packed tars in object storage, such as S3, and the part of them that is kept on a disk.

The folder of such a dataset holds its manifest and its indexes; its tars lie under the same names
in the storage, which fsspec reads. A sample is one request for a range of bytes, whatever the order
of training, so neither a disk nor the memory has to hold a tar.

Which tars are kept is settled from the start: those of valid and test, then of train, as many as
``cache_gb`` holds. Every epoch reads each sample once; making room for the newest, the usual rule,
would drop each sample just before it is read again. A kept tar is a sparse file that fills sample
by sample: a hole fails the sample's CRC-32, so nothing has to be noted down, and the processes of a
node, or several runs, fill it together.
"""

import os
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cardamage.config.dataset import Storage
from cardamage.data.shards.manifest import Manifest, SplitRecord
from cardamage.data.shards.tar import PARTS
from cardamage.errors import CardamageError, ConfigError, DataError, MachineFault
from cardamage.runs.paths import ShardPaths
from cardamage.system.files import publish, sha256_of

AT_ONCE = 32
"""Requests under way where something is wanted of all samples."""

_FIRST_KEPT = ("valid", "test", "train")


@dataclass(frozen=True)
class StoredTars:
    """The tars of one packed dataset.

    Each method raises MachineFault where the storage cannot be reached, and ConfigError where it
    refuses or its fsspec package is missing.
    """

    section: Storage
    paths: ShardPaths
    """The dataset's folder, on a disk."""

    def url(self, path: Path) -> str:
        """Where a file of the folder lies in the storage."""
        within = path.relative_to(self.paths.root.parent).as_posix()
        return f"{self.section.url.rstrip('/')}/{within}"

    @property
    def cached(self) -> ShardPaths:
        """Where tars are kept; the dataset's own folder unless ``cache_dir`` names another."""
        folder = self.section.cache_dir
        return ShardPaths(Path(folder) / self.paths.root.name) if folder else self.paths

    def kept_tars(self, manifest: Manifest, split: str) -> dict[int, tuple[Path, int]]:
        """Of a split, the tars that ``cache_gb`` holds: by number, where, and of how many bytes."""
        left, found = self.section.cache_gb * 1e9, {}
        for name in (name for name in _FIRST_KEPT if name in manifest.splits):
            for number, shard in enumerate(manifest.splits[name].shards):
                left -= shard.bytes
                if name == split and left >= 0:
                    found[number] = (self.cached.shard(split, number), shard.bytes)
        return found

    def read(self, path: Path, start: int, end: int) -> bytes:
        """Bytes of a tar; DataError where it is not in the storage."""
        with self._asked(path) as url:
            content: bytes = self._files.cat_file(url, start=start, end=end)
            return content

    def sizes(self, split: str) -> dict[str, int]:
        """Bytes of each file of a split in the storage, by name."""
        folder = self.paths.index(split).parent
        try:
            with self._asked(folder) as url:
                # Another process may have written since this one looked last.
                self._files.invalidate_cache()
                found = self._files.ls(url, detail=True)
        except DataError:  # object stores have no empty folders
            return {}
        return {Path(each["name"]).name: each["size"] for each in found}

    def holds(self, split: str, record: SplitRecord) -> bool:
        """Whether every tar of a split is there, by its size."""
        sizes = self.sizes(split)
        names = [self.paths.shard(split, n).name for n in range(len(record.shards))]
        return [sizes.get(name) for name in names] == [shard.bytes for shard in record.shards]

    def download(self, path: Path) -> bool:
        """Fetch a file of the folder that is not on the disk; whether it was in the storage."""
        if path.exists():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with publish(path) as aside, self._asked(path) as url:
                self._files.get_file(url, str(aside))
        except DataError:
            return False
        return True

    def sha256(self, path: Path) -> str | None:
        """Of a file's bytes in the storage; None when it is not there."""
        aside = path.with_name(f".{path.name}.{os.getpid()}.check.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._asked(path) as url:
                self._files.get_file(url, str(aside))
            return sha256_of(aside)
        except DataError:
            return None
        finally:
            aside.unlink(missing_ok=True)

    def upload(self, path: Path) -> None:
        """Put a file of the folder into the storage."""
        with self._asked(path) as url:
            try:
                self._files.put_file(str(path), url)
            except FileNotFoundError as error:
                raise ConfigError(
                    f"data.storage.url: {url} cannot be written ({error}); make the bucket, or "
                    f"name another"
                ) from None

    def fetch_manifest(self) -> None:
        """Take over a dataset that was packed elsewhere: its indexes, then its manifest."""
        if self.paths.manifest.exists():
            return
        for split in _FIRST_KEPT:
            index = self.paths.index(split)
            if index.name in self.sizes(split):
                self.download(index)
        self.download(self.paths.manifest)

    def upload_manifest(self, manifest: Manifest) -> None:
        """Tell others that the dataset is whole: the manifest goes last."""
        for split in manifest.splits:
            self.upload(self.paths.index(split))
        self.upload(self.paths.manifest)

    @cached_property
    def _files(self) -> Any:
        """The file system of fsspec; its own file in a process, so this may be sent to another."""
        import fsspec  # noqa: PLC0415 - few datasets lie in a storage

        url = self.section.url
        options = {"auto_mkdir": True} if url.startswith("file:") else {}
        files, _ = fsspec.core.url_to_fs(url, **options)
        return files

    @contextmanager
    def _asked(self, path: Path) -> Iterator[str]:
        """The URL of a file; what goes wrong with it, as one of our errors."""
        url = self.url(path)
        try:
            yield url
        except (CardamageError, KeyboardInterrupt):
            raise
        except FileNotFoundError:
            raise DataError(f"{url} is not there; pack again: cardamage pack CONFIG") from None
        except ImportError as error:
            raise ConfigError(
                f"data.storage.url: {self.section.url} needs a package ({error}); for S3 "
                f"run: pip install 'cardamage-runner[s3]'"
            ) from None
        except Exception as error:  # each storage has errors of its own
            if isinstance(error, ValueError) and "rotocol" in str(error):
                raise ConfigError(
                    f"data.storage.url: fsspec does not know {self.section.url}; give an address "
                    f"such as s3://bucket/folder, gs://bucket/folder or file:///folder"
                ) from None
            if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
                raise ConfigError(
                    f"data.storage.url: {url} refuses these credentials ({error}); give others, "
                    f"for S3 as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or in ~/.aws"
                ) from None
            if isinstance(error, OSError) and error.filename:  # a file on this machine
                raise
            raise MachineFault(
                f"{url} cannot be reached ({type(error).__name__}: {error}); once it can, the "
                f"same command resumes"
            ) from error


class StoredSplit:
    """The samples of one split; safe to use from several threads.

    Args:
        index: of the split, one row per sample.
        open_tars: how many kept tars are open at a time.
    """

    def __init__(
        self,
        tars: StoredTars,
        manifest: Manifest,
        split: str,
        index: NDArray[Any],
        *,
        open_tars: int,
    ) -> None:
        self.tars, self._split, self._index = tars, split, index
        self._kept = tars.kept_tars(manifest, split)
        self._open = lru_cache(open_tars)(_KeptTar)
        # The parts of a sample come together, and are asked for one after the other.
        self._fetched = lru_cache(2 * AT_ONCE)(self._fetch)

    def read(self, number: int, part: str) -> bytes:
        """A part of a sample: what the disk has, if its CRC-32 is right, else the storage's."""
        row = self._index[number]
        offset, size = int(row[f"{part}_offset"]), int(row[f"{part}_bytes"])
        if kept := self._kept.get(int(row["shard"])):
            with suppress(OSError):  # the storage has it all the same
                tar = self._open(*kept)  # held while it is read, whatever the cache drops meanwhile
                content = os.pread(tar.descriptor, size, offset)
                if zlib.crc32(content) == row[f"{part}_crc32"]:
                    return content
        first, sample = self._fetched(number)
        return sample[offset - first :][:size]

    def close(self) -> None:
        """Close the tars."""
        self._open.cache_clear()
        self._fetched.cache_clear()

    def _fetch(self, number: int) -> tuple[int, bytes]:
        """Where a sample begins in its tar, and its parts, which lie side by side."""
        row = self._index[number]
        first = min(int(row[f"{part}_offset"]) for part in PARTS)
        end = max(int(row[f"{part}_offset"]) + int(row[f"{part}_bytes"]) for part in PARTS)
        shard = int(row["shard"])
        content = self.tars.read(self.tars.paths.shard(self._split, shard), first, end)
        if kept := self._kept.get(shard):
            with suppress(OSError):  # a full disk keeps nothing more
                tar = self._open(*kept)
                os.pwrite(tar.descriptor, content, first)
        return first, content


class _KeptTar:
    """A tar of which a disk holds what was read so far; it closes when nothing refers to it."""

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self.descriptor).st_size < size:
            os.ftruncate(self.descriptor, size)
        weakref.finalize(self, os.close, self.descriptor)
