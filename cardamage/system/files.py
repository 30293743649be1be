"""Publishing files: written aside, flushed to disk, then renamed into place.

A reader therefore sees a whole file or none, whatever kills the writer and whenever.
"""

import glob
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cardamage.errors import ConfigError
from cardamage.system.processes import birth

_PROBE_BYTES = 1 << 20


@contextmanager
def publish(path: Path, *, flushed: bool = True, makes_folder: bool = True) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; on success flush it to disk and rename it.

    The folder is made when it is not there, but not its parent: a run directory that has vanished
    is not made again in the middle of a run. The name aside holds the host and process id,
    so two writers of one file never meet; when the body raises, what was written aside is removed
    and ``path`` is left as it was.

    Args:
        path: the file.
        flushed: False where a crash of the machine may lose it, which saves some milliseconds.
        makes_folder: False for a file in the run directory itself, in the middle of a run.

    Raises:
        OSError: it cannot be written; the error names ``path``, also where a library that wrote
            for the body said nothing of the system's reason.
    """
    aside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        if makes_folder:
            path.parent.mkdir(exist_ok=True)
        yield aside
        if flushed:
            _flush(aside)
        aside.replace(path)
        if flushed:
            _flush(path.parent)
    except BaseException as error:
        reason = _reason(error, aside)
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        if reason is None:
            raise
        raise OSError(reason.errno, reason.strerror, str(path)) from error


def _reason(error: BaseException, aside: Path) -> OSError | None:
    """What the system said when writing ``aside`` failed; None when something else failed.

    PyTorch says of a full disk "iostream error" and the like: then the system is asked once more.
    """
    match error:
        case OSError(filename=None | "") if error.errno:
            return error
        case OSError():
            return error if str(error.filename) in (str(aside), str(aside.parent)) else None
        case RuntimeError():
            try:
                with aside.open("ab") as stream:
                    stream.write(bytes(_PROBE_BYTES))
                    stream.flush()
                    os.fsync(stream.fileno())
            except OSError as refused:
                return refused
    return None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name ``path`` in what the system says of an open file, which it does not know by name."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or not error.errno:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def remove_parts(folder: Path, host: str, pid: int) -> None:
    """Remove what a process that was killed had written aside, anywhere in ``folder``."""
    for part in folder.rglob(f".*.{glob.escape(host)}.{pid}.part"):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def remove_abandoned_parts(folder: Path) -> None:
    """Remove what processes of this machine that are gone had written aside, just in ``folder``."""
    for part in folder.glob(f".*.{glob.escape(socket.gethostname())}.*.part"):
        pid = part.suffixes[-2].removeprefix(".")
        if pid.isdecimal() and birth(int(pid)) is None:
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder beside ``folder`` to fill; on success rename it into place.

    When the body raises, what was filled is removed.

    Raises:
        ConfigError: ``folder`` is there and not an empty folder, or cannot be written.
    """
    folder = folder.absolute()
    aside = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not an empty folder; empty it or choose a new name")
        aside.mkdir(parents=True)
        yield aside
        aside.replace(folder)  # the system refuses if it was filled meanwhile
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); choose another"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_bytes(path: Path, content: bytes, **how: bool) -> None:
    """Publish ``content`` as ``path``; ``how`` as for :func:`publish`."""
    with publish(path, **how) as aside:
        aside.write_bytes(content)


def write_text(path: Path, content: str, **how: bool) -> None:
    """Publish ``content`` as ``path``, in UTF-8."""
    write_bytes(path, content.encode(), **how)


def write_json(path: Path, content: Any, **how: bool) -> None:
    """Publish ``content`` as indented JSON; NaN and infinity are refused with ValueError."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n", **how)


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of the file's bytes, read in pieces of 1 MiB."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
