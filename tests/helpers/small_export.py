"""A small COCO export for the tests of packing and loading, and that export packed."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from cardamage.data.shards.pack import pack

CLASSES = {"scratch": ("scratch",), "dent": ("dent",)}
SIZES = {"train": 7, "valid": 3, "test": 2}


def photo(number: int, width: int, height: int) -> Image.Image:
    """A gradient whose colours tell the number."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    planes = [(x * 3 + number * 11) % 256, (y * 5 + number * 7) % 256, (x + y + number) % 256]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, image_format: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def write_export(
    folder: Path, *, sizes: dict[str, int] = SIZES, width: int = 40, height: int = 32
) -> Path:
    """``photo 0.v1.jpg`` ... in each split; a dent partly over a scratch in all but the first."""
    for split, count in sizes.items():
        images, annotations = [], []
        (folder / split).mkdir(parents=True)
        for number in range(count):
            name = f"photo {number:03d}.v1.jpg"
            (folder / split / name).write_bytes(encoded(photo(number, width, height)))
            images.append({"id": number, "file_name": name, "width": width, "height": height})
            if number:
                annotations.append(_box(len(annotations), number, 1, (4, 4, 20, 12)))
                annotations.append(_box(len(annotations), number, 2, (12, 8, 28, 24)))
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [
                {"id": 0, "name": "damage", "supercategory": "none"},
                {"id": 1, "name": "scratch", "supercategory": "damage"},
                {"id": 2, "name": "dent", "supercategory": "damage"},
            ],
        }
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def packed_export(folder: Path, **options: object) -> Path:
    """The shard folder of a small export drawn and packed under ``folder``."""
    source = write_export(folder / "cars", **options)
    return pack(source, classes=CLASSES, image_size=(16, 24), shards_dir=folder / "shards")


def _box(number: int, image: int, category: int, box: tuple[int, int, int, int]) -> dict:
    left, top, right, bottom = box
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
    }
