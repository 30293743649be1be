"""The code that runs is the code that was submitted: copies of the tree inside run directories.

A snapshot is a folder ``<run>/code/<hash>``. Its name comes from its content, so submitting the
same code again makes no second copy, and submitting other code leaves alone what a queued job is
going to read.
"""

import hashlib
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cardamage.errors import RunError
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import CODE, ORIGIN, git, git_state
from cardamage.runs.stages import now
from cardamage.system.files import naming, write_json

MAX_BYTES = 100 << 20
"""Larger trees are refused: they hold data that nobody meant to copy with every submission."""

_PROJECT = ("cardamage", "jobs", "launch", "configs", "pyproject.toml")

_Entry = tuple[str, bytes]  # "file" or "program" and its content, or "link" and its target


def take_snapshot(run: RunPaths, tree: Path = CODE, found: Mapping[str, Any] | None = None) -> Path:
    """Copy the project's code, as it is now, to ``<run>/code/<hash>``; returns that folder.

    In a git repository these are the tracked files as they stand in the working tree and the
    untracked ones that are not ignored; in a clone without git what a clone has, and where the
    package is installed that alone. Run directories and shards are left out. Links that stay
    inside the tree stay links; of links that leave it, files are copied and folders are linked to
    where they are. To be called before the run directories of the submission are made.
    ``found`` is what ``provenance(tree)`` returned, to ask git once.

    Raises:
        RunError: the tree is too large, the run directory cannot be written, or an earlier
            snapshot of the same code was changed since.
    """
    with _storage_errors(tree, run):
        entries = _read(tree, run)
        content_hash = _hash(entries)
        origin = {
            "hash": content_hash,
            "tree": str(tree.resolve()),
            "taken": now(),
            "git": found["git"] if found else git_state(tree),
        }
        folder = _beside(run.code / "snapshot")
        try:
            folder.mkdir(parents=True)
            for name, entry in entries.items():
                with naming(Path(name)):
                    _write(folder / name, *entry)
            write_json(folder / ORIGIN, origin)
            snapshot = run.code / content_hash[:12]
            if snapshot.is_symlink() and not snapshot.exists():  # its target was deleted
                snapshot.unlink()
            try:
                folder.replace(snapshot)
            except OSError:
                if not snapshot.exists():
                    raise
                _check_unchanged(snapshot, run, content_hash)
            return snapshot
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def name_snapshot(run: RunPaths, tree: Path = CODE) -> str:
    """The name that the snapshot would have of the code as it is now; writes nothing."""
    with _storage_errors(tree, run):
        return _hash(_read(tree, run))[:12]


def share_snapshot(snapshot: Path, run: RunPaths) -> Path:
    """Give a run the snapshot of another folder as a link in its ``code`` folder; returns the link.

    Raises:
        RunError: the link cannot be made, or the run's own snapshot of that code was changed.
    """
    link = run.code / snapshot.name
    if link.is_dir() and not link.is_symlink():  # it has its own, by an earlier submission
        _check_unchanged(link, run, _hash(_read(snapshot, run)))
        return link
    aside = _beside(link)
    with _storage_errors(snapshot, run):
        run.code.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        aside.symlink_to(os.path.relpath(snapshot.resolve(), run.code.resolve()))
        aside.replace(link)  # so that there is one at any moment
    return link


@contextmanager
def _storage_errors(tree: Path, run: RunPaths) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{tree}: the code cannot be copied to {run.code} ({error.strerror}: "
            f"{error.filename}); choose another place with --runs-dir"
        ) from None


def _read(tree: Path, run: RunPaths) -> dict[str, _Entry]:
    """What a snapshot of the tree holds, by name relative to it.

    Whole in memory: what is hashed is then what is written, whoever edits the tree meanwhile.
    """
    tree = tree.resolve()
    names = _names(tree, run)
    sizes = {name: (tree / name).stat().st_size for name in names if (tree / name).is_file()}
    if (size := sum(sizes.values())) > MAX_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise RunError(
            f"{tree}: the code to be copied with a submission is {size / 2**20:.0f} MiB in "
            f"{len(names)} files, and may be {MAX_BYTES >> 20} MiB; the largest is {largest} "
            f"({sizes[largest] / 2**20:.0f} MiB): name what is no code in .gitignore, or move it "
            f"elsewhere"
        )
    return {name: _entry(tree, name, names) for name in names}


