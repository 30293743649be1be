"""Photos to predict on, and the masks a person drew for them: files found, matched and read.

Masks come in two kinds, told apart by their names:

- ``<photo's stem>.png``: class ids, 8-bit grey or palette;
- ``task-<photo's stem>-annotation-<n>-by-<who>-tag-<class name>-<k>.png``: a brush stroke exported
  by Label Studio. One photo may have several. Their edges are anti-aliased grey, so a pixel belongs
  to the class from 128 up. Strokes are painted in the order of their annotation's number, later
  over earlier, as the masks that models are trained on.

Photos and masks are taken as people see them: upright, as EXIF says the camera was held. A mask of
the sides of a photo that is stored lying down is turned with it.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.coco.layout import IMAGE_ENDINGS
from cardamage.data.coco.source import MAX_FILE_BYTES
from cardamage.data.images import SWAPS_SIDES, decode_image, upright_turn
from cardamage.errors import UNFIT_FOR_TEXT, ConfigError, DataError, did_you_mean, shown
from cardamage.labels import BACKGROUND

_UNREAD = (".avif", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jp2", ".nef", ".arw")
"""Endings of photos that are not read: leaving them out without a word would lose photos."""

_LONGEST_NAME = 150
"""In bytes; what is made of a photo has a longer name, and file systems take 255."""

_STROKE = re.compile(
    r"task-(?P<task>.+)-annotation-(?P<annotation>\d+)-by-.*?-tag-(?P<tag>.+)-(?P<number>\d+)\.png",
    re.IGNORECASE,
)
_FOREGROUND_FROM = 128


class Photo(NamedTuple):
    """A photo."""

    path: Path
    name: str
    """Its stem; its whole file name where another photo has that stem too."""


class MaskFile(NamedTuple):
    """A mask, or one stroke of it."""

    path: Path
    class_id: int | None
    """The class of a stroke; None for a mask of class ids."""


class Truth(NamedTuple):
    """What a person drew on a photo."""

    mask: NDArray[np.uint8]
    """Class ids, uint8 (H, W)."""
    overlapped_pixels: int
    """Pixels where strokes of different classes met."""


def find_photos(place: Path) -> list[Photo]:
    """The photos that lie in a folder, by file name; or one, by its own path.

    Raises:
        DataError: there is no such place, it holds no photo, or one of a kind that is not read or
            of an impossible name.
    """
    folder, files = place, [place] if place.is_file() else _files(place)
    paths = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
    if unread := [path.name for path in files if path.suffix.lower() in _UNREAD]:
        raise DataError(
            f"{folder} holds {len(unread)} images of a kind that is not read, such as "
            f"{shown(unread[0])}; save them as JPEG or PNG, or take them away"
        )
    if not paths:
        others = passed_over(folder) if folder.is_dir() else []
        there = f"; it holds {', '.join(others[:5])}" if others else ""
        raise DataError(
            f"{folder} holds no images; name the folder they lie in themselves "
            f"({', '.join(IMAGE_ENDINGS)}){there}"
        )
    for path in paths:
        if UNFIT_FOR_TEXT.search(path.name) or len(os.fsencode(path.name)) > _LONGEST_NAME:
            raise DataError(
                f"{folder} holds an image named {shown(path.name)}, from which no names of results "
                f"can be made; rename it: {_LONGEST_NAME} bytes of UTF-8 at most, no line breaks"
            )
    names = [path.stem for path in paths]
    # A whole file name can be another's stem (car.jpg beside car.jpg.png), hence the loop.
    while shared := {name for name, times in Counter(names).items() if times > 1}:
        names = [p.name if n in shared else n for p, n in zip(paths, names, strict=True)]
    return [Photo(path, name) for path, name in zip(paths, names, strict=True)]


def passed_over(folder: Path) -> list[str]:
    """The names of what lies in ``folder`` and is no photo; subfolders end with a slash."""
    return [
        shown(path.name + "/" * path.is_dir())[1:-1]
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (path.is_dir() or path.suffix.lower() not in IMAGE_ENDINGS)
    ]


def read_photo(photo: Photo) -> Image.Image:
    """The pixels of a photo, RGB and upright.

    Raises:
        DataError: it cannot be read.
    """
    try:
        if photo.path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(
                f"{photo.path} is larger than {MAX_FILE_BYTES >> 20} MiB, which no photo is; "
                f"take it away"
            )
        content = photo.path.read_bytes()
    except OSError as error:
        raise DataError(f"{photo.path} cannot be read ({error.strerror})") from None
    return decode_image(content, name=str(photo.path))


def count_frames(photo: Photo) -> int:
    """How many frames or pages a photo has, of which :func:`read_photo` takes the first.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with Image.open(photo.path) as image:
            # A phone's JPEG may have a preview or a map of depths as a second "frame" (MPO).
            return 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    except Exception as error:  # Pillow raises nearly anything on broken bytes
        raise DataError(f"{photo.path} cannot be read ({error}); replace or remove it") from error


