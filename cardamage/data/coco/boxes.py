"""Annotations that have a box and no outline, as exports for detection hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from cardamage.config.dataset import Boxes
from cardamage.data.coco.records import ImageRecord
from cardamage.errors import DataError

FEW = 0.01
"""A larger share of the annotations is refused under ``refuse``; fewer paint nothing, and are
counted as lost: one bad record in a large export is no reason to stop."""


@dataclass(frozen=True)
class BoxCounts:
    """Annotations of painted classes, and those of them that are boxes only; and their images."""

    annotations: int
    boxes: int
    images: int
    images_with_boxes: int

    @property
    def refusal(self) -> str | None:
        """Why these are too many to be left as background, and what to do; None when they are few.

        One line.
        """
        if self.boxes <= FEW * self.annotations:
            return None
        remedy = (
            "export with outlines (COCO Segmentation), or write under data: boxes: paint, to paint "
            "the boxes, or boxes: drop_image, to leave these images out"
        )
        if self.boxes == self.annotations:
            return (
                f"none of the {self.annotations:,} annotations has an outline, all are boxes only: "
                f"this is a detection export; {remedy}"
            )
        return (
            f"{self.boxes:,} of {self.annotations:,} annotations, on {self.images_with_boxes:,} of "
            f"{self.images:,} images, have a box and no outline, and would be trained on as "
            f"background; {remedy}"
        )


def count_boxes(images: Sequence[ImageRecord], class_of: Mapping[int, int]) -> BoxCounts:
    """What the images hold; ``class_of`` has the class id of every category id, 0 for unpainted."""
    boxes = [len(_boxes(image, class_of)) for image in images]
    painted = sum(bool(class_of[a.category_id]) for image in images for a in image.annotations)
    return BoxCounts(painted, sum(boxes), len(images), sum(map(bool, boxes)))


def settle_boxes(
    images: Sequence[ImageRecord], class_of: Mapping[int, int], boxes: Boxes
) -> tuple[ImageRecord, ...]:
    """The images as they are to be packed.

    Args:
        class_of: the class id of every category id; boxes of class 0 do not matter.
        boxes: ``refuse`` leaves all as it is; ``paint`` makes each box an outline; ``drop_image``
            leaves out the images that have one.
    """
    match boxes:
        case "refuse":
            return tuple(images)
        case "paint":
            return tuple(_outlined(image) for image in images)
        case "drop_image":
            return tuple(image for image in images if not _boxes(image, class_of))
    assert_never(boxes)


def refuse_boxes(counts: BoxCounts, boxes: Boxes, source: object) -> None:
    """Raise DataError where ``refuse`` is asked for and there are more than few."""
    if boxes == "refuse" and (refusal := counts.refusal):
        raise DataError(f"{source}: {refusal}")


def _boxes(image: ImageRecord, class_of: Mapping[int, int]) -> list[object]:
    return [a for a in image.annotations if a.box is not None and class_of[a.category_id]]


def _outlined(image: ImageRecord) -> ImageRecord:
    annotations = tuple(
        a if a.box is None else replace(a, polygons=(a.box,), box=None) for a in image.annotations
    )
    return replace(image, annotations=annotations)
