"""Where things lie in a COCO export, whoever wrote it: annotation files, splits, image folders.

Annotation files are found by what they hold, splits by the words in the names of files and folders,
and the images of a file in its own folder or, where that has none, beside it. Roboflow's
``_annotations.coco.json`` is taken by its name, and nothing beside it is opened.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from cardamage.errors import DataError, did_you_mean
from cardamage.runs.paths import SPLITS

ANNOTATIONS = "_annotations.coco.json"
"""What Roboflow calls the annotation file of each split, and so do we."""

IMAGE_ENDINGS = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Endings of the files that count as photos, in lower case."""

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_LISTS = [re.compile(rb'"%s"\s*:\s*\[' % key) for key in (b"images", b"annotations", b"categories")]
_PANOPTIC = re.compile(rb'"segments_info"\s*:')
_KEYPOINTS = re.compile(rb'"keypoints"\s*:')


@dataclass(frozen=True)
class Part:
    """One split as it lies in the source; folders end with a slash, the source itself is ``""``.

    Attributes:
        split: ``train``, ``valid`` or ``test``.
        annotations: the path of its annotation file.
        base: the folder around annotations and images, which file names may count from.
        root: the folder of its images, in ``base``; other splits' may lie there too.
    """

    split: str
    annotations: str
    base: str
    root: str


@dataclass(frozen=True)
class Layout:
    """What an export consists of.

    Attributes:
        parts: in the order train, valid, test; a file without a split is train.
        bare: folders of splits in Roboflow's layout that lack their annotation file, by split.
        unused: folders of images that no annotation file is about.
        passed_over: annotation files that were left aside, since others were chosen.
    """

    parts: tuple[Part, ...]
    bare: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()

    @property
    def is_roboflow(self) -> bool:
        """Whether all is called and lies as Roboflow has it."""
        return all(part.annotations == f"{part.root}{ANNOTATIONS}" for part in self.parts)


def find_layout(
    names: Collection[str],
    read: Callable[[str], bytes],
    chosen: Mapping[str, str] | None = None,
) -> Layout:
    """The layout of an export.

    Args:
        names: every file, as POSIX paths from the export's top.
        read: gives the content of one of them.
        chosen: annotation files by split, where several could be meant.

    Raises:
        DataError: there is no annotation file, or one that is chosen is missing; several could be
            meant for a split; or one is of no split while others are.
    """
    chosen = dict(chosen or {})
    if absent := next((path for path in chosen.values() if path not in names), None):
        listed = [name for name in names if name.lower().endswith(".json")]
        raise DataError(
            f"{absent}, which data.annotations names, is not there"
            f"{did_you_mean(absent, listed)}; give the path of a file from the top of the source"
        )
    folders = {_folder(name) for name in names if name.lower().endswith(IMAGE_ENDINGS)}
    found = _candidates(names, read, set(chosen.values()))
    by_split: dict[str | None, list[str]] = {split: [path] for split, path in chosen.items()}
    around = _around([*found, *(f"{folder}x" for folder in folders)])
    for path in found:
        split = _split_of(path.removeprefix(around))
        if split not in chosen:
            by_split.setdefault(split, []).append(path)
    without = by_split.pop(None, [])
    if not by_split and len(without) > 1:
        raise DataError(_choose(without, "train"))
    if not chosen and len(found) == 1:
        by_split, without = {"train": found}, []
    if without and by_split and not chosen:
        others = ", ".join(f"{split}: {paths[0]}" for split, paths in by_split.items())
        raise DataError(
            f"annotation file without a split, beside others that have one: {', '.join(without)}; "
            f"call its folder train, valid or test, or name the files to use: "
            f"data.annotations: {{{others}}}"
        )
    if not by_split:
        by_split = {"train": without}
    for split, paths in by_split.items():
        if len(paths) > 1:
            raise DataError(f"{split}: {_choose(paths, str(split))}")
    parts = tuple(
        _part(split, by_split[split][0], folders, around, alone=len(by_split) == 1)
        for split in SPLITS
        if split in by_split
    )
    bare = tuple(_bare(parts, names))
    roots = (*(part.root for part in parts), *(folder for _, folder in bare))
    unused = sorted(folder for folder in folders if not folder.startswith(roots))
    taken = {part.annotations for part in parts}
    return Layout(
        parts,
        bare=bare,
        unused=tuple(unused),
        passed_over=tuple(path for path in found if path not in taken),
    )


def holds_instances(text: bytes) -> bool:
    """Whether a JSON text looks like a COCO file of instances; it is searched and not parsed.

    A panoptic file, captions, a list of images and any other JSON do not.
    """
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = text.decode("utf-16", errors="ignore").encode(errors="ignore")
    return all(key.search(text) for key in _LISTS) and not _PANOPTIC.search(text)


