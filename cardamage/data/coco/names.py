"""Which file each ``file_name`` of an annotation file means, where programs spell it otherwise."""

import re
import unicodedata
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from pathlib import PurePosixPath
from urllib.parse import unquote

_CODE_PAGES = (
    *("utf-8", "cp850", "cp852", "cp857", "cp866", "cp1250", "cp1251", "cp1252", "cp1254"),
    *("cp932", "cp949", "gb18030", "big5"),
)
"""What names in archives are written in without a word; a reader that is not told takes cp437."""


def composed(text: str) -> str:
    """``text`` with each accent in one character with its letter, as most programs write it."""
    return unicodedata.normalize("NFC", text)


def _lower(text: str) -> str:
    return composed(text.casefold())


_SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "backslashes": lambda name: PurePosixPath(name.replace("\\", "/")).as_posix(),
    "percent-encoded": unquote,
    "Unicode form": composed,
    "upper and lower case": _lower,
}
STEPS = (*_SPELLINGS, "code page", "folder")
"""In which ways a ``file_name`` may differ from the file's path, nearest first."""


@dataclass
class Matches:
    """Files by ``file_name``.

    Attributes:
        files: the path of the file of each that one was found for.
        steps: for those that are not spelled as the path is: the furthest of :data:`STEPS` taken.
        several: for those that more than one file fits: two of them.
    """

    files: dict[str, str] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    several: dict[str, tuple[str, str]] = field(default_factory=dict)


def match_names(listed: Iterable[str], files: Collection[str], *, cut: str = "") -> Matches:
    """Find the file of each name; only files that are there, and none that another name has.

    A name that is spelled as a file's path has that file. The others are compared in the steps of
    :data:`STEPS`, each together with those before, and take the one file that fits; the last step
    leaves out folders at the start of the name, of the path or of both.

    Args:
        files: paths of images.
        cut: folders that names may begin with, all or the last of them, though ``files`` do not.
    """
    matches = Matches()
    wanted: list[str] = []
    parts = PurePosixPath(cut).parts
    starts = ["/".join(parts[at:]) for at in range(len(parts))]
    for name in dict.fromkeys(listed):
        path = PurePosixPath(name).as_posix()
        if path in files or (path := _cut(path, starts, files)):
            matches.files[name] = path
        else:
            wanted.append(name)
    if not wanted:
        return matches
    taken = set(matches.files.values())
    free = sorted(set(files) - taken)
    spelled_names, spelled_files = {n: n for n in wanted}, {path: path for path in free}
    for step, spelling in _SPELLINGS.items():
        spelled_names = {name: spelling(text) for name, text in spelled_names.items()}
        spelled_files = {path: spelling(text) for path, text in spelled_files.items()}
        starts = [spelling(start) for start in starts]
        by_spelling = _grouped((text, path) for path, text in spelled_files.items())
        found = {
            name: by_spelling.get(text) or by_spelling.get(_cut(text, starts, by_spelling), [])
            for name, text in spelled_names.items()
        }
        _take(matches, step, found, spelled_names, spelled_files)
    if not spelled_names:
        return matches
    repaired = _grouped(
        (_lower(text), path) for path in spelled_files for text in _in_other_code_pages(path)
    )
    found = {name: repaired.get(text, []) for name, text in spelled_names.items()}
    _take(matches, "code page", found, spelled_names, spelled_files)
    by_tail = _grouped((PurePosixPath(text).name, path) for path, text in spelled_files.items())
    found = {
        name: _longest_tail(text, by_tail.get(PurePosixPath(text).name, ()), spelled_files)
        for name, text in spelled_names.items()
    }
    _take(matches, "folder", found, spelled_names, spelled_files)
    return matches


def _cut(name: str, starts: Iterable[str], known: Container[str]) -> str:
    """A name without that one of ``starts`` without which it is known; ``""`` if there is none."""
    cut = (name.removeprefix(f"{start}/") for start in starts if name.startswith(f"{start}/"))
    return next((name for name in cut if name in known), "")


def _take(
    matches: Matches,
    step: str,
    found: Mapping[str, list[str]],
    names: dict[str, str],
    files: dict[str, str],
) -> None:
    """Give each name the one file that fits it and no other name; both are then settled."""
    claims = _grouped((paths[0], name) for name, paths in found.items() if len(paths) == 1)
    for path, claimants in claims.items():
        if len(claimants) == 1:
            (name,) = claimants
            matches.files[name], matches.steps[name] = path, step
            del names[name], files[path]
            matches.several.pop(name, None)
    for name, paths in found.items():
        if len(paths) > 1:
            matches.several[name] = (paths[0], paths[1])


def _longest_tail(name: str, paths: Collection[str], spelled: Mapping[str, str]) -> list[str]:
    """Those of ``paths`` that share the most last parts with a name."""
    wanted = re.split(r"/+", name)
    shared: dict[int, list[str]] = {}
    for path in paths:
        pairs = zip(reversed(wanted), reversed(spelled[path].split("/")), strict=False)
        count = 0
        for one, other in pairs:
            if one != other:
                break
            count += 1
        shared.setdefault(count, []).append(path)
    return shared[max(shared)] if shared else []


def _in_other_code_pages(path: str) -> set[str]:
    """What a path would be, had its bytes been read in another code page than they were."""
    texts = set()
    for read_as, page in product(("cp437", "cp1252"), () if path.isascii() else _CODE_PAGES):
        with suppress(UnicodeError):
            texts.add(path.encode(read_as).decode(page))
    return texts


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        members = groups.setdefault(key, [])
        if value not in members:
            members.append(value)
    return groups
