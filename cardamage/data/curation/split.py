"""Splitting an export again: into train, valid and test, by photo and not by file.

Copies of one photo, by Roboflow's stem, by their bytes or by their look, stay together, and the
categories keep their shares. Nothing of the source is changed; images are copied as they are.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cardamage.data.coco.annotation_file import Id, identifier
from cardamage.data.coco.export import read_export
from cardamage.data.coco.layout import ANNOTATIONS
from cardamage.data.coco.records import Export
from cardamage.data.coco.source import ImageSource
from cardamage.data.curation.deal import Place, deal
from cardamage.errors import ConfigError
from cardamage.runs.paths import SPLITS
from cardamage.system.files import new_folder


@dataclass(frozen=True)
class Split:
    """How an export was split.

    Attributes:
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
    annotations: Mapping[str, str] | None = None,
    workers: int | None = None,
) -> Split:
    """Write an export like ``source`` in Roboflow's layout, with splits of its own.

    Whatever splits the source has are put together first; where two have an image of one name, it
    gets a folder named after its split. Images and annotations are renumbered; all else of their
    records stays, and so do licences and texts beside the splits.

    Args:
        source: a COCO export, folder or .zip, with one split, several or none.
        out: a new or empty folder; it appears whole or not at all.
        shares: of train, valid and test: each above 0, together 1.
        annotations: annotation files by split, where several could be meant.
        seed: another seed makes another split; the same one makes the same on every machine.
        workers: processes that look for copies; None for one on each core this process may use.

    Raises:
        ConfigError: ``shares`` is wrong, or ``out`` is not empty, lies in the source or cannot be
            written.
        DataError: the source has an error, or fewer different photos than splits.
    """
    fits = len(shares) == len(SPLITS) and min(shares) > 0 and abs(sum(shares) - 1) <= 1e-6
    if not fits:  # nor do shares that are NaN
        given = " ".join(f"{share:g}" for share in shares)
        raise ConfigError(
            f"the shares are {given}; give three above 0 that make 1 together, as in 0.7 0.15 0.15"
        )
    if out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{out} lies in {source}, which stays as it is; choose another place")
    export = read_export(source, annotations, may_lack=SPLITS)
    with new_folder(out) as folder, closing(ImageSource(source, annotations)) as files:
        by_name = dict(zip(SPLITS, shares, strict=True))
        parts = deal(export, files, by_name, seed=seed, workers=workers)
        _write(export, files, parts, folder, f"split {list(shares)} with seed {seed}")
    return Split(
        images={name: sum(map(len, part)) for name, part in parts.items()},
        photos={name: len(part) for name, part in parts.items()},
    )


@dataclass
class _Annotations:
    """A new split's annotation file as it comes together."""

    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)


def _write(
    export: Export,
    files: ImageSource,
    parts: Mapping[str, Sequence[Sequence[Place]]],
    folder: Path,
    how: str,
) -> None:
    dealt = {place: name for name, groups in parts.items() for group in groups for place in group}
    uses = Counter(file_name for _, file_name in dealt)
    goes_to = {
        (part, file_name): (name, file_name if uses[file_name] == 1 else f"{part}/{file_name}")
        for (part, file_name), name in dealt.items()
    }
    new = {name: _Annotations() for name in SPLITS}
    about: dict[str, Any] = {}
    categories: dict[int, Any] = {}
    for part in export.splits:
        content = json.loads(files.annotations(part).decode("utf-8-sig"))
        about = about or {key: content[key] for key in ("info", "licenses") if key in content}
        ids = export.splits[part].category_ids
        for category in content["categories"]:
            number = _number(category, "id", ids)
            categories.setdefault(number, {**category, "id": number})
        for annotation in content["annotations"]:
            annotation["category_id"] = _number(annotation, "category_id", ids)
        names = [image["file_name"] for image in content["images"]]
        file_of = files.match(part, names).files
        _deal(part, content, file_of, goes_to, new)
    info = about.get("info")
    about["info"] = {**(info if isinstance(info, dict) else {}), "split": how}
    for name, made in new.items():
        (folder / name).mkdir()
        text = json.dumps({**about, "categories": list(categories.values()), **vars(made)})
        (folder / name / ANNOTATIONS).write_text(text, encoding="utf-8")
    for (part, file_name), (name, new_name) in goes_to.items():
        path = folder / name / new_name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files.read(part, file_name))
    for note, text in files.notes().items():
        (folder / note).write_text(text, encoding="utf-8")


def _number(record: Mapping[str, Any], key: str, ids: Mapping[Id, int]) -> int:
    """A category's id as a number; ``ids`` has those that are other in the file."""
    given = identifier(record, key)
    number = ids.get(given, given)
    assert isinstance(number, int)  # noqa: S101 - all texts are among the ids
    return number


def _deal(
    part: str,
    content: dict[str, Any],
    file_of: Mapping[str, str],
    goes_to: Mapping[Place, tuple[str, str]],
    new: Mapping[str, _Annotations],
) -> None:
    """Give the records of one annotation file to the new splits, renumbered."""
    of_image: dict[Id, tuple[_Annotations, int]] = {}
    for image in content["images"]:
        if identifier(image, "id") in of_image:  # the record is there twice
            continue
        name, file_name = goes_to[part, file_of[image["file_name"]]]
        target = new[name]
        number = len(target.images)
        of_image[identifier(image, "id")] = target, number
        target.images.append({**image, "id": number, "file_name": file_name})
    for annotation in content["annotations"]:
        target, number = of_image[identifier(annotation, "image_id")]
        known = {"id": len(target.annotations), "image_id": number}
        target.annotations.append({**annotation, **known})