def find_masks(
    folder: Path,
    photos: Sequence[Photo],
    class_ids: Mapping[str, int],
    *,
    others: bool = False,
    binary: bool = False,
) -> dict[str, list[MaskFile]]:
    """The mask files of each photo that has any, by the photo's name.

    Args:
        class_ids: the class id of every name that a stroke may carry.
        others: masks of photos that are not here are passed over.
        binary: a stroke is 0 where ``class_ids`` says background, else 1, whatever its name.

    Raises:
        DataError: there is no such folder, it holds no mask, a mask fits no photo or is of a class
            that ``class_ids`` lacks, or a photo has both a mask of class ids and strokes.
    """
    names = {photo.name for photo in photos}
    found: dict[str, list[tuple[tuple[int, int, str], MaskFile]]] = {}
    for path in _files(folder):
        if path.suffix.lower() not in IMAGE_ENDINGS:
            continue
        if path.suffix.lower() != ".png":
            raise DataError(f"{path}: a mask is a PNG, since class ids must be stored exactly")
        stroke = _STROKE.fullmatch(path.name)
        if path.stem in names:
            place, mask = (0, 0, path.name), MaskFile(path, None)
            name = path.stem
        elif stroke and stroke["task"] in names:
            place = (int(stroke["annotation"]), int(stroke["number"]), path.name)
            tag = stroke["tag"]
            class_id = (
                min(class_ids.get(tag, 1), 1) if binary else _class_of_stroke(path, tag, class_ids)
            )
            mask = MaskFile(path, class_id)
            name = stroke["task"]
        elif others:
            continue
        else:
            stem = stroke["task"] if stroke else path.stem
            raise DataError(f"{path} fits no image: {_whose(stem, photos)}")
        found.setdefault(name, []).append((place, mask))
    if not found:
        raise DataError(f"{folder} holds no masks (.png); name the folder they lie in themselves")
    masks = {name: [mask for _, mask in sorted(placed)] for name, placed in found.items()}
    for name, files in masks.items():
        if len(files) > 1 and any(mask.class_id is None for mask in files):
            raise DataError(
                f'image "{name}" has both a mask of class ids and Label Studio strokes in '
                f"{folder}; keep one kind"
            )
    return masks


def read_truth(
    photo: Photo,
    files: Sequence[MaskFile],
    size: tuple[int, int],
    class_names: Sequence[str] | None,
) -> Truth:
    """The mask of one photo.

    ``files`` are painted in their order; ``size`` is the photo's width and height, upright. Without
    ``class_names`` all that is not 0 is 1.

    Raises:
        DataError: a mask is unreadable, of another size, or has an id that is no class.
    """
    mask = np.zeros(size[::-1], np.uint8)
    painted, overlapped = np.zeros((2, *mask.shape), np.bool_)
    for file in files:
        values = _read_grey(file.path, photo, size, as_ids=file.class_id is None)
        if file.class_id is None:
            if class_names is None:
                return Truth((values > 0).astype(np.uint8), 0)
            _check_ids(values, file.path, class_names)
            return Truth(values, 0)
        stroke = values >= _FOREGROUND_FROM
        overlapped |= stroke & painted & (mask != file.class_id)
        painted |= stroke
        mask[stroke] = file.class_id
    return Truth(mask, int(np.count_nonzero(overlapped)))


