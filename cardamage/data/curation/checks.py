"""What the records and the photos of an export tell without their masks."""

import re
from collections.abc import Collection, Mapping

from cardamage.data.coco.annotation_file import Id
from cardamage.data.coco.findings import Findings
from cardamage.data.coco.records import Annotation, Export, SplitExport
from cardamage.data.curation.copies import Photo, same_bytes, same_look, same_stem
from cardamage.errors import shown

TINY_PX = 16
"""An image with a shorter side is called tiny: halved three times, as the networks do, no pixel or
one is left of it."""

# "It includes 1,234 images.", "The dataset includes 1234 images."
_PROMISE = re.compile(r"\bincludes ([0-9][0-9,]{0,11}) images\b")


def check_records(export: Export, findings: Findings) -> None:
    """What the usable records of each split tell, and how the splits differ in categories."""
    for split in export.splits.values():
        _check_split(split, findings)
    used = export.used_categories()
    for split in export.splits.values():
        names = {category.id: category.name for category in split.categories}
        shows = {a.category_id for image in split.images for a in image.annotations}
        shown_names = {names[category_id] for category_id in shows}
        for category in export.categories:
            if category.id not in used:
                continue
            if category.id not in names and category.name not in names.values():
                findings.add("category not listed", split.name, shown(category.name))
            elif category.id not in shows and category.name not in shown_names:
                findings.add("category without examples", split.name, shown(category.name))


def check_promise(export: Export, notes: Mapping[str, str], findings: Findings) -> None:
    """Whether there are as many images as the texts beside the splits, by file name, say."""
    listed = sum(split.listed for split in export.splits.values())
    for name, text in notes.items():
        if promise := _PROMISE.search(text):
            promised = int(promise[1].replace(",", ""))
            if promised != listed:
                example = f"{shown(name)} says {promised:,}, the annotation files list {listed:,}"
                findings.add("other number of images", None, example, count=abs(promised - listed))


def check_copies(photos: Collection[Photo], findings: Findings) -> list[list[Photo]]:
    """Photos that are there more than once, within splits and across them.

    Returns:
        Groups of those whose bytes or looks are the same; those in several splits first.
    """
    photos = list(photos)
    alike = []
    for kind, groups in (
        ("same stem", same_stem(photos)),
        ("same content", same_bytes(photos)),
        ("same look", same_look(photos)),
    ):
        for group in groups:
            splits = {photo.split for photo in group}
            if kind != "same stem":
                alike.append(group)
            where = ", ".join(f"{photo.split}/{shown(photo.name)}" for photo in group[:3])
            more = f" and {len(group) - 3} more" if len(group) > 3 else ""
            if len(splits) > 1:
                findings.add(f"{kind} in splits", None, where + more)
            else:
                findings.add(f"{kind} in a split", group[0].split, where + more)
    return sorted(alike, key=lambda group: len({photo.split for photo in group}) == 1)


def _check_split(split: SplitExport, findings: Findings) -> None:
    ids: set[Id] = set()
    for image in split.images:
        name = shown(image.file_name)
        if min(image.width, image.height) < TINY_PX:
            findings.add("tiny image", split.name, f"{name} is {image.width}x{image.height}")
        outlines = set()
        for annotation in image.annotations:
            where = f"annotation {shown(annotation.id)} of {name}"
            if annotation.rle is not None:
                findings.add("RLE mask", split.name, where)
            if annotation.id in ids:
                findings.add("duplicate annotation id", split.name, where)
            ids.add(annotation.id)
            if (outline := _outline(annotation)) in outlines:
                findings.add("duplicate annotation", split.name, where)
            outlines.add(outline)


def _outline(annotation: Annotation) -> tuple[object, ...]:
    rle = annotation.rle and annotation.rle["counts"]
    parts = annotation.polygons if annotation.box is None else (annotation.box,)
    return annotation.category_id, rle, *(part.tobytes() for part in parts)
