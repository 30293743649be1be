"""Splitting an export anew: into train, valid and test, by photo and not by file.

Copies of one photo, by Roboflow's stem, by their bytes or by their look, stay together, and the
categories keep their shares. Nothing of the source is changed; images are copied as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardamage.console import Progress
from cardamage.data.coco import Export, scan_export
from cardamage.data.copies import Photo, groups_of_copies, photo_of
from cardamage.data.images import decode_image
from cardamage.data.pool import results_of
from cardamage.data.source import ANNOTATIONS, ImageSource, safe_name
from cardamage.data.strata import stratified_order
from cardamage.errors import ConfigError, DataError
from cardamage.files import new_folder
from cardamage.paths import SPLITS

_CHUNK = 32  # images a process takes at a time
_FEW = 64  # not worth starting processes for


@dataclass(frozen=True)
class Split:
    """How an export was split.

    Attributes:
        images: images of each new split.
        photos: groups of copies in each; equal to ``images`` where there are no copies.
    """

    images: dict[str, int]
    photos: dict[str, int]


def split(
    source: Path,
    out: Path,
    *,
    shares: Sequence[float],
    seed: int = 0,
    workers: int | None = None,
) -> Split:
    """Write an export like ``source`` in Roboflow's layout, with splits of its own.

    Whatever splits the source has are put together first. Images and annotations are numbered anew;
    all else of their records stays, and so do licences and texts beside the splits.

    Args:
        source: a COCO export, folder or .zip, with one split, several, or its annotation file and
            its images in one folder.
        out: a new or empty folder; it appears whole or not at all.
        shares: of train, valid and test: each above 0, together 1.
        seed: another seed makes another split; the same one makes the same on every machine.
        workers: processes that look for copies; None for one on each core this process may use.

    Raises:
        ConfigError: ``shares`` is wrong, or ``out`` is not empty, lies in the source or cannot be
            written.
        DataError: the source has an error, two of its splits have an image of one name, or it has
            fewer different photos than splits.
    """
    fits = len(shares) == len(SPLITS) and min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6
    if not fits:  # nor do shares that are NaN
        given = " ".join(f"{share:g}" for share in shares)
        raise ConfigError(
            f"the shares are {given}; give three above 0 that make 1 together, as in 0.7 0.15 0.15"
        )
    if out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{out} lies in {source}, which stays as it is; choose another place")
    export = _readable(source)
    with new_folder(out) as folder, closing(ImageSource(source)) as files:
        groups = groups_of_copies(_photos(export, files, workers))
        parts = _share_out(export, groups, shares, seed)
        _write(export, files, parts, folder, f"split {list(shares)} with seed {seed}")
    return Split(
        images={name: sum(map(len, part)) for name, part in parts.items()},
        photos={name: len(part) for name, part in parts.items()},
    )


_Place = tuple[str, str]  # split and file name in the source


def _readable(source: Path) -> Export:
    """The usable export; that a split is missing is why one comes here."""
    export, findings = scan_export(source)
    errors = [f for f in findings if f.severity == "error" and f.kind != "missing split"]
    if errors or export is None:
        more = f" ({len(errors) - 1} more kinds of error; see jobs/audit.py)" if errors[1:] else ""
        raise DataError(f"{source}: {(errors or findings)[0].message}{more}")
    first: dict[str, str] = {}
    for part in export.splits.values():
        for image in part.images:
            other = first.setdefault(image.file_name, part.name)
            if other != part.name:
                raise DataError(
                    f"{source}: {other}/ and {part.name}/ both have an image "
                    f'"{image.file_name}"; rename or remove one'
                )
    return export


@dataclass(frozen=True)
class _Look:
    """Reads some images for what tells their copies."""

    source: ImageSource
    places: tuple[_Place, ...]

    def __call__(self) -> list[Photo]:
        photos = []
        for part, name in self.places:
            content = self.source.read(part, name)
            image = decode_image(content, name=f"{self.source.source}: {part}/{name}")
            photos.append(photo_of(part, name, content, image))
        self.source.close()
        return photos


def _photos(export: Export, files: ImageSource, workers: int | None) -> list[Photo]:
    places = [(part.name, i.file_name) for part in export.splits.values() for i in part.images]
    tasks = [
        _Look(files, tuple(places[start : start + _CHUNK]))
        for start in range(0, len(places), _CHUNK)
    ]
    photos: list[Photo] = []
    with Progress("split", len(places), "images") as progress:
        for part in results_of(tasks, 1 if len(places) <= _FEW else workers, what="splitting"):
            photos += part
            progress.advance(len(part))
    return photos


def _share_out(
    export: Export, groups: Sequence[Sequence[int]], shares: Sequence[float], seed: int
) -> dict[str, list[list[_Place]]]:
    """The groups of each new split, in an order that is stratified; at least one for each."""
    if len(groups) < len(SPLITS):
        raise DataError(
            f"{export.source} has {len(groups)} different photos; three splits need three or more"
        )
    records = [(part.name, image) for part in export.splits.values() for image in part.images]
    members = [[records[position] for position in group] for group in groups]
    order = stratified_order(
        [group[0][1].file_name for group in members],
        [{a.category_id for _, image in group for a in image.annotations} for group in members],
        seed=seed,
    )
    parts: dict[str, list[list[_Place]]] = {name: [] for name in SPLITS}
    # A group goes where its middle falls on the line of all images.
    ends = [sum(shares[: number + 1]) * len(records) for number in range(len(SPLITS))]
    so_far, at = 0, 0
    for left, position in zip(range(len(order), 0, -1), order, strict=True):
        group = [(name, image.file_name) for name, image in members[position]]
        full = so_far + len(group) / 2 > ends[at]
        needed = len(SPLITS) - 1 - at
        if parts[SPLITS[at]] and at < len(SPLITS) - 1 and (full or left == needed):
            at += 1
        parts[SPLITS[at]].append(group)
        so_far += len(group)
    return parts


@dataclass
class _Annotations:
    """A new split's annotation file as it comes together."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


