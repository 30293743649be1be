"""A few drawn photos and their annotations, to be laid out as any tool does."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from tests.helpers.small_export import encoded, photo

WIDTH, HEIGHT = 40, 30
RLE = coco_mask.encode(np.asfortranarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)))

Tree = dict[str, Any]
"""Content by path: bytes, or what becomes JSON."""


def name_of(number: int) -> str:
    return f"car {number:02d}.jpg"


def jpeg(number: int) -> bytes:
    return encoded(photo(number * 7, WIDTH, HEIGHT))


def coco(numbers: Any, before: str = "", spelled: Callable[[str], str] = str) -> dict[str, Any]:
    """A COCO file of some photos: a scratch, over it a dent, and one in four has an RLE dent."""
    images, annotations = [], []
    for number in numbers:
        file_name = spelled(before + name_of(number))
        image = {"id": number, "file_name": file_name, "width": WIDTH, "height": HEIGHT}
        images.append(image)
        left = number + 1.25
        outlines: list[Any] = [[[left, 3, left + 12, 3, left + 12, 20.5, left, 20]]]
        outlines.append(
            [[left + 4, 8, left + 20, 8.5, left + 18, 27], [1, 25, 5, 25, 5, 29, 1, 29]]
        )
        if number % 4 == 0:
            outlines.append({"size": RLE["size"], "counts": RLE["counts"].decode()})
        for place, outline in enumerate(outlines):
            known = {"id": len(annotations) + 1, "image_id": number, "iscrowd": 0}
            annotations.append({**known, "category_id": min(place + 1, 2), "segmentation": outline})
    categories = [{"id": 1, "name": "scratch"}, {"id": 2, "name": "dent"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def true_mask(number: int) -> np.ndarray:
    """Class ids as pycocotools rasterises them, later over earlier."""
    content = coco([number])
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for annotation in content["annotations"]:
        outline = annotation["segmentation"]
        if isinstance(outline, list):
            outline = coco_mask.merge(coco_mask.frPyObjects(outline, HEIGHT, WIDTH))
        mask[coco_mask.decode(outline).astype(bool)] = annotation["category_id"]
    return mask


def photos(folder: str, numbers: Any) -> Tree:
    return {f"{folder}{name_of(number)}": jpeg(number) for number in numbers}


def encode(content: Any) -> bytes:
    return content if isinstance(content, bytes) else json.dumps(content).encode()


def laid(folder: Path, tree: Tree) -> Path:
    for path, content in tree.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(encode(content))
    return folder


def zipped(path: Path, tree: Tree, *, separator: str = "/", around: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in tree.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = (around + name).replace("/", separator)
            archive.writestr(entry, encode(content))
    return path
