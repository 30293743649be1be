"""A small COCO export, drawn: Roboflow's layout and habits, no download, the same bytes each time.

It has what bites readers of real exports: a root category that no annotation uses, file names with
spaces and dots, outlines in several parts, a mask as RLE because it has a hole, annotations over
one another, and images with nothing on them.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from cardamage.data.coco.layout import ANNOTATIONS
from cardamage.data.curation.drawn_car import DAMAGES, Damage, Points, Wish, draw_car
from cardamage.errors import ConfigError
from cardamage.runs.paths import SPLITS
from cardamage.system.files import new_folder
from cardamage.system.locks import hold

ROOT_CATEGORY = "car-damage"
MIN_IMAGES, MIN_SIZE = 3, 32

_SHARES = {"valid": 0.15, "test": 0.15}  # train gets the rest
_DATE = "2024-01-01T00:00:00+00:00"
_EVERYTHING: tuple[Wish, ...] = ("scratched dent", "dent with a hole", "broken lamp")
# Every split begins with a car that has everything; then these come round.
_ROUND: tuple[tuple[Wish, ...], ...] = (
    (),
    ("scratch", "broken lamp"),
    ("dent", "interrupted scratch"),
    ("scratch", "dent", "broken lamp"),
    ("dent with a hole", "broken lamp"),
    ("scratched dent", "scratch"),
    ("broken lamp", "dent"),
    ("interrupted scratch", "scratch"),
)


def synthesize(folder: Path, *, images: int, size: int, seed: int) -> None:
    """Draw an export: train, valid and test in about 70, 15 and 15 parts of 100.

    The folder appears whole or not at all.

    Args:
        folder: where; it may exist if it is empty.
        images: how many in all, 3 or more. From 4 on, one in train has no annotations.
        size: side of each image in pixels, 32 or more.
        seed: the same seed draws the same bytes.

    Raises:
        ConfigError: ``images`` or ``size`` is too small, or the folder is not empty or cannot be
            written.
    """
    if images < MIN_IMAGES:
        raise ConfigError(f"images is {images}, and has to be {MIN_IMAGES} or more: one a split")
    if size < MIN_SIZE:
        raise ConfigError(f"size is {size} pixels, and has to be {MIN_SIZE} or more")
    with new_folder(folder) as aside:
        first = 0
        for split, count in _counts(images).items():
            _draw_split(aside / split, first, count, size, seed)
            first += count


def synthetic_source(shards_dir: Path, *, images: int, size: int, seed: int) -> Path:
    """The drawn export of these settings under ``shards_dir``; drawn if it is not there.

    What a process that was killed had drawn of it is removed.

    Raises:
        ConfigError: ``images`` or ``size`` is too small, or the folder cannot be written.
    """
    folder = shards_dir / "sources" / f"synthetic-{images}x{size}px-seed{seed}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with hold(lock, f"{folder} is being drawn", "wait for it", wait=True):
            if not folder.is_dir():  # else another process drew it meanwhile
                for part in folder.parent.glob(f".{folder.name}.*.part"):
                    shutil.rmtree(part)
                synthesize(folder, images=images, size=size, seed=seed)
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}); choose another data.shards_dir"
        ) from error
    return folder


def _counts(images: int) -> dict[str, int]:
    held_out = {split: max(1, round(images * share)) for split, share in _SHARES.items()}
    counts = {"train": images - sum(held_out.values()), **held_out}
    return {split: counts[split] for split in SPLITS}


def _draw_split(folder: Path, first: int, count: int, size: int, seed: int) -> None:
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        random = Random(f"{seed}/{first + number}")  # noqa: S311 - a drawing, no secret
        wishes = _EVERYTHING if number == 0 else _ROUND[(number - 1) % len(_ROUND)]
        picture, damages = draw_car(random, size, wishes)
        content = _jpeg(picture)
        name = _file_name(first + number, random, content)
        (folder / name).write_bytes(content)
        images.append(
            {
                "id": number,
                "license": 1,
                "file_name": name,
                "height": size,
                "width": size,
                "date_captured": _DATE,
            }
        )
        for damage in damages:
            annotations.append(_annotation(len(annotations), number, damage, size))
    export = {
        "info": {
            "year": "2024",
            "version": "1",
            "description": "Drawn by cardamage in the layout of a Roboflow export",
            "contributor": "",
            "url": "",
            "date_created": _DATE,
        },
        "licenses": [
            {
                "id": 1,
                "url": "https://creativecommons.org/publicdomain/zero/1.0/",
                "name": "CC0 1.0",
            }
        ],
        "categories": _categories(),
        "images": images,
        "annotations": annotations,
    }
    (folder / ANNOTATIONS).write_text(json.dumps(export), encoding="utf-8")


def _categories() -> list[dict[str, Any]]:
    root = {"id": 0, "name": ROOT_CATEGORY, "supercategory": "none"}
    return [root] + [
        {"id": number, "name": name, "supercategory": ROOT_CATEGORY}
        for number, name in enumerate(DAMAGES, start=1)
    ]


def _jpeg(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _file_name(number: int, random: Random, content: bytes) -> str:
    view = random.choice(("side", "from the side", "street"))
    digest = hashlib.sha256(content).hexdigest()[:32]
    return f"car {number:03d}.{view}_jpg.rf.{digest}.jpg"


def _annotation(number: int, image: int, damage: Damage, size: int) -> dict[str, Any]:
    parts = [_flat(part, size) for part in damage.parts]
    rles = coco_mask.frPyObjects(parts, size, size)
    rle = coco_mask.merge(rles)
    segmentation: Any = parts
    if damage.hole:
        hole = coco_mask.decode(coco_mask.frPyObjects([_flat(damage.hole, size)], size, size)[0])
        pixels = coco_mask.decode(rle) & (1 - hole)
        rle = coco_mask.encode(np.asfortranarray(pixels))
        segmentation = {"size": [size, size], "counts": rle["counts"].decode()}
    return {
        "id": number,
        "image_id": image,
        "category_id": DAMAGES.index(damage.category) + 1,
        "bbox": [float(side) for side in coco_mask.toBbox(rle)],
        "area": float(coco_mask.area(rle)),
        "segmentation": segmentation,
        "iscrowd": 0,
    }


def _flat(points: Points, size: int) -> list[float]:
    """x, y, x, y, ... in pixels, the first corner repeated at the end as Roboflow does."""
    corners: Sequence[tuple[float, float]] = (*points, points[0])
    return [round(value * size, 3) for corner in corners for value in corner]
