"""A COCO segmentation export as Roboflow writes it: three splits, each with one annotation file.

There is one way in, :func:`scan_export`, which never stops at the first fault: it keeps what can be
used and lists all that is wrong. :func:`read_export` is the same for those who need it faultless.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cardamage.data.findings import UNREADABLE, Finding, Findings
from cardamage.data.json_stream import BadJsonError, list_items
from cardamage.data.segmentation import (
    MIN_NUMBERS,
    Polygon,
    SegmentationError,
    check_polygon,
    parse,
)
from cardamage.data.source import (
    ANNOTATIONS,
    MAX_PIXELS,
    MAX_SIDE,
    ImageSource,
    safe_name,
    shown,
)
from cardamage.errors import DataError
from cardamage.labels import Category, unused_roots
from cardamage.paths import SPLITS
from cardamage.plain_text import UNFIT_FOR_TEXT

__all__ = [
    "Annotation",
    "Export",
    "Finding",
    "ImageRecord",
    "ImageSource",
    "SplitExport",
    "read_export",
    "scan_export",
]

MAX_RECORDS = 5_000_000
"""Most images, annotations or categories of a split: the largest public datasets have fewer."""

_LISTS = ("images", "annotations", "categories")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One outlined object of an image.

    Attributes:
        id: its id; ids of annotations need not be unique.
        category_id: what it is.
        polygons: its outlines, each float64 of shape (2 * corners,): x, y, x, y, ... in pixels.
        rle: its mask as a compressed COCO RLE of the image's size, instead of polygons.
        iscrowd: COCO's mark for a group of objects.
    """

    id: int
    category_id: int
    polygons: tuple[Polygon, ...]
    rle: dict[str, Any] | None
    iscrowd: bool


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a split; sizes in pixels, annotations in the order of the file."""

    id: int
    file_name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True)
class SplitExport:
    """One split: its categories by id, its images by file name.

    ``listed`` counts the images of the annotation file, those that cannot be used included.
    """

    name: str
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]
    listed: int


@dataclass(frozen=True)
class Export:
    """A whole export; ``splits`` is in the order train, valid, test."""

    source: Path
    splits: dict[str, SplitExport]

    @property
    def categories(self) -> tuple[Category, ...]:
        """The categories of all splits, by id."""
        merged = {c.id: c for split in self.splits.values() for c in split.categories}
        return tuple(merged[key] for key in sorted(merged))

    def used_categories(self) -> set[int]:
        """The category ids that occur in annotations of any split."""
        return {
            annotation.category_id
            for split in self.splits.values()
            for image in split.images
            for annotation in image.annotations
        }


def read_export(source: Path) -> Export:
    """An export without errors; warnings pass.

    Args:
        source: a folder or a .zip with ``train/``, ``valid/`` and ``test/``.

    Raises:
        DataError: the export has an error; the message tells the first, and how many more.
    """
    export, findings = scan_export(source)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors or export is None:
        first = errors[0]
        where = "" if first.kind == UNREADABLE else f"{source}: "
        more = f" ({len(errors) - 1} more kinds of error; see jobs/audit.py)" if errors[1:] else ""
        raise DataError(f"{where}{first.message}{more}")
    return export


def scan_export(source: Path) -> tuple[Export | None, list[Finding]]:
    """Everything usable of an export, and everything wrong with its structure, errors first.

    Images are not opened. Records with an error are left out of the export; it is None when not
    one split could be read.
    """
    findings = Findings()
    splits = {}
    try:
        files = ImageSource(source)
        present = files.splits()
        for split in SPLITS:
            if split not in present:
                findings.add("missing split", split)
            elif scanned := _scan_split(files, split, findings):
                splits[split] = scanned
        files.close()
    except DataError as error:
        findings.add(UNREADABLE, None, str(error))
    if not splits:
        return None, findings.all()
    export = Export(source, splits)
    _check_categories(export, findings)
    return export, findings.all()


def _check_categories(export: Export, findings: Findings) -> None:
    names: dict[int, str] = {}
    for split in export.splits.values():
        for category in split.categories:
            if names.setdefault(category.id, category.name) != category.name:
                other = names[category.id]
                text = f"id {category.id} is {shown(other)} and {shown(category.name)}"
                findings.add("conflicting category", split.name, text)
    used = export.used_categories()
    roots = unused_roots(export.categories, used)
    for category in export.categories:
        if category in roots:
            findings.add("unused root", None, f"{shown(category.name)} (id {category.id})")
        elif category.id not in used:
            findings.add("unused category", None, f"{shown(category.name)} (id {category.id})")


def _scan_split(files: ImageSource, split: str, findings: Findings) -> SplitExport | None:
    try:
        files.size(split, ANNOTATIONS)
    except DataError:
        findings.add("missing annotations", split, f"{files.source}/{split}/{ANNOTATIONS}")
        return None
    scan = _SplitScan(split, findings, files.names(split))
    try:
        with (
            files.open(split, ANNOTATIONS) as stream,
            closing(list_items(stream, _LISTS)) as items,  # else it outlives the stream
        ):
            scan.take_all(items)
    except BadJsonError as error:
        findings.add("broken annotations", split, f"{ANNOTATIONS}: {error}")
        return None
    except DataError as error:
        findings.add(UNREADABLE, split, str(error))
        return None
    return scan.finish()


class _SplitScan:
    """Checks the items of one annotation file as they come, in whatever order the lists stand."""

    def __init__(self, split: str, findings: Findings, files: set[str]) -> None:
        self._split, self._findings, self._files = split, findings, files
        self._categories: dict[int, Category] = {}
        self._images: dict[int, ImageRecord | None] = {}  # None: listed, but not usable
        self._names: set[str] = set()
        self._annotations: list[tuple[int, Annotation | None]] = []
        self._taken = dict.fromkeys(_LISTS, 0)

    def take_all(self, items: Iterable[tuple[str, Any]]) -> None:
        take = {
            "categories": self._take_category,
            "images": self._take_image,
            "annotations": self._take_annotation,
        }
        for key, item in items:
            if self._taken[key] == MAX_RECORDS:
                raise BadJsonError(f'"{key}" has more than {MAX_RECORDS:,} records')
            try:
                take[key](item)
            except _MalformedError as error:
                self._add("malformed record", f"{key}[{self._taken[key]}]: {error}")
            self._taken[key] += 1

    def finish(self) -> SplitExport:
        """The split, once every item was taken."""
        if not self._images:
            self._add("empty split")
        annotated = {image_id for image_id, _ in self._annotations}
        of_image = self._annotations_by_image()
        images = []
        for image in self._images.values():
            if image is not None:
                images.append(replace(image, annotations=tuple(of_image.pop(image.id, ()))))
                if image.id not in annotated:
                    self._add("image without annotations", shown(image.file_name))
        for name in sorted(self._files - self._names):
            self._add("unlisted file", shown(name))
        images.sort(key=lambda image: image.file_name)
        categories = tuple(self._categories[key] for key in sorted(self._categories))
        return SplitExport(self._split, categories, tuple(images), self._taken["images"])

    def _annotations_by_image(self) -> dict[int, list[Annotation]]:
        of_image: dict[int, list[Annotation]] = {}
        for image_id, annotation in self._annotations:
            if image_id not in self._images:
                self._add("missing image", f"an annotation names image {image_id}")
            elif annotation is None:
                continue
            elif annotation.category_id not in self._categories:
                text = f"annotation {annotation.id} names category {annotation.category_id}"
                self._add("unknown category", text)
            elif (image := self._images[image_id]) and self._fits(annotation, image):
                of_image.setdefault(image_id, []).append(annotation)
        return of_image

    def _take_category(self, item: Any) -> None:
        category_id, name = _integer(item, "id"), _text(item, "name")
        parent = item.get("supercategory")
        category = Category(category_id, name, parent if isinstance(parent, str) else "none")
        if category_id in self._categories:
            self._add("duplicate id", f"category {category_id}")
        self._categories.setdefault(category_id, category)

    def _take_image(self, item: Any) -> None:
        image_id, file_name = _integer(item, "id"), _text(item, "file_name")
        if image_id in self._images:
            self._add("duplicate id", f"image {image_id}")
            self._names.add(file_name)
            return
        self._images[image_id] = None
        width, height = _integer(item, "width"), _integer(item, "height")
        try:
            name = safe_name(file_name)
        except DataError:
            self._add("unsafe file name", shown(file_name))
            return
        if name in self._names:
            self._add("duplicate file name", shown(name))
            return
        self._names.add(name)
        if not 1 <= min(width, height) <= max(width, height) <= MAX_SIDE or (
            width * height > MAX_PIXELS
        ):
            self._add("impossible size", f"{shown(name)} is {shown(width)}x{shown(height)}")
            return
        if name not in self._files:
            self._add("missing file", shown(name))
            return
        self._images[image_id] = ImageRecord(image_id, name, width, height, ())

    def _take_annotation(self, item: Any) -> None:
        image_id, category_id = _integer(item, "image_id"), _integer(item, "category_id")
        annotation_id = _integer(item, "id") if "id" in item else len(self._annotations)
        try:
            polygons, rle = parse(item.get("segmentation"))
        except SegmentationError as error:
            self._add(error.kind, f"annotation {annotation_id}: {error}")
            self._annotations.append((image_id, None))
            return
        crowd = bool(item.get("iscrowd"))
        annotation = Annotation(annotation_id, category_id, polygons, rle, crowd)
        self._annotations.append((image_id, annotation))

    def _fits(self, annotation: Annotation, image: ImageRecord) -> bool:
        """Whether an annotation can be painted into its image; what is odd is noted."""
        where = f"annotation {annotation.id} of {shown(image.file_name)}"
        if annotation.iscrowd:
            self._add("crowd", where)
        if annotation.rle is None and not annotation.polygons:
            self._add("no segmentation", where)
        if annotation.rle and annotation.rle["size"] != [image.height, image.width]:
            height, width = annotation.rle["size"]
            text = f"{where}: {width}x{height}, the image {image.width}x{image.height}"
            self._add("malformed RLE", text)
            return False
        for polygon in annotation.polygons:
            if polygon.size < MIN_NUMBERS:
                self._add("short polygon", where)
                continue
            try:
                if not check_polygon(polygon, image.width, image.height):
                    self._add("polygon partly outside", where)
            except SegmentationError as error:
                self._add(error.kind, f"{where}: {error}")
                return False
        return True

    def _add(self, kind: str, example: str = "") -> None:
        self._findings.add(kind, self._split, example)


class _MalformedError(ValueError):
    pass


def _integer(item: Any, key: str) -> int:
    value = _member(item, key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or abs(value) >= 1 << 63:
        raise _MalformedError(f'"{key}" is {shown(value)}, and has to be a whole number')
    return value


def _text(item: Any, key: str) -> str:
    value = _member(item, key)
    if not isinstance(value, str) or not value.strip() or UNFIT_FOR_TEXT.search(value):
        raise _MalformedError(f'"{key}" is {shown(value)}, and has to be text on one line')
    return value


def _member(item: Any, key: str) -> Any:
    if not isinstance(item, dict):
        raise _MalformedError(f"it is {shown(item)}, and has to be an object")
    if key not in item:
        raise _MalformedError(f'"{key}" is missing')
    return item[key]
