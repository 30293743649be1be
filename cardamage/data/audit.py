"""What is in a COCO export and what is wrong with it: every file read, every mask painted."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.console import Progress
from cardamage.data.checks import check_copies, check_promise, check_records
from cardamage.data.coco import Export, Finding, ImageRecord, scan_export
from cardamage.data.copies import Photo, photo_of
from cardamage.data.findings import UNREADABLE, Findings, by_severity
from cardamage.data.images import decode_image, orientation
from cardamage.data.masks import paint
from cardamage.data.pool import results_of
from cardamage.data.source import ImageSource, shown
from cardamage.errors import DataError
from cardamage.labels import MAX_CLASSES, map_categories, unused_roots

_CHUNK = 32  # images a process takes at a time
_FEW = 64  # not worth starting processes for


@dataclass
class CategoryCounts:
    """One category, or class, in one split: images it is on, annotations, pixels of the masks."""

    images: int = 0
    instances: int = 0
    pixels: int = 0


@dataclass
class SplitCounts:
    """One split.

    Attributes:
        images: images that can be used.
        annotations: annotations on them.
        images_without_annotations: images that are all background.
        sizes: how many images have each size, as ``640x480`` (width x height), common ones first.
        pixels: pixels of all images.
        overlapped_pixels: pixels that two or more annotations cover.
        skipped_annotations: annotations with nothing to paint, of classes that are painted.
        categories: by name, in the order of the ids; roots that nothing uses are not among them.
            Where the audit was given classes, these, in their order.
    """

    images: int = 0
    annotations: int = 0
    images_without_annotations: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    pixels: int = 0
    overlapped_pixels: int = 0
    skipped_annotations: int = 0
    categories: dict[str, CategoryCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """A whole export: its splits, its unused root categories by name, all findings."""

    source: Path
    splits: dict[str, SplitCounts]
    unused_roots: list[str]
    findings: list[Finding]

    @property
    def errors(self) -> list[Finding]:
        """The findings that keep the export from being packed."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts, lists and numbers."""
        return {
            "source": str(self.source),
            "splits": {name: asdict(counts) for name, counts in self.splits.items()},
            "unused_roots": self.unused_roots,
            "findings": [{**asdict(f), "message": f.message} for f in self.findings],
        }


def audit(
    source: Path,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    drop: Sequence[str] = (),
    workers: int | None = None,
) -> Audit:
    """Read all of an export: each image decoded and hashed, each annotation painted.

    Args:
        source: a folder or a .zip, with errors or without; what cannot be used is left out of the
            counts and named in the findings.
        classes: category names of each class, to count classes as they would be packed; None
            counts every category of the export.
        drop: category names that stay background; they are not counted then.
        workers: processes; None takes one for each core this process may use.

    Raises:
        DataError: ``classes`` and ``drop`` do not suit the categories of the export.
    """
    export, structural = scan_export(source)
    if export is None:
        return Audit(source, {}, [], structural)
    findings = Findings()
    naming = _name_classes(export, classes, drop, findings)
    check_records(export, findings)
    files = ImageSource(source)
    try:
        check_promise(export, files.notes(), findings)
    except DataError as error:
        findings.add(UNREADABLE, None, str(error))
    files.close()
    splits = {}
    photos: list[Photo] = []
    total = sum(len(split.images) for split in export.splits.values())
    with Progress("audit", total, "images") as progress:
        for split in export.splits.values():
            counts = _structure(split.images, naming)
            tasks = _Task(files, split.name, naming.class_of).chunks(split.images)
            for part in results_of(tasks, 1 if total <= _FEW else workers, what="auditing"):
                _add(counts, part, naming.names, split.name, findings)
                photos += part.photos
                progress.advance(part.images)
            splits[split.name] = counts
    check_copies(photos, findings)
    roots = unused_roots(export.categories, export.used_categories())
    found = by_severity([*structural, *findings.all()])
    return Audit(source, splits, [root.name for root in roots], found)


@dataclass(frozen=True)
class _Naming:
    """What is counted: the names of ids 1, 2, ..., and the id of every category id."""

    names: tuple[str, ...]
    class_of: dict[int, int]

    def name_of(self, category_id: int) -> str | None:
        class_id = self.class_of.get(category_id, 0)
        return self.names[class_id - 1] if class_id else None


