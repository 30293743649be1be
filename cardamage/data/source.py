"""Reading the files of a COCO export, be it a folder or a .zip; nothing is ever extracted."""

from __future__ import annotations

import io
import lzma
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from cardamage.errors import DataError
from cardamage.paths import SPLITS
from cardamage.plain_text import UNFIT_FOR_TEXT

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc has it from Python 3.12

ANNOTATIONS = "_annotations.coco.json"
"""The file of each split that lists its images, annotations and categories."""

MAX_FILE_BYTES = 1 << 30
"""A larger image or zip member is refused: no photo is, and a zip bomb would be."""

MAX_PIXELS = 200_000_000
"""A larger image is refused: no camera makes one, and a decompression bomb would."""

_NOTE = re.compile(r"README[^/]*\.txt", re.IGNORECASE)
_MAX_NOTE_BYTES = 1 << 20

# What zipfile and its decompressors raise on archives that are damaged, encrypted or exotic.
_ZIP_FAULTS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    IndexError,
    OverflowError,
    struct.error,
)


MAX_SIDE = 65_535
"""A longer image is refused: no JPEG can be, and painting takes time by the side too."""


def safe_name(file_name: str) -> str:
    """``file_name`` as a relative POSIX path that stays inside its split's folder.

    Raises:
        DataError: the name is empty, absolute, climbs (``..``), or holds a backslash, a drive
            letter or a control character.
    """
    parts = PurePosixPath(file_name).parts
    unsafe = (
        not parts
        or file_name.startswith("/")
        or ".." in parts
        or "\\" in file_name
        or re.match(r"[A-Za-z]:", file_name) is not None
        or UNFIT_FOR_TEXT.search(file_name) is not None
    )
    if unsafe:
        raise DataError(
            f"file_name {shown(file_name)} leaves its split's folder or is no portable path; "
            f"give a relative path with forward slashes"
        )
    return PurePosixPath(*parts).as_posix()


def shown(value: object) -> str:
    """``value`` quoted for a message: on one line, and not longer than 100 characters."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


class ImageSource:
    """The files of a COCO export, by split and name.

    A .zip may hold one folder around ``train/``, ``valid/`` and ``test/``. An export without these
    folders, its annotation file and its images in one place, is one with a train split only. An
    object of this class can be sent to another process, which then opens the archive itself.

    Args:
        source: the folder or the .zip.

    Raises:
        DataError: ``source`` does not exist or is no readable archive.
    """

    def __init__(self, source: Path) -> None:
        self.source = source
        if not source.exists():
            counted = "" if source.is_absolute() else f" (the path counts from {Path.cwd()})"
            raise DataError(
                f"{source} does not exist; give a folder or a .zip that holds "
                f"{', '.join(f'{split}/' for split in SPLITS)}{counted}"
            )
        self._files: _Folder | _Zip | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"source": self.source, "_files": None}

    def splits(self) -> set[str]:
        """Those of ``train``, ``valid`` and ``test`` that are there."""
        return self._opened().splits()

    def names(self, split: str) -> set[str]:
        """The files of a split as POSIX paths relative to its folder; no annotations, no notes."""
        names = self._opened().names(split)
        return {name for name in names if name != ANNOTATIONS and not _NOTE.fullmatch(name)}

    def notes(self) -> dict[str, str]:
        """The texts beside the splits by file name: ``README.roboflow.txt`` and the like.

        Raises:
            DataError: one cannot be read.
        """
        try:
            return self._opened().notes()
        except _ZIP_FAULTS as error:
            raise _unreadable(str(self.source), error) from error

    def size(self, split: str, file_name: str) -> int:
        """Bytes of a file.

        Raises:
            DataError: the file is missing, or its name is not safe.
        """
        return self._opened().size(split, safe_name(file_name))

    def read(self, split: str, file_name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: the file is missing, unreadable or larger than :data:`MAX_FILE_BYTES`, or
                its name is not safe.
        """
        if self.size(split, file_name) > MAX_FILE_BYTES:
            raise _too_large(split, file_name)
        with self.open(split, file_name) as stream:
            return stream.read()

    def open(self, split: str, file_name: str) -> io.BufferedReader:
        """A file opened for reading; reading it raises DataError where disk or archive fail.

        Raises:
            DataError: the file is missing or unreadable, or its name is not safe.
        """
        name = safe_name(file_name)
        shown_name = f"{self.source}: {split}/{name}"
        try:
            stream = self._opened().open(split, name)
        except _ZIP_FAULTS as error:
            raise _unreadable(shown_name, error) from error
        return io.BufferedReader(_Careful(stream, shown_name))

    def close(self) -> None:
        """Close the archive; it opens again when needed."""
        if self._files:
            self._files.close()
            self._files = None

    def _opened(self) -> _Folder | _Zip:
        if self._files is None:
            self._files = _Folder(self.source) if self.source.is_dir() else _Zip(self.source)
        return self._files


