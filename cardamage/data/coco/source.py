"""Reading the files of a COCO export, be it a folder or a .zip; nothing is ever extracted."""

from __future__ import annotations

import lzma
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from cardamage.data.coco.layout import Layout, Part, find_layout
from cardamage.data.coco.names import Matches, match_names
from cardamage.errors import UNFIT_FOR_TEXT, DataError, shown

MAX_FILE_BYTES = 1 << 30
"""A larger image or zip member is refused: no photo is, and a zip bomb would be."""

MAX_FILES = 10_000_000
"""A folder of more is refused: links that lead around in it make any number."""

HEALTHY = "healthy"
"""In the place of a split: the folder of photos without damage, and what their names begin with."""

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


class ImageSource:
    """The files of a COCO export, by split and name; see :mod:`cardamage.data.coco.layout`.

    An object of this class can be sent to another process, which then opens the archive itself,
    once. Links in folders are followed, those in archives are not.

    Args:
        annotations: annotation files by split, where several could be meant.
        healthy: a folder of photos without damage, read as the split :data:`HEALTHY`.

    Raises:
        DataError: ``source`` does not exist or is no readable archive.
    """

    def __init__(
        self,
        source: Path,
        annotations: Mapping[str, str] | None = None,
        *,
        layout: Layout | None = None,
        healthy: Path | None = None,
    ) -> None:
        self.source, self.healthy = source, healthy
        if not source.exists():
            counted = "" if source.is_absolute() else f" (the path counts from {Path.cwd()})"
            raise DataError(
                f"{source} does not exist; give a folder or a .zip of a COCO export{counted}"
            )
        self._chosen, self._layout = annotations, layout
        self._files: _Folder | _Zip | None = None
        self._names: set[str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _shared_source, (self.source, self.layout, self.healthy)

    @property
    def layout(self) -> Layout:
        """Where annotations and images lie.

        Raises:
            DataError: that cannot be told; see :func:`cardamage.data.coco.layout.find_layout`.
        """
        if self._layout is None:
            try:
                self._layout = find_layout(self._all(), self._content, self._chosen)
            except DataError as error:
                raise DataError(f"{self.source}: {error}") from None
        return self._layout

    def splits(self) -> set[str]:
        """Those of ``train``, ``valid`` and ``test`` that are there."""
        return {part.split for part in self.layout.parts}

    def part(self, split: str) -> Part:
        """Where a split lies.

        Raises:
            DataError: the source has no such split.
        """
        for part in self.layout.parts:
            if part.split == split:
                return part
        there = ", ".join(part.split for part in self.layout.parts)
        raise DataError(f"{self.source} has no split {split}; it has {there}")

    def names(self, split: str) -> set[str]:
        """The files of a split as POSIX paths relative to its folder; no annotations, no notes."""
        root = self.part(split).root
        left_out = {part.annotations for part in self.layout.parts} | {*self.layout.passed_over}
        inside = self._all() - left_out
        if root:
            inside = {name.removeprefix(root) for name in inside if name.startswith(root)}
        return {name for name in inside if not _NOTE.fullmatch(name)}

    def notes(self) -> dict[str, str]:
        """The texts at the top of the export by file name: ``README.roboflow.txt`` and the like.

        Raises:
            DataError: one cannot be read.
        """
        notes = {}
        tops = ["", *(part.base for part in self.layout.parts)]
        tops += [str(PurePosixPath(top).parent) + "/" for top in tops if "/" in top[:-1]]
        for path in sorted(self._all()):
            folder, slash, name = path.rpartition("/")
            is_note = folder + slash in tops and _NOTE.fullmatch(name)
            if is_note and self._opened().size(path) <= _MAX_NOTE_BYTES:
                notes[name] = self._content(path).decode("utf-8", errors="replace")
        return notes

    def annotations(self, split: str) -> bytes:
        """The content of a split's annotation file.

        Raises:
            DataError: it cannot be read.
        """
        return self._content(self.part(split).annotations)

    def match(self, split: str, listed: Iterable[str]) -> Matches:
        """The files, as :meth:`names` has them, that each ``file_name`` of a split means."""
        part = self.part(split)
        return match_names(listed, self.names(split), cut=part.root.removeprefix(part.base))

    def annotation_bytes(self) -> int:
        """How large the annotation files are together."""
        return sum(self._opened().size(part.annotations) for part in self.layout.parts)

    def size(self, split: str, file_name: str) -> int:
        """Bytes of a file.

        Raises:
            DataError: the file is missing, or its name is not safe.
        """
        path = self.part(split).root + safe_name(file_name)
        try:
            return self._opened().size(path)
        except (KeyError, OSError, RuntimeError):  # RuntimeError: links that lead to each other
            raise DataError(
                f"{self.source}: {path} is missing; copy it there or export the dataset again"
            ) from None

    def read(self, split: str, file_name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: the file is missing, unreadable or larger than :data:`MAX_FILE_BYTES`, or
                its name is not safe.
        """
        if split == HEALTHY:
            return self._photo_without_damage(safe_name(file_name).removeprefix(f"{HEALTHY}/"))
        path = self.part(split).root + safe_name(file_name)
        if self.size(split, file_name) > MAX_FILE_BYTES:
            raise DataError(
                f"{self.source}: {path} is larger than {MAX_FILE_BYTES >> 20} MiB, which no photo "
                f"is; remove it"
            )
        return self._content(path)  # of an archive no more comes than the size just compared

    def close(self) -> None:
        """Close the archive; it opens again when needed."""
        if self._files:
            self._files.close()
            self._files = None

    def _content(self, path: str) -> bytes:
        try:
            return self._opened().read(path)
        except (*_ZIP_FAULTS, KeyError) as error:
            raise DataError(
                f"{self.source}: {path} cannot be read ({_one_line(error)}); export or copy the "
                f"dataset again"
            ) from error

    def _photo_without_damage(self, name: str) -> bytes:
        path = self.healthy / name if self.healthy else Path(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"data.healthy: {path} cannot be read ({error.strerror})") from None

    def _all(self) -> set[str]:
        if self._names is None:
            self._names = {name for name in self._opened().names() if not _is_litter(name)}
        return self._names

    def _opened(self) -> _Folder | _Zip:
        if self._files is None:
            self._files = _Folder(self.source) if self.source.is_dir() else _Zip(self.source)
        return self._files


@lru_cache(maxsize=1)
def _shared_source(source: Path, layout: Layout, healthy: Path | None) -> ImageSource:
    """The one of a process of a pool: to read the list of a large archive takes a second."""
    return ImageSource(source, layout=layout, healthy=healthy)


def _is_litter(path: str) -> bool:
    """Whether a file is one that systems leave behind and no person put there."""
    *folders, name = path.split("/")
    return (
        name in (".DS_Store", "Thumbs.db", "desktop.ini")
        or name.startswith("._")
        or any(folder == "__MACOSX" or folder.startswith(".") for folder in folders)
    )


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> Iterator[str]:
        """Every file; a link to a folder is followed unless it leads to one around it."""
        waiting: list[tuple[Path, str, frozenset[str]]] = [(self._root, "", frozenset())]
        count = 0
        while waiting:
            folder, prefix, around = waiting.pop()
            around |= {os.path.realpath(folder)}
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    with suppress(OSError):  # links that lead to each other
                        if entry.is_file():  # not a pipe or a device, which would never end
                            yield prefix + entry.name
                        elif entry.is_dir() and not (
                            entry.name.startswith(".")
                            or (entry.is_symlink() and os.path.realpath(entry.path) in around)
                        ):
                            waiting.append((Path(entry.path), f"{prefix}{entry.name}/", around))
            if count > MAX_FILES:
                raise DataError(
                    f"{self._root} holds more than {MAX_FILES:,} files; name the folder of the "
                    f"dataset itself, and remove links that lead around in it"
                )

    def size(self, path: str) -> int:
        found = self._root / path
        if not found.is_file():
            raise FileNotFoundError(found)
        return found.stat().st_size

    def read(self, path: str) -> bytes:
        return (self._root / path).read_bytes()

    def close(self) -> None:
        pass


class _Zip:
    def __init__(self, path: Path) -> None:
        try:
            self._archive = zipfile.ZipFile(path)
        except _ZIP_FAULTS as error:
            raise DataError(
                f"{path} is not a folder and cannot be read as a .zip ({_one_line(error)}); "
                f"download or export it again"
            ) from error
        named = ((_entry_name(entry), entry) for entry in self._archive.infolist())
        self._entries = {name: entry for name, entry in named if not name.endswith("/")}

    def names(self) -> Iterable[str]:
        return [name for name in self._entries if _stays_inside(name)]

    def size(self, path: str) -> int:
        return self._entries[path].file_size

    def read(self, path: str) -> bytes:
        return self._archive.read(self._entries[path])

    def close(self) -> None:
        self._archive.close()


def _entry_name(entry: zipfile.ZipInfo) -> str:
    """The name inside the archive; some programs write UTF-8 without saying so, or backslashes."""
    name = entry.filename
    if not entry.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/").removeprefix("./")


def _stays_inside(name: str) -> bool:
    try:
        return safe_name(name) == name
    except DataError:
        return False


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
