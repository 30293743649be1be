"""What is lost on the way into the shards: counted for the manifest, warned of, or refused."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cardamage.data.coco.masks import Loss
from cardamage.data.coco.records import ImageRecord
from cardamage.data.shards.manifest import LostRecord, SplitRecord
from cardamage.errors import DataError, counted
from cardamage.system.console import log


def count_lost(
    infos: Sequence[Mapping[str, Any]],
    records: Sequence[ImageRecord],
    class_of: Mapping[int, int],
    class_names: Sequence[str],
) -> dict[str, LostRecord]:
    """The classes of a split that lose annotations, by name.

    Args:
        infos: what is packed beside each sample.
        records: what they were painted from.
        class_names: by class id, background first.
    """
    annotations = Counter(class_of[a.category_id] for record in records for a in record.annotations)
    lost: dict[int, Loss] = {}
    images: Counter[int] = Counter()
    for info in infos:
        for key, counts in info.get("lost", {}).items():
            lost.setdefault(int(key), Loss()).add(Loss(**counts))
            images[int(key)] += 1
    return {
        class_names[i]: LostRecord(images=images[i], annotations=annotations[i], **vars(lost[i]))
        for i in sorted(lost)
    }


def warn_of_losses(
    split: str, record: SplitRecord, image_size: tuple[int, int], *, large_first: bool
) -> None:
    """Log a line for each way in which a split loses annotations, with counts and what helps."""
    if record.left_out:
        number = counted(len(record.left_out), "image")
        log.warning("%s: %s left out; manifest.json names them", split, number)
    height, width = image_size
    order = "data.paint_order: large_first paints the smaller ones last"
    if large_first:
        order = "give what lies over them the same class, or remove it"
    ways = {
        "no_outline": ("have nothing to paint", "cardamage audit names them"),
        "no_area": ("cover no pixel of their image", "cardamage audit names them"),
        "too_thin": (f"keep no pixel at {height}x{width}", "raise data.image_size"),
        "hidden": ("lie wholly under those of other classes", order),
    }
    for way, (what, remedy) in ways.items():
        classes = {name: getattr(lost, way) for name, lost in record.lost.items()}
        if any(classes.values()):
            told = ", ".join(
                f"{count:,} of the {record.lost[name].annotations:,} of {name}"
                for name, count in classes.items()
                if count
            )
            log.warning("%s: annotations that %s: %s; %s", split, what, told, remedy)


def refuse_nothing(split: str, record: SplitRecord, source: object, *, subset: bool) -> None:
    """Raise DataError where no pixel of a split is of a class: nothing can be learned or scored.

    With ``subset`` the images are a part of a split, and may by chance be such as show no damage:
    that is only warned of.
    """
    if any(record.pixels[1:]):
        return
    where = f"{source}: {split}: no pixel of its {record.samples:,} images is of a class"
    if lost := sum(each.annotations for each in record.lost.values()):
        remedy = "raise data.image_size, or correct the annotations"
        if not any(each.too_thin for each in record.lost.values()):
            remedy = "correct the annotations, or export the dataset again"
        raise DataError(f"{where}, all {lost:,} annotations are lost; {remedy}")
    where += ": no annotation on them is of one of data.classes"
    if not subset:
        raise DataError(f"{where}; annotate some, or split the images with cardamage split")
    log.warning("%s; use more of the dataset with data.subset", where)
