"""Which images of an export are packed, and why others are not."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from cardamage.config.dataset import Boxes, SubsetBy
from cardamage.data.coco.boxes import count_boxes, refuse_boxes, settle_boxes
from cardamage.data.coco.records import Export, ImageRecord
from cardamage.data.coco.source import ImageSource
from cardamage.data.coco.subset import subset_of
from cardamage.data.images import decode_image
from cardamage.data.pool import results_of, stop_if_unwanted
from cardamage.errors import DataError
from cardamage.system.console import Progress

_CHUNK = 64  # images a process takes at a time


@dataclass(frozen=True)
class Selection:
    """By split, the images to pack, and by file name why others are left out."""

    images: dict[str, tuple[ImageRecord, ...]] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)


def select(
    export: Export, class_of: Mapping[int, int], *, subset: float, subset_by: SubsetBy, boxes: Boxes
) -> Selection:
    """A share of each split, with boxes settled.

    Args:
        class_of: the class id of every category id.

    Raises:
        DataError: boxes without outlines are refused, or no image of a split is left.
    """
    images = {
        name: subset_of(split.images, subset, subset_by) for name, split in export.splits.items()
    }
    everything = [image for part in images.values() for image in part]
    refuse_boxes(count_boxes(everything, class_of), boxes, export.source)
    settled = {name: settle_boxes(part, class_of, boxes) for name, part in images.items()}
    left_out = {}
    for name, part in images.items():
        kept = {image.file_name for image in settled[name]}
        names = [image.file_name for image in part if image.file_name not in kept]
        left_out[name] = export.splits[name].broken | dict.fromkeys(names, "a box and no outline")
    _check_left(settled, export.source)
    return Selection(settled, left_out)


def without_broken(selection: Selection, files: ImageSource, workers: int) -> Selection:
    """The same without the images that cannot be read; every one is decoded.

    Args:
        workers: processes; 1 for this one.

    Raises:
        DataError: no image of a split is left.
    """
    looks = [
        _Look(files, split, images[start : start + _CHUNK])
        for split, images in selection.images.items()
        for start in range(0, len(images), _CHUNK)
    ]
    left_out = {split: dict(why) for split, why in selection.left_out.items()}
    with (
        closing(results_of(looks, workers, what="looking for broken images")) as results,
        Progress("check", sum(map(len, selection.images.values())), "images") as progress,
    ):
        for look, broken in zip(looks, results, strict=True):
            left_out[look.split] |= broken
            progress.advance(len(look.records))
    images = {
        split: tuple(image for image in part if image.file_name not in left_out[split])
        for split, part in selection.images.items()
    }
    _check_left(images, files.source)
    return Selection(images, left_out)


@dataclass(frozen=True)
class _Look:
    """Decodes some images of a split; why some cannot be, by file name."""

    source: ImageSource
    split: str
    records: tuple[ImageRecord, ...]

    def __call__(self) -> dict[str, str]:
        broken = {}
        for record in self.records:
            stop_if_unwanted()
            size = record.width, record.height
            try:
                content = self.source.read(record.lies_in or self.split, record.file_name)
                decode_image(content, size=size, name=record.file_name)
            except DataError as error:
                broken[record.file_name] = str(error).partition("; ")[0]
        return broken


def _check_left(images: Mapping[str, tuple[ImageRecord, ...]], source: Path) -> None:
    for split, part in images.items():
        if not part:
            raise DataError(
                f"{source}: {split}: no image is left: each has a box without an outline or cannot "
                f"be read; see cardamage audit, or set data.boxes: paint"
            )