class _Careful(io.RawIOBase):
    """A stream whose failures name the file."""

    def __init__(self, stream: IO[bytes], shown_name: str) -> None:
        self._stream, self._shown_name = stream, shown_name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        into = memoryview(buffer).cast("B")
        try:
            content = self._stream.read(len(into))
        except _ZIP_FAULTS as error:
            raise _unreadable(self._shown_name, error) from error
        into[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root
        found = {split: root / split for split in SPLITS if (root / split).is_dir()}
        if not found and (root / ANNOTATIONS).is_file():
            found = {"train": root}
        self._folders = found

    def splits(self) -> set[str]:
        return set(self._folders)

    def notes(self) -> dict[str, str]:
        return {
            path.name: path.read_text(encoding="utf-8", errors="replace")
            for path in sorted(self._root.iterdir())
            if _NOTE.fullmatch(path.name)
            and path.is_file()
            and path.stat().st_size <= _MAX_NOTE_BYTES
        }

    def names(self, split: str) -> set[str]:
        root = self._folder(split)
        return {
            (Path(folder) / name).relative_to(root).as_posix()
            for folder, _, names in os.walk(root)
            for name in names
        }

    def size(self, split: str, name: str) -> int:
        path = self._folder(split) / name
        try:
            is_file = path.is_file()  # not a pipe or a device, which would never end
            inside = path.resolve().is_relative_to(self._folder(split).resolve())
            size = path.stat().st_size if is_file else 0
        except (OSError, RuntimeError):  # RuntimeError: links that lead to each other
            is_file = False
        if not is_file:
            raise _missing(self._root, split, name)
        if not inside:
            raise DataError(
                f"{self._root}: {split}/{name} is a link that leads out of its split's folder; "
                f"put the file itself there"
            )
        return size

    def open(self, split: str, name: str) -> IO[bytes]:
        self.size(split, name)
        return (self._folder(split) / name).open("rb")

    def close(self) -> None:
        pass

    def _folder(self, split: str) -> Path:
        return self._folders.get(split, self._root / split)


class _Zip:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except _ZIP_FAULTS as error:
            raise DataError(
                f"{path} is not a folder and cannot be read as a .zip ({_one_line(error)}); "
                f"download or export it again"
            ) from error
        entries = {
            _entry_name(e): e for e in self._archive.infolist() if not e.filename.endswith("/")
        }
        prefix = _folder_around(entries)
        inside = {
            name.removeprefix(prefix): entry
            for name, entry in entries.items()
            if name.startswith(prefix)
        }
        self._notes = {name: entry for name, entry in inside.items() if _NOTE.fullmatch(name)}
        self._entries: dict[str, dict[str, zipfile.ZipInfo]] = {}
        for name, entry in inside.items():
            split, _, rest = name.partition("/")
            if split in SPLITS and rest:
                self._entries.setdefault(split, {})[rest] = entry
        if not self._entries and ANNOTATIONS in inside:
            self._entries = {"train": inside}

    def splits(self) -> set[str]:
        return set(self._entries)

    def notes(self) -> dict[str, str]:
        return {
            name: self._archive.read(entry).decode("utf-8", errors="replace")
            for name, entry in sorted(self._notes.items())
            if entry.file_size <= _MAX_NOTE_BYTES
        }

    def names(self, split: str) -> set[str]:
        return set(self._entries.get(split, {}))

    def size(self, split: str, name: str) -> int:
        return self._entry(split, name).file_size

    def open(self, split: str, name: str) -> IO[bytes]:
        entry = self._entry(split, name)
        if entry.file_size > MAX_FILE_BYTES:
            raise _too_large(split, name)
        # zipfile hands out no more than the size it declares, so the check above holds.
        return self._archive.open(entry)

    def close(self) -> None:
        self._archive.close()

    def _entry(self, split: str, name: str) -> zipfile.ZipInfo:
        try:
            return self._entries[split][name]
        except KeyError:
            raise _missing(self._path, split, name) from None


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """The name inside the archive; some programs write UTF-8 without saying so."""
    if not entry.flag_bits & 0x800:
        try:
            return entry.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return entry.filename


def _folder_around(names: dict[str, zipfile.ZipInfo]) -> str:
    """The one folder around the splits, or around an export without, with its slash; or nothing."""
    if ANNOTATIONS in names or any(name.split("/")[0] in SPLITS for name in names):
        return ""
    paths = [name.split("/") for name in names]
    around = {parts[0] for parts in paths if len(parts) > 2 and parts[1] in SPLITS}
    around = around or {parts[0] for parts in paths if parts[1:] == [ANNOTATIONS]}
    around.discard("__MACOSX")
    return f"{around.pop()}/" if len(around) == 1 else ""


def _missing(source: Path, split: str, name: str) -> DataError:
    return DataError(
        f"{source}: {split}/{name} is missing; copy it there or export the dataset again"
    )


def _unreadable(shown_name: str, error: Exception) -> DataError:
    return DataError(
        f"{shown_name} cannot be read ({_one_line(error)}); export or copy the dataset again"
    )


def _too_large(split: str, name: str) -> DataError:
    return DataError(
        f"{split}/{name} is larger than {MAX_FILE_BYTES >> 20} MiB, which no photo is; remove it"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
