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

import errno
import hashlib
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
from cardamage.data.shards.manifest import REPACK, Manifest, SplitRecord
from cardamage.data.shards.tar import PARTS
from cardamage.errors import CardamageError, ConfigError, DataError, MachineFault
from cardamage.runs.paths import SPLITS, ShardPaths
from cardamage.system.console import log
from cardamage.system.files import publish, write_bytes

AT_ONCE = 32
"""Requests under way where something is wanted of all samples."""

_OF_THIS_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_AWAY = ("Connect", "Timeout", "Disconnected", "HTTPClient", "ServerError")
"""In the names that the libraries give to errors which another try may not meet."""

_FIRST_KEPT = ("valid", "test", "train")


@dataclass(frozen=True)
class StoredTars:
    """The tars of one packed dataset.

    Each method raises MachineFault where the storage cannot be reached, ConfigError where it
    refuses or its fsspec package is missing, and OSError where this machine's disk does.
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
        """Where tars are kept; a folder of the dataset's own unless ``cache_dir`` names another."""
        folder = self.section.cache_dir
        return ShardPaths(
            Path(folder) / self.paths.root.name if folder else self.paths.root / "kept"
        )

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

    def sizes(self, folder: Path) -> dict[str, int]:
        """Bytes of each file of a folder in the storage, by name."""
        try:
            with self._asked(folder) as url:
                # Another process may have written since this one looked last.
                self._files.invalidate_cache()
                found = self._files.ls(url, detail=True)
        except DataError:  # object stores have no empty folders
            return {}
        return {Path(each["name"]).name: each["size"] or 0 for each in found}

    def holds(self, split: str, record: SplitRecord) -> bool:
        """Whether every tar of a split is there, by its size."""
        sizes = self.sizes(self.paths.index(split).parent)
        names = [self.paths.shard(split, n).name for n in range(len(record.shards))]
        return [sizes.get(name) for name in names] == [shard.bytes for shard in record.shards]

    def download(self, path: Path) -> bool:
        """Fetch a file of the folder; whether it was in the storage."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with publish(path) as aside, self._asked(path) as url:
                self._files.get_file(url, str(aside))
        except DataError:
            return False
        return True

    def sha256(self, path: Path) -> str | None:
        """Of a file's bytes in the storage; None when it is not there."""
        try:
            with self._asked(path) as url, self._files.open(url, "rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except DataError:
            return None

    def upload(self, path: Path) -> None:
        """Put a file of the folder into the storage."""
        with self._asked(path) as url:
            try:
                self._files.put_file(str(path), url)
            except FileNotFoundError as error:
                if error.filename == str(path):
                    raise
                raise ConfigError(
                    f"data.storage.url: {url} cannot be written ({error}); make the bucket, or "
                    f"name another"
                ) from None

    def fetch_manifest(self) -> None:
        """Take over a dataset that was packed elsewhere: its indexes, then its manifest.

        What the storage says counts where the disk says otherwise.
        """
        try:
            with self._asked(self.paths.manifest) as url:
                content = self._files.cat_file(url)
        except DataError:  # not packed to its end yet
            return
        if self.paths.manifest.is_file() and self.paths.manifest.read_bytes() == content:
            return
        for split in SPLITS:
            self.download(self.paths.index(split))
        write_bytes(self.paths.manifest, content)

    def upload_manifest(self, manifest: Manifest) -> None:
        """Tell others that the dataset is whole: the manifest goes last."""
        for split in manifest.splits:
            self.upload(self.paths.index(split))
        self.upload(self.paths.manifest)

    @cached_property
    def _files(self) -> Any:
        """The file system of fsspec; its own file in a process, so this may be sent to another."""
        import fsspec  # noqa: PLC0415 - few datasets lie in a storage

        self.section.require_package()
        url = self.section.url
        if not url.startswith("file:"):
            return fsspec.core.url_to_fs(url)[0]
        files, folder = fsspec.core.url_to_fs(url, auto_mkdir=True)
        if not Path(folder).is_dir():  # perhaps not mounted: making it would fill this disk
            raise ConfigError(f"data.storage.url: {folder} is no folder; mount it, or make it")
        return files

    @contextmanager
    def _asked(self, path: Path) -> Iterator[str]:
        """The URL of a file; what goes wrong with it, as one of our errors."""
        url = self.url(path)
        try:
            yield url
        except (CardamageError, KeyboardInterrupt):
            raise
        except Exception as error:  # each storage has errors of its own
            of_disk = isinstance(error, OSError) and (
                error.filename is not None or error.errno in _OF_THIS_DISK
            )
            is_mounted = url.startswith("file:") and isinstance(error, FileNotFoundError)
            if of_disk and not is_mounted:
                raise
            raise self._told(url, error) from error

    def _told(self, url: str, error: Exception) -> CardamageError:
        kind, where = type(error).__name__, f"data.storage.url: {self.section.url}"
        match error:
            case FileNotFoundError():
                return DataError(f"{url} is not there; {REPACK}")
            case OSError(errno=errno.EINVAL):  # a range beyond its end
                return DataError(f"{url} has other bytes than were packed; {REPACK} --check")
        is_away = isinstance(error, OSError) and not isinstance(error, PermissionError)
        if is_away or any(word in kind for word in _AWAY):
            return MachineFault(
                f"{url} cannot be reached ({kind}: {error}); once it can, the same command resumes"
            )
        return ConfigError(
            f"{where} cannot be used ({kind}: {error}); mend the address, the region or the "
            f"credentials, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or ~/.aws"
        )


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
        if part == "info":  # small, and often all that is wanted
            return self.tars.read(self._tar(number), offset, offset + size)
        first, sample = self._fetched(number)
        return sample[offset - first :][:size]

    def close(self) -> None:
        """Close the tars."""
        self._open.cache_clear()
        self._fetched.cache_clear()

    def _fetch(self, number: int) -> tuple[int, bytes]:
        """Where a sample begins in its tar, and its parts, which lie side by side."""
        row = self._index[number]
        spans = {p: (int(row[f"{p}_offset"]), int(row[f"{p}_bytes"])) for p in PARTS}
        first = min(offset for offset, _ in spans.values())
        end = max(offset + size for offset, size in spans.values())
        content = self.tars.read(self._tar(number), first, end)
        is_right = all(
            zlib.crc32(content[offset - first :][:size]) == row[f"{part}_crc32"]
            for part, (offset, size) in spans.items()
        )
        if is_right and (kept := self._kept.get(int(row["shard"]))):
            try:
                tar = self._open(*kept)
                os.pwrite(tar.descriptor, content, first)
            except OSError as error:
                log.warning("%s: %s; nothing more is kept there", kept[0], error.strerror)
                self._kept = {}
        return first, content

    def _tar(self, number: int) -> Path:
        return self.tars.paths.shard(self._split, int(self._index[number]["shard"]))


class _KeptTar:
    """A tar of which a disk holds what was read so far; it closes when nothing refers to it."""

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if os.fstat(self.descriptor).st_size < size:
            os.ftruncate(self.descriptor, size)
        weakref.finalize(self, os.close, self.descriptor)
