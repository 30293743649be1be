"""An export to spoil: three splits of plain images, annotations given by the test."""

import copy
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CATEGORIES = [
    {"id": 0, "name": "car-damage", "supercategory": "none"},
    {"id": 1, "name": "scratch", "supercategory": "car-damage"},
    {"id": 2, "name": "dent", "supercategory": "car-damage"},
]
SQUARE = [2, 2, 6, 2, 6, 6, 2, 6]


def jpeg(width: int = 40, height: int = 30, shade: int = 90) -> bytes:
    """A photo of one grey with some noise, so that shades differ in their bytes."""
    noise = np.random.default_rng(shade).integers(0, 40, (height, width, 3))
    stream = io.BytesIO()
    Image.fromarray((noise + shade).astype(np.uint8)).save(stream, "JPEG")
    return stream.getvalue()


def annotation(image_id: int = 0, segmentation: Any = None, **fields: Any) -> dict[str, Any]:
    """An annotation of image 0 and category 1, a small square unless told otherwise."""
    return {
        "id": fields.pop("id", 0),
        "image_id": image_id,
        "category_id": fields.pop("category_id", 1),
        "segmentation": [SQUARE] if segmentation is None else segmentation,
        "iscrowd": 0,
        **fields,
    }


class SpoilableExport:
    """Two images a split, ``a photo.v1.jpg`` with a scratch and ``b.jpg`` with a dent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.json: dict[str, Any] = {}
        for number, split in enumerate(("train", "valid", "test")):
            (folder / split).mkdir(parents=True)
            names = ("a photo.v1.jpg", "b.jpg")
            for image_id, name in enumerate(names):
                content = jpeg(shade=20 * (2 * number + image_id))
                (folder / split / name).write_bytes(content)
            self.json[split] = {
                "info": {"year": "2024"},
                "licenses": [],
                "categories": copy.deepcopy(CATEGORIES),
                "images": [
                    {"id": image_id, "file_name": name, "width": 40, "height": 30}
                    for image_id, name in enumerate(names)
                ],
                "annotations": [annotation(0), annotation(1, category_id=2, id=1)],
            }
            self.write(split)

    def write(self, split: str = "train", text: str | bytes | None = None) -> None:
        """Write a split's annotation file, as it stands in ``json`` or as told."""
        content = json.dumps(self.json[split]) if text is None else text
        content = content.encode() if isinstance(content, str) else content
        (self.folder / split / "_annotations.coco.json").write_bytes(content)

    def zipped(self, path: Path, around: str = "") -> Path:
        """The same as a .zip, with ``around`` before every name."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(self.folder.rglob("*")):
                if file.is_file():
                    archive.write(file, around + file.relative_to(self.folder).as_posix())
        return path
