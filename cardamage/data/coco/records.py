"""What an export holds: splits of images with their annotations, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cardamage.data.coco.annotation_file import Id
from cardamage.data.coco.categories import Category
from cardamage.data.coco.segmentation import Polygon


@dataclass(frozen=True, slots=True)
class Annotation:
    """One outlined object of an image.

    Attributes:
        id: its id; ids of annotations need not be unique.
        polygons: its outlines, each float64 of shape (2 * corners,): x, y, x, y, ... in pixels.
        rle: its mask as a compressed COCO RLE of the image's size, instead of polygons.
        box: its bounding box as a polygon, where it has no outline at all.
    """

    id: Id
    category_id: int
    polygons: tuple[Polygon, ...]
    rle: dict[str, Any] | None
    iscrowd: bool
    box: Polygon | None = None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a split; sizes in pixels, annotations in the order of the file."""

    id: Id
    file_name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    lies_in: str | None = None
    """The split of the source that its file is in, where it was dealt to another."""


@dataclass(frozen=True)
class SplitExport:
    """One split: its categories by id, its images by file name.

    Attributes:
        listed: the images of the annotation file, those that cannot be used included.
        broken: why images cannot be used, or have annotations that cannot, by file name.
    """

    name: str
    categories: tuple[Category, ...]
    images: tuple[ImageRecord, ...]
    listed: int
    broken: dict[str, str] = field(default_factory=dict)
    category_ids: Mapping[Id, int] = field(default_factory=dict)
    """The id here of each id in the annotation file, where they differ."""

    def renumbered(self, ids: Mapping[int, int]) -> Self:
        """The same with other category ids; ``ids`` holds the new one of each."""
        if all(old == new for old, new in ids.items()):
            return self
        categories = [replace(category, id=ids[category.id]) for category in self.categories]
        images = []
        for image in self.images:
            moved = (replace(a, category_id=ids[a.category_id]) for a in image.annotations)
            images.append(replace(image, annotations=tuple(moved)))
        by_id = tuple(sorted(categories, key=lambda category: category.id))
        in_file: dict[Id, int] = dict(ids.items())
        in_file |= {key: ids.get(number, number) for key, number in self.category_ids.items()}
        return replace(self, categories=by_id, images=tuple(images), category_ids=in_file)


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

    def without_broken(self) -> "Export":
        """The same without the images that cannot be used, or have annotations that cannot."""
        splits = {
            name: replace(
                split, images=tuple(i for i in split.images if i.file_name not in split.broken)
            )
            for name, split in self.splits.items()
        }
        return Export(self.source, splits)