def _name_classes(
    export: Export,
    classes: Mapping[str, Sequence[str]] | None,
    drop: Sequence[str],
    findings: Findings,
) -> _Naming:
    used = export.used_categories()
    if classes is not None:
        return _Naming(tuple(classes), map_categories(export.categories, used, classes, drop))
    roots = unused_roots(export.categories, used)
    # One name may have several ids, as in classes.
    names = tuple(dict.fromkeys(c.name for c in export.categories if c not in roots))
    if len(names) > MAX_CLASSES:
        findings.add("too many categories", None, f"there are {len(names)}")
    ids = {name: number for number, name in enumerate(names, start=1)}
    return _Naming(names, {c.id: ids.get(c.name, 0) for c in export.categories if c not in roots})


@dataclass
class _Part:
    """What some images of a split told; sums over them, and examples for the findings."""

    images: int
    pixels: NDArray[np.int64]
    photos: list[Photo] = field(default_factory=list)
    found: list[tuple[str, str, int]] = field(default_factory=list)
    """Kind, example and count of each finding."""
    overlapped: int = 0
    skipped: int = 0


@dataclass(frozen=True)
class _Task:
    source: ImageSource
    split: str
    class_of: dict[int, int]
    records: tuple[ImageRecord, ...] = ()

    def chunks(self, records: Sequence[ImageRecord]) -> list[_Task]:
        return [
            _Task(self.source, self.split, self.class_of, tuple(records[start : start + _CHUNK]))
            for start in range(0, len(records), _CHUNK)
        ]

    def __call__(self) -> _Part:
        part = _Part(len(self.records), np.zeros(MAX_CLASSES + 1, dtype=np.int64))
        # More categories than a mask has values are counted without pixels.
        class_of = {key: i if i <= MAX_CLASSES else 0 for key, i in self.class_of.items()}
        for record in self.records:
            self._read(record, part)
            name = shown(record.file_name)
            painted = paint(record, class_of)
            part.pixels += np.bincount(painted.mask.ravel(), minlength=MAX_CLASSES + 1)
            part.skipped += painted.skipped_annotations
            part.overlapped += (pixels := painted.overlapped_pixels)
            if pixels:
                part.found.append(("overlap", f"{name} has {pixels:,}", pixels))
            if empty := painted.empty_annotations:
                part.found.append(("no area", f"{name} has {empty}", empty))
        self.source.close()
        return part

    def _read(self, record: ImageRecord, part: _Part) -> None:
        """Decode one image and note what is odd about it."""
        name = shown(record.file_name)
        image = None
        try:
            content = self.source.read(self.split, record.file_name)
        except DataError as error:
            part.found.append(("broken image", str(error), 1))
            return
        try:
            image = decode_image(content, name=record.file_name)
            with Image.open(io.BytesIO(content)) as stored:
                turned, sizes = orientation(stored), {stored.size, image.size}
            if turned != 1:
                part.found.append(("EXIF orientation", f"{name} has orientation {turned}", 1))
            if (record.width, record.height) not in sizes:
                width, height = image.size
                text = f"{name} is {width}x{height}, annotated as {record.width}x{record.height}"
                part.found.append(("size mismatch", text, 1))
        except DataError as error:
            part.found.append(("broken image", str(error), 1))
        part.photos.append(photo_of(self.split, record.file_name, content, image))


def _structure(records: Sequence[ImageRecord], naming: _Naming) -> SplitCounts:
    """What the annotations alone tell."""
    counts = SplitCounts(images=len(records))
    counts.categories = {name: CategoryCounts() for name in naming.names}
    sizes = Counter(f"{record.width}x{record.height}" for record in records)
    counts.sizes = dict(sizes.most_common())
    for record in records:
        counts.annotations += len(record.annotations)
        counts.pixels += record.width * record.height
        shown_classes = [
            naming.name_of(annotation.category_id) for annotation in record.annotations
        ]
        names = [name for name in shown_classes if name is not None]
        counts.images_without_annotations += not names
        for name in names:
            counts.categories[name].instances += 1
        for name in set(names):
            counts.categories[name].images += 1
    return counts


def _add(
    counts: SplitCounts, part: _Part, names: Sequence[str], split: str, findings: Findings
) -> None:
    """Add what reading some images told to a split's counts."""
    for class_id, name in enumerate(names[:MAX_CLASSES], start=1):
        counts.categories[name].pixels += int(part.pixels[class_id])
    counts.skipped_annotations += part.skipped
    counts.overlapped_pixels += part.overlapped
    for kind, example, count in part.found:
        findings.add(kind, split, example, count=count)
