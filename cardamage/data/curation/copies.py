"""Photos that an export holds more than once: by Roboflow's stem, by their bytes, by their look.

A photo that stands in train and again in test makes the test flatter the model.
"""

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

_SIDE = 16  # a look is _SIDE * _SIDE bits
_BITS = _SIDE * _SIDE
_SAME_LOOK_BITS = 8
"""Looks that differ in at most so many bits are of one photo. Among 1,983 real photos of damaged
cars, copies differed in up to 7 bits, other shots of the same car in 11 and more."""
_BRIGHTER_BY = 3
"""Grey levels; what differs by less is noise of the JPEG."""
_PLAIN_BITS = 16
"""A look with fewer bits set is that of an even surface, and tells nothing."""


@dataclass(frozen=True, slots=True)
class Photo:
    """What tells whether two images of an export are copies.

    Attributes:
        digest: SHA-256 of the file.
        look: see :func:`look_of`; None where the image cannot be decoded or shows nothing.
    """

    split: str
    name: str
    digest: bytes
    look: int | None


def photo_of(split: str, name: str, content: bytes, image: Image.Image | None) -> Photo:
    """What tells an image's copies, of its file's content and of what it decodes to."""
    look = None if image is None else look_of(image)
    return Photo(split, name, hashlib.sha256(content).digest(), look)


def stem_of(file_name: str) -> str:
    """The name of the photo: what Roboflow writes before ``.rf.``, or else all of the name.

    Roboflow's augmented copies of a photo are called ``<stem>.rf.<hash>.jpg``.
    """
    stem, marked, _ = file_name.rpartition(".rf.")
    return stem if marked else file_name


def look_of(image: Image.Image) -> int | None:
    """256 bits that survive another size, another quality and a little light.

    Each bit tells whether, of a 17x16 thumbnail in grey, a pixel is clearly brighter than its left
    neighbour (a "difference hash"). None for an even surface.
    """
    small = image.convert("L").resize((_SIDE + 1, _SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.int16)
    brighter = grey[:, 1:] > grey[:, :-1] + _BRIGHTER_BY
    if np.count_nonzero(brighter) < _PLAIN_BITS:
        return None
    return int.from_bytes(np.packbits(brighter).tobytes())


def same_stem(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Groups of two or more whose names are equal up to ``.rf.``."""
    return _grouped((stem_of(p.name), p) for p in photos if stem_of(p.name) != p.name)


def same_bytes(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Groups of two or more equal files."""
    return _grouped((photo.digest, photo) for photo in photos)


def same_look(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Groups of two or more that look alike, in which not all have one stem or the same bytes.

    Two photos of a group look alike, or are tied by others that do.
    """
    ties = _Ties(len(photos))
    for one, other in _alike(photos):
        ties.tie(one, other)
    groups = _grouped((ties.root(number), photo) for number, photo in enumerate(photos))
    return [
        group
        for group in groups
        if len({stem_of(p.name) for p in group}) > 1 and len({p.digest for p in group}) > 1
    ]


def same_photo(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Groups of two or more whose bytes or looks are the same, or tied by others whose are."""
    ties = _Ties(len(photos))
    first: dict[bytes, int] = {}
    for number, photo in enumerate(photos):
        ties.tie(first.setdefault(photo.digest, number), number)
    for one, other in _alike(photos):
        ties.tie(one, other)
    return _grouped((ties.root(number), photo) for number, photo in enumerate(photos))


def groups_of_copies(photos: Sequence[Photo]) -> list[list[int]]:
    """Which photos have to stay together: positions in ``photos``, each in exactly one group."""
    ties = _Ties(len(photos))
    first: dict[Hashable, int] = {}
    for number, photo in enumerate(photos):
        for key in (stem_of(photo.name), photo.digest):
            ties.tie(first.setdefault(key, number), number)
    for one, other in _alike(photos):
        ties.tie(one, other)
    groups: dict[int, list[int]] = {}
    for number in range(len(photos)):
        groups.setdefault(ties.root(number), []).append(number)
    return list(groups.values())


class _Ties:
    """Which things hang together (a disjoint-set forest)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def tie(self, one: int, other: int) -> None:
        one, other = sorted((self.root(one), self.root(other)))
        self._parent[other] = one


def _alike(photos: Sequence[Photo]) -> Iterable[tuple[int, int]]:
    """Pairs of positions whose looks differ in few bits; of equal ones only those with the first.

    Two looks that differ in n bits agree in at least one of n + 1 parts, so only those that share a
    part are compared: one part after the other, for a million photos would fill the memory. A pair
    that shares several comes as often.
    """
    first: dict[int, int] = {}
    for number, photo in enumerate(photos):
        if photo.look is not None and first.setdefault(photo.look, number) != number:
            yield first[photo.look], number
    parts = _SAME_LOOK_BITS + 1
    width = -(-_BITS // parts)
    for part in range(parts):
        sharing: dict[int, list[int]] = {}
        for look, number in first.items():
            piece = look >> part * width & (1 << width) - 1
            before = sharing.setdefault(piece, [])
            for other in before:
                if (look ^ other).bit_count() <= _SAME_LOOK_BITS:
                    yield first[other], number
            before.append(look)


def _grouped(pairs: Iterable[tuple[Hashable, Photo]]) -> list[list[Photo]]:
    groups: dict[Hashable, list[Photo]] = {}
    for key, photo in pairs:
        groups.setdefault(key, []).append(photo)
    return [group for group in groups.values() if len(group) > 1]