def _names(tree: Path, run: RunPaths) -> list[str]:
    """Files and links to copy; what this project's programs made in the tree is no code."""
    if (tree / ORIGIN).is_file():  # a snapshot
        names = _walked(tree, ["."])
    elif (tree / "pyproject.toml").is_file():
        names = _listed(tree) or _walked(tree, _PROJECT)
    else:  # a repository around site-packages says nothing of what is installed there
        names = _walked(tree, ["cardamage"])
    folders = {folder for name in names for folder in (tree / name).parents}
    made = {folder for folder in folders if _is_made(folder)} | {run.root.resolve()}
    made -= {tree, *tree.parents}
    there = (name for name in names if made.isdisjoint((tree / name).parents))
    # Git still lists what the working tree has no more.
    return [name for name in there if (tree / name).is_symlink() or (tree / name).is_file()]


def _is_made(folder: Path) -> bool:
    """Whether a folder is a run, a study or a packed dataset."""
    if (folder / "config.yaml").is_file() and (folder / "provenance.json").is_file():
        return True
    is_packed = (folder / "manifest.json").is_file() and any(folder.glob("*/index.npy"))
    return is_packed or (folder / "study.json").is_file()


def _listed(tree: Path) -> list[str]:
    """What git lists, and in its submodules too; empty where git does not know the tree."""
    listing = git(tree, "ls-files", "-co", "--exclude-standard", "-z") or b""
    names: list[str] = []
    for name in os.fsdecode(listing).split("\0"):
        inner = tree / name
        if name and inner.is_dir() and not inner.is_symlink():  # a repository in the repository
            if (inner / ".git").exists():
                names += [f"{name.rstrip('/')}/{below}" for below in _listed(inner)]
        elif name and inner.name != ORIGIN:
            names.append(name)
    return names


def _walked(tree: Path, roots: Sequence[str]) -> list[str]:
    """What lies under some folders of a tree that git does not know; a root may be a file."""
    found = (path for root in roots for path in (tree / root, *(tree / root).rglob("*")))
    return [
        path.relative_to(tree).as_posix()
        for path in found
        if (path.is_file() or path.is_symlink())
        and path.name != ORIGIN
        and "__pycache__" not in path.relative_to(tree).parts
    ]


def _entry(tree: Path, name: str, names: Iterable[str]) -> _Entry:
    """What stands for a name: of a file, and of a link to one, the content.

    Of other links it is where the copy leads: to the copy of the target, or else to that itself.
    """
    path = tree / name
    if path.is_file():
        return "program" if path.stat().st_mode & 0o100 else "file", path.read_bytes()
    target = os.path.realpath(path)
    if any((tree / other).is_relative_to(target) for other in names):
        target = os.path.relpath(target, path.parent)
    return "link", os.fsencode(target)


def _write(path: Path, kind: str, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(os.fsdecode(content))
        return
    path.write_bytes(content)
    if kind == "program":
        path.chmod(path.stat().st_mode | 0o111)


def _hash(entries: Mapping[str, _Entry]) -> str:
    """Hex SHA-256 over the names, in order, and what they stand for."""
    total = hashlib.sha256()
    for name, (kind, content) in sorted(entries.items()):
        known = content if kind == "link" else hashlib.sha256(content).hexdigest().encode()
        total.update(b"%b\0%b %b\0" % (os.fsencode(name), kind.encode(), known))
    return total.hexdigest()


def _check_unchanged(snapshot: Path, run: RunPaths, expected: str) -> None:
    if _hash(_read(snapshot, run)) != expected:
        raise RunError(
            f"{snapshot} was changed after it was taken from the code; delete it, or make the "
            f"change in the tree you submit from"
        )


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
