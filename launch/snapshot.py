"""The code that runs is the code that was submitted: copies of the tree inside run directories.

A snapshot is a folder ``<run>/code/<hash>``. Its name comes from its content, so submitting the
same code again makes no second copy, and submitting other code leaves alone what a queued job is
going to read.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from cardamage.errors import RunError
from cardamage.files import naming, write_json
from cardamage.paths import RunPaths
from cardamage.provenance import CODE, ORIGIN, git, git_state
from cardamage.stages import now

MAX_BYTES = 100 << 20
"""Larger trees are refused: they hold data that nobody meant to copy with every submission."""

MAX_FILES = 20_000
"""Most files of a tree, for the same reason."""

PROJECT = ("cardamage", "jobs", "launch", "configs", "pyproject.toml")
"""What is copied where git does not tell which files belong to the project."""

_HASH_CHARACTERS = 12


def take_snapshot(run: RunPaths, tree: Path = CODE, found: Mapping[str, Any] | None = None) -> Path:
    """Copy the project's code, as it is now, to ``<run>/code/<hash>``; returns that folder.

    In a git repository these are the tracked files as they stand in the working tree and the
    untracked ones that are not ignored; elsewhere :data:`PROJECT`. Run directories and shards are
    left out. Links that stay inside the tree stay links; of links that leave it, files are copied
    and folders are linked to where they are. To be called before the run directories of the
    submission are made.

    Args:
        run: the run; its directory need not exist.
        tree: what is copied.
        found: what ``provenance(tree)`` returned, to ask git once.

    Raises:
        RunError: the tree is too large, the run directory cannot be written, or an earlier
            snapshot of the same code was changed since.
    """
    tree = tree.resolve()
    try:
        entries = _entries(tree, run.root.resolve())
        _check_size(tree, entries)
        with _aside(run.code) as folder:
            content_hash = _sum({name: _copy(tree, name, folder, entries) for name in entries})
            origin = {
                "hash": content_hash,
                "tree": str(tree),
                "taken": now(),
                "git": found["git"] if found else git_state(tree),
            }
            write_json(folder / ORIGIN, origin)
            return _publish(folder, run.code / content_hash[:_HASH_CHARACTERS], content_hash)
    except OSError as error:
        raise RunError(
            f"{tree}: the code cannot be copied to {run.code} ({error.strerror}: "
            f"{error.filename}); choose another place with --runs-dir"
        ) from None


def name_snapshot(run: RunPaths, tree: Path = CODE) -> Path:
    """Where :func:`take_snapshot` would put the code as it is now; writes nothing.

    Raises:
        RunError: the tree is too large, or cannot be read.
    """
    tree = tree.resolve()
    try:
        entries = _entries(tree, run.root.resolve())
        _check_size(tree, entries)
        content_hash = _sum({name: _stand_in(tree, name, entries) for name in entries})
    except OSError as error:
        raise RunError(
            f"{tree}: the code cannot be read ({error.strerror}: {error.filename})"
        ) from None
    return run.code / content_hash[:_HASH_CHARACTERS]


def share_snapshot(snapshot: Path, run: RunPaths) -> Path:
    """Give a run the snapshot of another folder as a link in its ``code`` folder; returns the link.

    Args:
        snapshot: what :func:`take_snapshot` returned for another folder of the same submission.
        run: the run; its directory need not exist.

    Raises:
        RunError: the link cannot be made.
    """
    link = run.code / snapshot.name
    if link.is_dir() and not link.is_symlink():  # it has its own, by an earlier submission
        _check_unchanged(link, _hash(snapshot))
        return link
    target = os.path.relpath(snapshot.resolve(), run.code.resolve())
    try:
        run.code.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(target, target_is_directory=True)
        except FileExistsError:
            _replace(link, target)
    except OSError as error:
        raise RunError(
            f"{link} cannot be made ({error.strerror}); choose another place with --runs-dir"
        ) from None
    return link


def _replace(link: Path, target: str) -> None:
    """Let a link lead elsewhere, so that there is one at any moment."""
    if link.is_symlink() and str(link.readlink()) == target:
        return
    aside = _beside(link)
    aside.unlink(missing_ok=True)
    aside.symlink_to(target, target_is_directory=True)
    aside.replace(link)


def _entries(tree: Path, run: Path) -> dict[str, os.stat_result]:
    """Files and links to copy, by name relative to the tree."""
    is_snapshot = (tree / ORIGIN).is_file()
    names = _walked(tree, ["."]) if is_snapshot else _listed(tree) or _walked(tree, PROJECT)
    entries: dict[str, os.stat_result] = {}
    made = _made_here(names, str(run.relative_to(tree)) if run.is_relative_to(tree) else "")
    for name in names:
        if not made.isdisjoint(map(str, PurePosixPath(name).parents)):
            continue
        try:
            status = (tree / name).lstat()
        except FileNotFoundError:  # git still has it, the working tree does not
            continue
        if stat.S_ISLNK(status.st_mode) and (tree / name).is_file():
            entries[name] = (tree / name).stat()
        elif stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            entries[name] = status
    return entries


def _listed(tree: Path, prefix: str = "") -> list[str]:
    """What git lists, and in its submodules too; empty where git does not know the tree."""
    listing = git(tree, "ls-files", "-co", "--exclude-standard", "-z")
    if listing is None:
        return []
    names: list[str] = []
    for raw in listing.split(b"\0"):
        name = os.fsdecode(raw).rstrip("/")
        inner = tree / name
        if name and inner.is_dir() and not inner.is_symlink():  # a repository in the repository
            if (inner / ".git").exists():
                names += _listed(inner, f"{prefix}{name}/")
        elif name and PurePosixPath(name).name != ORIGIN:
            names.append(prefix + name)
    return names


def _walked(tree: Path, roots: Sequence[str]) -> list[str]:
    """What lies under some folders of a tree that git does not know; a root may be a file."""
    names = [name for name in roots if (tree / name).is_file()]
    for root in roots:
        for folder, subfolders, files in os.walk(tree / root):
            links = [name for name in subfolders if Path(folder, name).is_symlink()]
            subfolders[:] = [s for s in subfolders if s not in ("__pycache__", *links)]
            found = (Path(folder, name).relative_to(tree) for name in (*files, *links))
            names += [path.as_posix() for path in found if path.name != ORIGIN]
    return names


def _made_here(names: Iterable[str], run: str) -> set[str]:
    """Folders of the tree that this project's programs made: runs, shards, snapshots."""
    beside: dict[str, set[str]] = {}
    for name in names:
        parent, _, base = name.rpartition("/")
        beside.setdefault(base, set()).add(parent)
    of_runs = beside.get("config.yaml", set()) & beside.get("provenance.json", set())
    indexed = {parent.rpartition("/")[0] for parent in beside.get("index.npy", set())}
    of_shards = beside.get("manifest.json", set()) & indexed
    found = of_runs | of_shards | beside.get("study.json", set()) | {run}
    return found - {"", "."}  # never the tree itself


