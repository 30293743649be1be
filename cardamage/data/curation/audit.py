"""What is in a COCO export and what is wrong with it: every file read, every mask painted."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.config.dataset import Boxes, PaintOrder
from cardamage.data.coco.boxes import count_boxes, settle_boxes
from cardamage.data.coco.categories import map_categories, unused_roots
from cardamage.data.coco.export import scan_export
from cardamage.data.coco.findings import UNREADABLE, Finding, Findings, by_severity, skipping
from cardamage.data.coco.masks import Loss, paint
from cardamage.data.coco.records import Export, ImageRecord
from cardamage.data.coco.source import ImageSource
from cardamage.data.curation.agreement import Agreement, label_agreement
from cardamage.data.curation.checks import check_copies, check_promise, check_records
from cardamage.data.curation.copies import Photo, photo_of, same_photo
from cardamage.data.images import LEAVE_OUT, decode_image, orientation
from cardamage.data.pool import results_of, stop_if_unwanted
from cardamage.errors import DataError, counted, shown
from cardamage.labels import MAX_CLASSES
from cardamage.system.console import Progress

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
        sizes: how many images have each size, as ``640x480`` (width x height), common ones first.
        pixels: pixels of all images.
        overlapped_pixels: pixels that two or more annotations cover.
        skipped_annotations: annotations with nothing to paint, of classes that are painted.
        background_images: images whose mask shows no class, annotated or not.
        lost: what is lost of each category, or class, of which something is.
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
    background_images: int = 0
    lost: dict[str, Loss] = field(default_factory=dict)
    categories: dict[str, CategoryCounts] = field(default_factory=dict)


@dataclass(frozen=True)
class Audit:
    """A whole export: its splits, its unused root categories by name, all findings.

    Attributes:
        copies: photos that are there more than once, in groups that look the same.
        agreement: of the labels of photos labelled more than once; None where there are none.
    """

    source: Path
    splits: dict[str, SplitCounts]
    unused_roots: list[str]
    findings: list[Finding]
    copies: list[list[Photo]] = field(default_factory=list)
    agreement: Agreement | None = None

    @property
    def errors(self) -> list[Finding]:
        """The findings that keep the export from being packed."""
        return [finding for finding in self.findings if finding.severity == "error"]

    @property
    def verdict(self) -> str:
        """Whether it can be trained on, and how much there is to mend or to look at."""
        kinds = {finding.kind for finding in self.findings if finding.severity == "warning"}
        things = f"{counted(len(kinds), 'thing')} to look at"
        if errors := {error.kind for error in self.errors}:
            return f"cannot be trained on; {counted(len(errors), 'thing')} to mend, {things}"
        return f"can be trained on; {things if kinds else 'nothing is wrong'}"

    def to_json(self, *, everything: bool = False) -> dict[str, Any]:
        """The same as plain dicts, lists and numbers; with all examples, or the first few."""
        return {
            "source": str(self.source),
            "verdict": self.verdict,
            "splits": {name: asdict(counts) for name, counts in self.splits.items()},
            "unused_roots": self.unused_roots,
            "label_agreement": asdict(self.agreement) if self.agreement else None,
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.severity,
                    "split": finding.split,
                    "count": finding.count,
                    "examples": finding.found if everything else finding.examples,
                    "message": finding.message,
                }
                for finding in self.findings
            ],
        }


def audit(
    source: Path,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
    drop: Sequence[str] = (),
    boxes: Boxes = "refuse",
    paint_order: PaintOrder = "file",
    image_size: tuple[int, int] | None = None,
    skip_broken: bool = False,
    annotations: Mapping[str, str] | None = None,
    may_lack: Collection[str] = ("test",),
    workers: int | None = None,
) -> Audit:
    """Read all of an export: each image decoded and hashed, each annotation painted.

    Args:
        source: a folder or a .zip, with errors or without; what cannot be used is left out of the
            counts and named in the findings.
        classes: category names of each class, to count classes as they would be packed; None
            counts every category of the export.
        drop: category names that stay background; they are not counted then.
        boxes: what becomes of annotations that have a box and no outline.
        paint_order: of annotations that overlap.
        image_size: height and width to pack at, in pixels, for what is lost by that; None for the
            images' own.
        skip_broken: images that cannot be used are left out, and no errors.
        annotations: annotation files by split, where several could be meant.
        may_lack: the splits that need not be there.
        workers: processes; None takes one for each core this process may use.

    Raises:
        DataError: ``classes`` and ``drop`` do not suit the categories of the export.
    """
    export, structural = scan_export(source, annotations, may_lack=may_lack)
    if skip_broken and export:
        export = export.without_broken()
    if export is None:
        return Audit(source, {}, [], structural)
    findings = Findings()
    naming = _name_classes(export, classes, drop, findings)
    check_records(export, findings)
    files = ImageSource(source, annotations)
    try:
        check_promise(export, files.notes(), findings)
    except DataError as error:
        findings.add(UNREADABLE, None, str(error))
    everything = [image for split in export.splits.values() for image in split.images]
    found_boxes = count_boxes(everything, naming.class_of)
    if boxes == "refuse" and (refusal := found_boxes.refusal):
        findings.add("boxes only", None, refusal, count=found_boxes.boxes)
    splits: dict[str, SplitCounts] = {}
    tasks: list[_Task] = []
    photos: list[Photo] = []
    total = sum(len(split.images) for split in export.splits.values())
    with Progress("audit", total, "images") as progress:
        for split in export.splits.values():
            images = settle_boxes(split.images, naming.class_of, boxes)
            if dropped := len(split.images) - len(images):
                findings.add("left out", split.name, count=dropped)
            splits[split.name] = _structure(images, naming)
            task = _Task(files, split.name, naming, image_size, paint_order == "large_first")
            tasks += task.chunks(images)
            progress.advance(dropped)
        parts = results_of(tasks, 1 if total <= _FEW else workers, what="auditing")
        for task, part in zip(tasks, parts, strict=True):
            _add(splits[task.split], part, naming.names, task.split, findings)
            photos += part.photos
            progress.advance(part.images)
    files.close()
    _check_painted(splits, findings)
    copies = check_copies(photos, findings)
    records = {split.name: split.images for split in export.splits.values()}
    agreed = label_agreement(records, same_photo(photos), naming.class_of, naming.names)
    roots = unused_roots(export.categories, export.used_categories())
    found = by_severity([*structural, *findings.all()])
    if skip_broken:
        found = skipping(found)
    return Audit(source, splits, [root.name for root in roots], found, copies, agreed)


@dataclass(frozen=True)
class _Naming:
    """What is counted: the names of ids 1, 2, ..., and the id of every category id."""

    names: tuple[str, ...]
    class_of: dict[int, int]


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
    background: int = 0
    lost: dict[int, Loss] = field(default_factory=dict)


_LOSSES = {"no_area": "no area", "too_thin": "too thin", "hidden": "hidden"}
"""The finding of each kind of loss; who has no outline was found before."""


@dataclass(frozen=True)
class _Task:
    source: ImageSource
    split: str
    naming: _Naming
    image_size: tuple[int, int] | None
    large_first: bool
    records: tuple[ImageRecord, ...] = ()

    def chunks(self, records: Sequence[ImageRecord]) -> list[_Task]:
        return [
            replace(self, records=tuple(records[start : start + _CHUNK]))
            for start in range(0, len(records), _CHUNK)
        ]

    def __call__(self) -> _Part:
        part = _Part(len(self.records), np.zeros(MAX_CLASSES + 1, dtype=np.int64))
        # More categories than a mask has values are counted without pixels.
        class_of = {key: i if i <= MAX_CLASSES else 0 for key, i in self.naming.class_of.items()}
        for record in self.records:
            stop_if_unwanted()
            self._read(record, part)
            self._paint(record, class_of, part)
        return part

    def _paint(self, record: ImageRecord, class_of: Mapping[int, int], part: _Part) -> None:
        """Paint one image and count what is in its mask, and what is not."""
        name = shown(record.file_name)
        painted = paint(record, class_of, size=self.image_size, large_first=self.large_first)
        pixels = np.bincount(painted.mask.ravel(), minlength=MAX_CLASSES + 1)
        part.pixels += pixels
        part.background += not pixels[1:].any()
        part.overlapped += (overlapped := painted.overlapped_pixels)
        if overlapped:
            part.found.append(("overlap", f"{name} has {overlapped:,}", overlapped))
        for class_id, loss in painted.lost.items():
            part.lost.setdefault(class_id, Loss()).add(loss)
            for way, kind in _LOSSES.items():
                if count := getattr(loss, way):
                    example = f"{name} has {count} of {shown(self.naming.names[class_id - 1])}"
                    part.found.append((kind, example, count))

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
            image = decode_image(content, name=record.file_name, remedy=LEAVE_OUT)
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
        class_ids = (naming.class_of.get(a.category_id, 0) for a in record.annotations)
        names = [naming.names[class_id - 1] for class_id in class_ids if class_id]
        counts.images_without_annotations += not names
        for name in names:
            counts.categories[name].instances += 1
        for name in set(names):
            counts.categories[name].images += 1
    return counts


def _check_painted(splits: Mapping[str, SplitCounts], findings: Findings) -> None:
    for name, counts in splits.items():
        if counts.images and not any(each.pixels for each in counts.categories.values()):
            findings.add("nothing painted", name)


def _add(
    counts: SplitCounts, part: _Part, names: Sequence[str], split: str, findings: Findings
) -> None:
    """Add what reading some images told to a split's counts."""
    for class_id, name in enumerate(names[:MAX_CLASSES], start=1):
        counts.categories[name].pixels += int(part.pixels[class_id])
    for class_id, loss in part.lost.items():
        counts.lost.setdefault(names[class_id - 1], Loss()).add(loss)
        counts.skipped_annotations += loss.no_outline
    counts.background_images += part.background
    counts.overlapped_pixels += part.overlapped
    for kind, example, count in part.found:
        findings.add(kind, split, example, count=count)
