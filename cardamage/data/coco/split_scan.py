"""The records of one annotation file, checked one by one."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from cardamage.data.coco.annotation_file import (
    BadJsonError,
    Id,
    MalformedError,
    identifier,
    line_of_text,
    side,
)
from cardamage.data.coco.categories import Category, category_name
from cardamage.data.coco.findings import Findings
from cardamage.data.coco.names import Matches
from cardamage.data.coco.records import Annotation, ImageRecord, SplitExport
from cardamage.data.coco.segmentation import (
    MIN_NUMBERS,
    Polygon,
    SegmentationError,
    check_polygon,
    is_normalised,
    parse,
    parse_box,
)
from cardamage.data.coco.source import ImageSource, safe_name
from cardamage.data.images import MAX_PIXELS, MAX_SIDE, upright_size
from cardamage.errors import DataError, shown

_FIRST_NUMBER = 1 << 62
"""Of the categories whose ids are texts, beyond all that are numbers."""


class SplitScan:
    """Checks the items of one annotation file."""

    def __init__(
        self, source: ImageSource, split: str, findings: Findings, numbers: dict[str, int]
    ) -> None:
        self._source, self._split, self._findings = source, split, findings
        self._numbers, self._matches = numbers, Matches()
        self._categories: dict[int, Category] = {}
        self._images: dict[Id, ImageRecord | None] = {}  # None: listed, but not usable
        self._listed_as: dict[Id, tuple[str, int | None, int | None]] = {}  # its name and sides
        self.names: set[str] = set()
        self._annotations: list[tuple[Id, Annotation | None]] = []
        self._broken: dict[Id, str] = {}
        self._listed = 0
        self._drawn = self._normalised = 0  # annotations with coordinates; all of them 0 to 1

    def take_all(self, content: Mapping[str, Any]) -> None:
        """Take every record of an annotation file.

        Raises:
            BadJsonError: it is none of instances.
        """
        match content["annotations"]:
            case [{"segments_info": _}, *_]:
                raise BadJsonError("it is a panoptic file, and instances are needed")
        listed = (image.get("file_name") for image in content["images"] if isinstance(image, dict))
        names = [name for name in listed if isinstance(name, str)]
        self._matches = self._source.match(self._split, names)
        take = {
            "categories": self._take_category,
            "images": self._take_image,
            "annotations": self._take_annotation,
        }
        for key, take_item in take.items():
            for number, item in enumerate(content[key]):
                try:
                    take_item(item)
                except MalformedError as error:
                    text = f"{key}[{number}]: {error}"
                    self._add("malformed record", text)
                    with suppress(MalformedError):  # then nobody knows whose it is
                        image_id = identifier(item, "id" if key == "images" else "image_id")
                        self._spoil(image_id, text)
        self._listed = len(content["images"])

    def finish(self) -> SplitExport:
        """The split, once every item was taken."""
        if not self._images:
            self._add("empty split")
        annotated = {image_id for image_id, _ in self._annotations}
        of_image = self._annotations_by_image()
        if self._normalised > self._drawn / 2:
            text = f"{self._normalised:,} of {self._drawn:,} annotations"
            self._findings.add("normalised coordinates", self._split, text, count=self._normalised)
        images = []
        for image in self._images.values():
            if image is not None:
                images.append(replace(image, annotations=tuple(of_image.pop(image.id, ()))))
                if image.id not in annotated:
                    self._add("image without annotations", shown(image.file_name))
        images.sort(key=lambda image: image.file_name)
        categories = tuple(self._categories[key] for key in sorted(self._categories))
        broken = {
            (self._listed_as[image_id][0] if image_id in self._listed_as else shown(image_id)): why
            for image_id, why in self._broken.items()
        }
        numbers: dict[Id, int] = dict(self._numbers.items())
        return SplitExport(self._split, categories, tuple(images), self._listed, broken, numbers)

    def _annotations_by_image(self) -> dict[Id, list[Annotation]]:
        of_image: dict[Id, list[Annotation]] = {}
        for image_id, annotation in self._annotations:
            if image_id not in self._images:
                self._add("missing image", f"an annotation names image {shown(image_id)}")
            elif annotation is None:
                continue
            elif annotation.category_id not in self._categories:
                names = {number: text for text, number in self._numbers.items()}
                category = names.get(annotation.category_id, annotation.category_id)
                text = f"annotation {shown(annotation.id)} names category {shown(category)}"
                self._spoil(image_id, text, "unknown category")
            elif (image := self._images[image_id]) and (fitted := self._fitted(annotation, image)):
                of_image.setdefault(image_id, []).append(fitted)
        return of_image

    def _take_category(self, item: Any) -> None:
        category_id, written = self._number(identifier(item, "id")), line_of_text(item, "name")
        name = category_name(written)
        if name != written:
            self._add("category name", f"{shown(written)} is {shown(name)}")
        parent = item.get("supercategory")
        parent = category_name(parent) if isinstance(parent, str) else "none"
        category = Category(category_id, name, parent)
        if self._categories.setdefault(category_id, category).name != name:
            self._add("duplicate id", f"category {shown(item['id'])}")

    def _take_image(self, item: Any) -> None:
        image_id, file_name = identifier(item, "id"), line_of_text(item, "file_name")
        name = self._matches.files.get(file_name)
        width, height = side(item, "width"), side(item, "height")
        known = self._listed_as.setdefault(image_id, (name or file_name, width, height))
        if image_id in self._images:
            if known == (name or file_name, width, height):
                self._add("record given twice", f"image {shown(file_name)}")
            else:
                self._add("duplicate id", f"image {shown(image_id)}")
                self.names.add(name or file_name)
            return
        self._images[image_id] = None
        try:
            name = name or safe_name(file_name)
        except DataError:
            self._spoil(image_id, shown(file_name), "unsafe file name")
            return
        if name in self.names:
            self._add("duplicate file name", shown(name))
            return
        self.names.add(name)
        if file_name not in self._matches.files:
            several = self._matches.several.get(file_name, ())
            fitting = f" ({' and '.join(map(shown, several))} fit alike)" if several else ""
            self._spoil(image_id, shown(name) + fitting, "missing file")
            return
        if width is None or height is None:
            try:
                width, height = upright_size(self._source.read(self._split, name), name)
            except DataError as error:
                self._spoil(image_id, str(error), "broken image")
                return
        if not 1 <= min(width, height) <= max(width, height) <= MAX_SIDE or (
            width * height > MAX_PIXELS
        ):
            text = f"{shown(name)} is {shown(width)}x{shown(height)}"
            self._spoil(image_id, text, "impossible size")
            return
        if step := self._matches.steps.get(file_name):
            self._add(f"file name: {step}", f"{shown(file_name)} is {shown(name)}")
        self._images[image_id] = ImageRecord(image_id, name, width, height, ())

    def _take_annotation(self, item: Any) -> None:
        image_id = identifier(item, "image_id")
        category_id = self._number(identifier(item, "category_id"))
        annotation_id = identifier(item, "id") if "id" in item else len(self._annotations)
        try:
            polygons, rle = parse(item.get("segmentation"))
        except SegmentationError as error:
            self._spoil(image_id, f"annotation {shown(annotation_id)}: {error}", error.kind)
            self._annotations.append((image_id, None))
            return
        box = None if polygons or rle else parse_box(item.get("bbox"))
        crowd = bool(item.get("iscrowd"))
        annotation = Annotation(annotation_id, category_id, polygons, rle, crowd, box)
        self._annotations.append((image_id, annotation))

    def _number(self, category_id: Id) -> int:
        """A category's id as a number: each text gets one of its own, the same in all splits."""
        if isinstance(category_id, int):
            return category_id
        return self._numbers.setdefault(category_id, _FIRST_NUMBER + len(self._numbers))

    def _fitted(self, annotation: Annotation, image: ImageRecord) -> Annotation | None:
        """What of an annotation can be painted into its image; what is odd is noted.

        None where it is wrong.
        """
        where = f"annotation {shown(annotation.id)} of {shown(image.file_name)}"
        if annotation.iscrowd:
            self._add("crowd", where)
        if annotation.rle and annotation.rle["size"] != [image.height, image.width]:
            height, width = annotation.rle["size"]
            text = f"{where}: {width}x{height}, the image {image.width}x{image.height}"
            self._spoil(image.id, text, "malformed RLE")
            return None
        try:
            polygons = [p for p in annotation.polygons if self._paints(p, image, where)]
        except SegmentationError as error:
            self._spoil(image.id, f"{where}: {error}", error.kind)
            return None
        box = annotation.box
        if box is not None and not _is_inside(box, image):
            box = None
        if box is not None:
            self._add("box without outline", where)
        elif annotation.rle is None and not annotation.polygons:
            self._add("no segmentation", where)
        outlines = polygons or ([] if box is None else [box])
        self._drawn += bool(outlines)
        self._normalised += bool(outlines) and all(is_normalised(p) for p in outlines)
        return replace(annotation, polygons=tuple(polygons), box=box)

    def _paints(self, polygon: Polygon, image: ImageRecord, where: str) -> bool:
        """Whether a polygon is one that can have pixels in its image.

        Raises:
            SegmentationError: its coordinates are absurd.
        """
        if polygon.size < MIN_NUMBERS:
            self._add("short polygon", where)
            return False
        try:
            if not check_polygon(polygon, image.width, image.height):
                self._add("polygon partly outside", where)
        except SegmentationError as error:
            if error.kind != "polygon outside":
                raise
            self._add(error.kind, f"{where}: {error}")
            return False
        return True

    def _spoil(self, image_id: Id, why: str, kind: str = "") -> None:
        """Note that an image cannot be used as it is; with ``kind``, as a finding as well."""
        self._broken.setdefault(image_id, f"{kind}: {why}" if kind else why)
        if kind:
            self._add(kind, why)

    def _add(self, kind: str, example: str = "") -> None:
        self._findings.add(kind, self._split, example)


def _is_inside(box: Polygon, image: ImageRecord) -> bool:
    """Whether some of a box lies in its image."""
    try:
        check_polygon(box, image.width, image.height)
    except SegmentationError:
        return False
    return True