def _write(
    export: Export,
    files: ImageSource,
    parts: Mapping[str, Sequence[Sequence[_Place]]],
    folder: Path,
    how: str,
) -> None:
    goes_to = {place: name for name, groups in parts.items() for group in groups for place in group}
    new = {name: _Annotations() for name in SPLITS}
    about: dict[str, Any] = {}
    categories: dict[int, Any] = {}
    for part in export.splits:
        content = json.loads(files.read(part, ANNOTATIONS).decode("utf-8-sig"))
        about = about or {key: content[key] for key in ("info", "licenses") if key in content}
        for category in content["categories"]:
            categories.setdefault(category["id"], category)
        _deal(part, content, goes_to, new)
    info = about.get("info")
    about["info"] = {**(info if isinstance(info, dict) else {}), "split": how}
    for name, made in new.items():
        (folder / name).mkdir()
        text = json.dumps({**about, "categories": list(categories.values()), **vars(made)})
        (folder / name / ANNOTATIONS).write_text(text, encoding="utf-8")
    for (part, file_name), name in goes_to.items():
        path = folder / name / file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.read(part, file_name))
    for note, text in files.notes().items():
        (folder / note).write_text(text, encoding="utf-8")


def _deal(
    part: str,
    content: dict[str, Any],
    goes_to: Mapping[_Place, str],
    new: Mapping[str, _Annotations],
) -> None:
    """Give the records of one annotation file to the new splits, numbered anew."""
    of_image: dict[int, tuple[_Annotations, int]] = {}
    for image in content["images"]:
        file_name = safe_name(image["file_name"])
        target = new[goes_to[part, file_name]]
        number = len(target.images)
        of_image[image["id"]] = target, number
        target.images.append({**image, "id": number, "file_name": file_name})
    for annotation in content["annotations"]:
        target, number = of_image[annotation["image_id"]]
        known = {"id": len(target.annotations), "image_id": number}
        target.annotations.append({**annotation, **known})
