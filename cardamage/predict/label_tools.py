"""Predictions as labelling tools import them, for people to correct.

- **Label Studio**: tasks with pre-annotations, as brush strokes or as polygons, and a labelling
  config to go with them: https://labelstud.io/guide/predictions
- **CVAT**: an archive in its format "Segmentation mask 1.1", a mask for each class of a photo:
  https://docs.cvat.ai/docs/dataset_management/formats/format-smask/
"""

import json
import zipfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

import numpy as np
from numpy.typing import NDArray

from cardamage.errors import plain
from cardamage.labels import colour
from cardamage.predict.instances import Instance, PhotoInstances, drawn
from cardamage.system.files import publish, write_text

LabelFormat = Literal["label-studio", "label-studio-polygons", "cvat"]

FILES: dict[LabelFormat, tuple[str, ...]] = {
    "label-studio": ("predictions.label-studio.json", "predictions.label-studio.xml"),
    "label-studio-polygons": ("predictions.label-studio.json", "predictions.label-studio.xml"),
    "cvat": ("predictions.cvat.zip",),
}
"""What each format writes beside the other summaries."""

_KINDS = {"label-studio": "brush", "label-studio-polygons": "polygon"}
_RUN_BITS = (3, 4, 8, 16)
_LONGEST_RUN = 1 << _RUN_BITS[-1]


def write_label_studio(
    out: Path,
    photos: Sequence[PhotoInstances],
    class_names: Sequence[str],
    *,
    form: LabelFormat,
    image_url: str,
    version: str,
) -> None:
    """Write the tasks of photos into ``out``, and a labelling config.

    Args:
        form: ``label-studio`` for brush strokes, ``label-studio-polygons``.
        image_url: what stands before a photo's file name where Label Studio finds it.
        version: what predicted, as the tool shows it.
    """
    kind = _KINDS[form]
    tasks_file, config_file = (out / name for name in FILES[form])
    tasks = [_task(photo, class_names, kind, image_url, version) for photo in photos]
    write_text(tasks_file, json.dumps(tasks) + "\n")
    labels = "\n".join(
        f'    <Label value="{escape(plain(name))}" background="#{bytes(colour(i)).hex()}"/>'
        for i, name in enumerate(class_names)
        if i > 0
    )
    tag = f"{kind.capitalize()}Labels"
    write_text(
        config_file,
        f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n'
        f'  <{tag} name="label" toName="image">\n{labels}\n  </{tag}>\n</View>\n',
    )


def write_cvat(out: Path, names: Sequence[str], class_names: Sequence[str]) -> None:
    """Write the archive of photos whose maps, ``<name>.png`` with a palette, lie in ``out``."""
    colours = [
        f"{plain(name).replace(':', ' ')}:{','.join(map(str, colour(i)))}::"
        for i, name in enumerate(class_names)
    ]
    with publish(out / FILES["cvat"][0]) as aside, zipfile.ZipFile(aside, "w") as archive:
        archive.writestr("labelmap.txt", "\n".join(["# label:color_rgb:parts:actions", *colours]))
        archive.writestr("ImageSets/Segmentation/default.txt", "\n".join(names))
        for name in names:
            archive.write(out / f"{name}.png", f"SegmentationClass/{name}.png")


def _task(
    photo: PhotoInstances, class_names: Sequence[str], kind: str, image_url: str, version: str
) -> dict[str, Any]:
    scores = [instance.score for instance in photo.instances]
    results = []
    for number, instance in enumerate(photo.instances):
        value = _polygon(photo, instance) if kind == "polygon" else _brush(photo, instance)
        results.append(
            {
                "id": uuid5(NAMESPACE_URL, f"{version}/{photo.file_name}/{number}").hex[:10],
                "from_name": "label",
                "to_name": "image",
                "type": f"{kind}labels",
                "original_width": photo.width,
                "original_height": photo.height,
                "image_rotation": 0,
                "score": round(instance.score, 4),
                "value": {**value, f"{kind}labels": [class_names[instance.class_id]]},
            }
        )
    prediction = {
        "model_version": version,
        "score": round(sum(scores) / len(scores), 4) if scores else 1.0,
        "result": results,
    }
    return {"data": {"image": f"{image_url}{photo.file_name}"}, "predictions": [prediction]}


def _polygon(photo: PhotoInstances, instance: Instance) -> dict[str, Any]:
    """Corners in percent of the photo's sides."""
    points = [[100 * x / photo.width, 100 * y / photo.height] for x, y in instance.polygon]
    return {"points": points, "closed": True}


def _brush(photo: PhotoInstances, instance: Instance) -> dict[str, Any]:
    (left, top, _, _), region = drawn(instance.polygon)
    padded = np.pad(region, ((0, 0), (1, 1))).astype(np.int8)
    steps = np.diff(padded, axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, stops = np.nonzero(steps == -1)
    first = (top + rows) * photo.width + left
    return {
        "format": "rle",
        "rle": brush_rle(first + starts, first + stops, photo.width * photo.height),
    }


def brush_rle(starts: NDArray[np.int64], stops: NDArray[np.int64], pixels: int) -> list[int]:
    """A mask in Label Studio's packing of runs, which is that of @thi.ng/rle-pack.

    The mask is as RGBA, so each pixel is four equal bytes, 0 or 255. The header holds the number of
    bytes (32 bits), their size less one (5), and the sizes of four kinds of runs, each less one
    (4): https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack

    Args:
        starts: the first pixel of each run that is painted, by row, ascending.
        stops: the pixel behind each run.
        pixels: of the whole mask.

    Returns:
        Bytes.
    """
    edges = np.stack([starts, stops], axis=1).ravel()
    bounds = np.concatenate([[0], edges, [pixels]]) * 4
    bits = [f"{4 * pixels:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    for number, length in enumerate(np.diff(bounds).tolist()):
        value = "11111111" if number % 2 else "00000000"
        left = length
        while left:
            part = min(left, _LONGEST_RUN)
            kind = next(i for i, size in enumerate(_RUN_BITS) if part <= 1 << size)
            bits += ["1", f"{kind:02b}", f"{part - 1:0{_RUN_BITS[kind]}b}", value]
            left -= part
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))