def _check_size(tree: Path, entries: Mapping[str, os.stat_result]) -> None:
    size = sum(status.st_size for status in entries.values())
    if size <= MAX_BYTES and len(entries) <= MAX_FILES:
        return
    largest = max(entries, key=lambda name: entries[name].st_size)
    raise RunError(
        f"{tree}: the code to be copied with a submission is {size / 2**20:.0f} MiB in "
        f"{len(entries)} files, and may be {MAX_BYTES >> 20} MiB in {MAX_FILES}; the largest is "
        f"{largest} ({entries[largest].st_size / 2**20:.0f} MiB): name what is no code in "
        f".gitignore, or move it elsewhere"
    )


def _copy(tree: Path, name: str, folder: Path, entries: Mapping[str, os.stat_result]) -> str:
    """Copy one entry; returns what stands for it in the hash."""
    source, copy = tree / name, folder / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() and (target := _target(tree, source, entries)):
        copy.symlink_to(target)
        return f"link {target}"
    content = source.read_bytes()
    is_program = bool(source.stat().st_mode & 0o100)
    with naming(Path(name)):
        copy.write_bytes(content)
    if is_program:
        copy.chmod(copy.stat().st_mode | 0o111)
    return _content(content, is_program=is_program)


def _stand_in(tree: Path, name: str, entries: Mapping[str, os.stat_result]) -> str:
    """What stands for an entry in the hash."""
    source = tree / name
    if source.is_symlink() and (target := _target(tree, source, entries)):
        return f"link {target}"
    is_program = bool(source.stat().st_mode & 0o100)
    return _content(source.read_bytes(), is_program=is_program)


def _target(tree: Path, link: Path, entries: Mapping[str, os.stat_result]) -> str | None:
    """Where the copy of a link leads: to the copy of its target, or else to the target itself.

    None for a file that is not copied: its content stands in for the link.
    """
    target = Path(os.path.realpath(link))
    if target.is_relative_to(tree):
        inside = target.relative_to(tree).as_posix()
        if inside in entries or any(name.startswith(f"{inside}/") for name in entries):
            return os.path.relpath(target, os.path.realpath(link.parent))
    return None if target.is_file() else str(target)


def _content(content: bytes, *, is_program: bool) -> str:
    return f"{'program' if is_program else 'file'} {hashlib.sha256(content).hexdigest()}"


def _publish(folder: Path, snapshot: Path, expected: str) -> Path:
    """Rename a filled folder to its name, or keep the equal one that has it already."""
    if snapshot.is_symlink() and not snapshot.exists():  # its target was deleted
        snapshot.unlink()
    if not snapshot.exists():
        try:
            folder.replace(snapshot)
        except OSError:
            if not snapshot.exists():
                raise
    else:
        _check_unchanged(snapshot, expected)
    return snapshot


def _check_unchanged(snapshot: Path, expected: str) -> None:
    if _hash(snapshot) != expected:
        raise RunError(
            f"{snapshot} was changed after it was taken from the code; delete it, or make the "
            f"change in the tree you submit from"
        )


def _hash(snapshot: Path) -> str:
    """The hash of a snapshot as it is now; what Python caches in it does not count."""
    found: dict[str, str] = {}
    for name in _walked(snapshot, ["."]):
        path = snapshot / name
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        else:
            is_program = bool(path.stat().st_mode & 0o100)
            found[name] = _content(path.read_bytes(), is_program=is_program)
    return _sum(found)


def _sum(contents: Mapping[str, str]) -> str:
    """Hex SHA-256 of what stands for each entry, in the order of their names."""
    text = "".join(f"{name}\0{contents[name]}\0" for name in sorted(contents))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def _aside(code: Path) -> Iterator[Path]:
    """A folder to fill inside ``code``, removed unless it was renamed."""
    folder = _beside(code / "snapshot")
    try:
        folder.mkdir(parents=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