def split_word(name: str) -> str | None:
    """The split that a name speaks of, such as ``instances_val2017``; None for none or several."""
    found = {_WORDS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else None


def _candidates(
    names: Collection[str], read: Callable[[str], bytes], chosen: Collection[str]
) -> list[str]:
    """The annotation files, by path."""
    listed = [name for name in names if name.lower().endswith(".json")]
    named = {name for name in listed if PurePosixPath(name).name == ANNOTATIONS}
    settled = {_folder(name) for name in named}
    photos = {PurePosixPath(n).stem for n in names if n.lower().endswith(IMAGE_ENDINGS)}
    found, looked_at = set(named), []
    keypoints: set[str] = set()
    for name in listed:
        # Beside Roboflow's file nothing else counts; a file called like a photo is about that one.
        if _folder(name) in settled or PurePosixPath(name).stem in photos or name in chosen:
            continue
        text = read(name)
        looked_at.append(f"{name} (panoptic)" if _PANOPTIC.search(text) else name)
        if holds_instances(text):
            (keypoints if _KEYPOINTS.search(text) else found).add(name)
    found = (found or keypoints) | set(chosen)
    if not found:
        looked = f"; it has {', '.join(sorted(looked_at)[:5])}" if looked_at else ""
        raise DataError(
            f"holds no COCO annotation file, which is a .json with images, annotations and "
            f"categories{looked}; export the dataset as COCO instances or COCO segmentation"
        )
    return sorted(found)


def _split_of(path: str) -> str | None:
    """The split of an annotation file: by its own name, or by the nearest folder that tells."""
    parts = PurePosixPath(path)
    own = None if parts.name == ANNOTATIONS else split_word(parts.stem)
    return own or next(filter(None, (split_word(folder.name) for folder in parts.parents)), None)


def _part(split: str, path: str, folders: Collection[str], around: str, *, alone: bool) -> Part:
    here = _folder(path)
    base = here
    while base and not any(folder.startswith(base) for folder in folders):
        base = _folder(base.rstrip("/"))
    is_roboflow = PurePosixPath(path).name == ANNOTATIONS
    if is_roboflow and base == here:
        return Part(split, path, base, here)
    inside = {p for folder in folders if folder.startswith(base) for p in _parents(folder, base)}
    subset = re.sub(r"^instances_", "", PurePosixPath(path).stem)
    called = {folder for folder in inside if PurePosixPath(folder).name == subset}
    if not called and _split_of(path.removeprefix(around)):
        called = {folder for folder in inside if split_word(PurePosixPath(folder).name) == split}
    top = [f for f in called if not any(f != other and f.startswith(other) for other in called)]
    if len(top) == 1:
        root = top[0]
    elif is_roboflow and not alone:
        return Part(split, path, here, here)  # its photos are gone; no other split's are taken
    else:
        root = base
    while root not in folders:
        below = {folder for folder in inside if _folder(folder.rstrip("/")) == root}
        if len(below) != 1:
            break
        root = below.pop()
    return Part(split, path, base, root)


def _bare(parts: Iterable[Part], names: Collection[str]) -> Iterable[tuple[str, str]]:
    """Folders of splits beside Roboflow's that have no annotation file."""
    there = {part.split: part for part in parts}
    if any(part.annotations != f"{part.root}{ANNOTATIONS}" for part in there.values()):
        return
    beside = {_folder(part.root.rstrip("/")) for part in there.values() if part.root}
    tops = {
        (base, name.removeprefix(base).partition("/")[0])
        for base in beside
        for name in names
        if name.startswith(base) and "/" in name.removeprefix(base)
    }
    for base, top in sorted(tops):
        split = _WORDS.get(top.lower())
        if split and split not in there:
            yield split, f"{base}{top}/"


def _around(paths: Iterable[str]) -> str:
    """The folders around everything, with a slash, as far as they are not called like a split."""
    folders = [_folder(path).split("/")[:-1] for path in paths]
    around = ""
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1 or names[0].lower() in _WORDS:
            break
        around += f"{names[0]}/"
    return around


def _parents(folder: str, base: str) -> Iterable[str]:
    """A folder and those around it, below ``base``."""
    while len(folder) > len(base):
        yield folder
        folder = _folder(folder.rstrip("/"))


def _folder(path: str) -> str:
    """The folder of a path, with its slash; the top is ``""``."""
    head, slash, _ = path.rpartition("/")
    return head + slash


def _choose(paths: list[str], split: str) -> str:
    return (
        f"several annotation files could be meant: {', '.join(paths)}; choose one, as in "
        f"data.annotations: {{{split}: {paths[0]}}} or --annotations {split}={paths[0]}"
    )
