"""What is in a COCO export and what is wrong with it: every file read, every mask painted."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cardamage.console import Progress
from cardamage.data.coco import Export, Finding, ImageRecord, scan_export
from cardamage.data.findings import Findings
from cardamage.data.images import decode_image
from cardamage.data.masks import paint
from cardamage.data.pool import interrupts_held, spawned_pool
from cardamage.data.source import ImageSource, shown
from cardamage.errors import CardamageError, DataError
from cardamage.labels import MAX_CLASSES, unused_roots
from cardamage.processes import count_cores

_CHUNK = 32  # images a process takes at a time
_FEW = 64  # not worth starting processes for


@dataclass
class CategoryCounts:
    """One category in one split: images it is on, annotations, pixels of the painted masks."""

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
        skipped_annotations: annotations with nothing to paint.
        categories: by name, in the order of the ids; roots that nothing uses are not among them.
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


def audit(source: Path, *, workers: int | None = None) -> Audit:
    """Read all of an export: each image decoded and hashed, each annotation painted.

    Args:
        source: a folder or a .zip, with errors or without; what cannot be used is left out of the
            counts and named in the findings.
        workers: processes; None takes one for each core this process may use.
    """
    export, structural = scan_export(source)
    if export is None:
        return Audit(source, {}, [], structural)
    findings = Findings()
    roots = unused_roots(export.categories, export.used_categories())
    names = {c.id: c.name for c in export.categories if c not in roots}
    class_of = {key: i if i <= MAX_CLASSES else 0 for i, key in enumerate(names, start=1)}
    if len(class_of) > MAX_CLASSES:
        findings.add("too many categories", None, f"there are {len(class_of)}")
    splits = {}
    photos: dict[bytes, list[tuple[str, str]]] = {}
    total = sum(len(split.images) for split in export.splits.values())
    with Progress("audit", total, "images") as progress:
        for split in export.splits.values():
            counts = _structure(split.images, names)
            tasks = _Task(ImageSource(source), split.name, class_of).chunks(split.images)
            for part in _run(tasks, total, workers):
                _add(counts, part, list(names.values()), split.name, findings)
                for name, digest in part.digests:
                    photos.setdefault(digest, []).append((split.name, name))
                progress.advance(part.images)
            splits[split.name] = counts
    _find_stems(export, findings)
    _find_copies(photos, findings)
    merged = sorted(structural + findings.all(), key=lambda finding: finding.severity != "error")
    return Audit(source, splits, [root.name for root in roots], merged)


@dataclass
class _Part:
    """What some images of a split came to."""

    images: int
    pixels: NDArray[np.int64]
    overlapped: list[tuple[str, int]]
    skipped: int
    digests: list[tuple[str, bytes]]
    broken: list[str]


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
        pixels = np.zeros(MAX_CLASSES + 1, dtype=np.int64)
        part = _Part(len(self.records), pixels, [], 0, [], [])
        for record in self.records:
            try:
                content = self.source.read(self.split, record.file_name)
                part.digests.append((record.file_name, hashlib.sha256(content).digest()))
                decode_image(content, size=(record.width, record.height), name=record.file_name)
            except DataError as error:
                part.broken.append(str(error))
            painted = paint(record, self.class_of)
            part.pixels += np.bincount(painted.mask.ravel(), minlength=MAX_CLASSES + 1)
            part.skipped += painted.skipped_annotations
            if painted.overlapped_pixels:
                part.overlapped.append((record.file_name, painted.overlapped_pixels))
        self.source.close()
        return part


def _run(tasks: list[_Task], images: int, workers: int | None) -> Iterator[_Part]:
    """The results in the order of the tasks, from as many processes as it is worth."""
    workers = min(workers or count_cores(), len(tasks))
    if workers <= 1 or images <= _FEW:
        yield from (task() for task in tasks)
        return
    pool = spawned_pool(workers)
    try:
        with interrupts_held():
            parts = pool.map(_Task.__call__, tasks)
        yield from parts
    except BrokenProcessPool:
        raise CardamageError("an auditing process was killed, perhaps for want of memory") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _structure(records: Sequence[ImageRecord], names: dict[int, str]) -> SplitCounts:
    """What the annotations alone tell."""
    counts = SplitCounts(images=len(records))
    counts.categories = {name: CategoryCounts() for name in names.values()}
    sizes = Counter(f"{record.width}x{record.height}" for record in records)
    counts.sizes = dict(sizes.most_common())
    for record in records:
        counts.annotations += len(record.annotations)
        counts.images_without_annotations += not record.annotations
        counts.pixels += record.width * record.height
        for annotation in record.annotations:
            counts.categories[names[annotation.category_id]].instances += 1
        for name in {names[annotation.category_id] for annotation in record.annotations}:
            counts.categories[name].images += 1
    return counts


def _add(
    counts: SplitCounts, part: _Part, names: Sequence[str], split: str, findings: Findings
) -> None:
    """Add what reading some images told to a split's counts."""
    for class_id, name in enumerate(names[:MAX_CLASSES], start=1):
        counts.categories[name].pixels += int(part.pixels[class_id])
    counts.skipped_annotations += part.skipped
    for name, pixels in part.overlapped:
        counts.overlapped_pixels += pixels
        findings.add("overlap", split, f"{shown(name)} has {pixels:,}", count=pixels)
    for error in part.broken:
        findings.add("broken image", split, error)


def _find_stems(export: Export, findings: Findings) -> None:
    """Copies that Roboflow made of one photo: names equal up to ``.rf.``, in several splits."""
    splits_of: dict[str, dict[str, None]] = {}
    for split in export.splits.values():
        for image in split.images:
            stem, augmented, _ = image.file_name.rpartition(".rf.")
            if augmented:
                splits_of.setdefault(stem, {})[split.name] = None
    for stem, splits in splits_of.items():
        if len(splits) > 1:
            example = f"{shown(stem)} in {', '.join(splits)}"
            findings.add("same stem in splits", None, example)


def _find_copies(photos: dict[bytes, list[tuple[str, str]]], findings: Findings) -> None:
    """Files of the same bytes."""
    for places in photos.values():
        splits = sorted({split for split, _ in places})
        if len(splits) > 1:
            where = ", ".join(f"{split}/{shown(name)}" for split, name in places[:3])
            findings.add("same content in splits", None, where)
        elif len(places) > 1:
            where = ", ".join(shown(name) for _, name in places[:3])
            findings.add("same content in a split", splits[0], where)