def mask_classes(
    groups: Mapping[str, Sequence[str]], drop: Sequence[str] = (), class_map: Sequence[str] = ()
) -> dict[str, int]:
    """The class id of every name that a stroke may carry.

    Args:
        groups: the dataset's categories of each class, in the order of the class ids 1, 2, ...
        class_map: ``NAME=CLASS`` for names that the model knows as CLASS, or as background.

    Raises:
        ConfigError: an entry of ``class_map`` is no pair, or its class is unknown.
    """
    ids = {BACKGROUND: 0, **dict.fromkeys(drop, 0)}
    for class_id, (name, categories) in enumerate(groups.items(), start=1):
        ids.setdefault(name, class_id)
        ids.update(dict.fromkeys(categories, class_id))
    renamed = {}
    for option in class_map:
        name, _, meant = option.rpartition("=")
        if not (name and meant):
            raise ConfigError(
                f'--class-map "{option}" is no pair; write "NAME=CLASS", as in "Severe=damage"'
            )
        if meant not in ids:
            raise ConfigError(
                f'--class-map "{option}": the run has no class "{meant}"; '
                f"it has {', '.join((BACKGROUND, *groups))}"
            )
        renamed[name] = ids[meant]
    return ids | renamed


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))


def _whose(stem: str, photos: Sequence[Photo]) -> str:
    """What to do about a mask for ``stem``, which is no photo's name."""
    if same := [photo.name for photo in photos if photo.path.stem == stem]:
        return f'{" and ".join(same)} share the stem "{stem}"; put the ending into the name too'
    hint = did_you_mean(stem, [photo.name for photo in photos])
    return f'there is none called "{stem}"{hint}; add the image, or take the mask away'


def _class_of_stroke(path: Path, tag: str, class_ids: Mapping[str, int]) -> int:
    if tag in class_ids:
        return class_ids[tag]
    known = ", ".join(class_ids)
    raise DataError(
        f'{path} is of class "{tag}", which this run does not know; it knows {known}. '
        f'Say which it is with --class-map "{tag}=...", or score all damage as one class with '
        f"--binary"
    )


def _read_grey(
    path: Path, photo: Photo, size: tuple[int, int], *, as_ids: bool
) -> NDArray[np.uint8]:
    """The values of a mask, uint8 (H, W); with ``as_ids`` those of a palette are its indices."""
    try:
        turn = None
        with Image.open(path, formats=("PNG",)) as image:
            if image.size != size:  # perhaps drawn on the photo as it is stored
                with Image.open(photo.path) as stored:
                    turn = upright_turn(stored)
            # before a pixel is decoded
            _check_mask(image, path, size[::-1] if turn in SWAPS_SIDES else size, as_ids=as_ids)
            grey = image if as_ids else image.convert("L")
            return np.array(grey if turn is None else grey.transpose(turn), dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise nearly anything on broken bytes
        raise DataError(f"{path} cannot be read as an image ({error}); export it again") from None


def _check_mask(image: Image.Image, path: Path, size: tuple[int, int], *, as_ids: bool) -> None:
    if image.size != size:
        raise DataError(
            f"{path} has {image.width}x{image.height} pixels and its image {size[0]}x{size[1]}; "
            f"export the mask at the image's size"
        )
    if as_ids and image.mode not in ("1", "L", "P"):
        raise DataError(
            f"{path} is no mask of class ids: its pixels are {image.mode}; "
            f"save it as 8-bit grey (L), 0 for background, 1 for the first class"
        )


def _check_ids(mask: NDArray[np.uint8], path: Path, class_names: Sequence[str]) -> None:
    if (highest := int(mask.max())) >= len(class_names):
        known = ", ".join(f"{i} {name}" for i, name in enumerate(class_names))
        raise DataError(
            f"{path} has class id {highest}; the ids of this run are {known}. A mask in black and "
            f"white tells its class by its name: task-<photo>-annotation-1-by-1-tag-<class>-0.png; "
            f"or --binary scores all damage as one class"
        )
