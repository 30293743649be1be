"""Labels worth a second look: those that a network finds unlikely which never trained on them.

Each run looks at the photos it was validated on; the runs over all folds of a dataset together look
at every photo of train and valid. What is found are disagreements: where labels are coarse and the
network is weak, most of them are the network's mistakes.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from cardamage.data.drawing import contact_sheet, layer_png, overlay
from cardamage.data.images import encoded, resize_image, resize_mask
from cardamage.data.shards.reader import ShardReader
from cardamage.predict.index_page import figures_page
from cardamage.predict.model import TrainedModel
from cardamage.runs.tables import Row, write_table
from cardamage.system.console import Progress
from cardamage.system.files import write_bytes, write_text

_TEMPERATURE = 0.1
_SURE = 0.8
_VIEW_PX = 420
_TOUCHING = np.ones((3, 3), dtype=np.int8)


class Looked(NamedTuple):
    """A photo, and what a network says of its label."""

    run: str
    reader: ShardReader
    sample: int
    file_name: str
    digest: str
    """Of its pixels: the same in every run that holds the photo out."""
    quality: float
    """How likely the label is, from 0 to 1; see :func:`label_quality`."""
    unlabelled: float
    """Share of the photo in the largest region that is background by its label and of which the
    network is sure that it is damage."""
    unseen: float
    """Share of the photo in the largest region that is damage by its label and of which the network
    is sure that it is background."""
    predicted: bytes
    """The network's class ids, as PNG."""


def look_at(
    name: str, model: TrainedModel, reader: ShardReader, *, batch_size: int = 8
) -> list[Looked]:
    """Look at every label of a split that the model was not trained on.

    Raises:
        DataError: a shard is damaged.
    """
    looked: list[Looked] = []
    with Progress("doubtful", len(reader), "images") as progress:
        for start in range(0, len(reader), batch_size):
            numbers = range(start, min(start + batch_size, len(reader)))
            samples = [reader.read(number) for number in numbers]
            probabilities = model.logits(np.stack([s.image for s in samples])).softmax(dim=1)
            masks = torch.from_numpy(np.stack([sample.mask for sample in samples]))
            qualities = label_quality(probabilities, masks).tolist()
            ids = probabilities.argmax(dim=1).to(torch.uint8).numpy()
            background = probabilities[:, 0].numpy()
            looked += [
                Looked(
                    name,
                    reader,
                    number,
                    str(reader.info(number)["file_name"]),
                    hashlib.sha256(sample.image.tobytes()).hexdigest(),
                    quality,
                    largest_region((sample.mask == 0) & (sure <= 1 - _SURE)),
                    largest_region((sample.mask > 0) & (sure >= _SURE)),
                    layer_png(predicted),
                )
                for number, sample, quality, sure, predicted in zip(
                    numbers, samples, qualities, background, ids, strict=True
                )
            ]
            progress.advance(len(samples))
    return looked


def label_quality(probabilities: Tensor, masks: Tensor) -> Tensor:
    """The soft minimum over a photo's pixels of the probability of the class they are labelled.

    Lad and Mueller, "Estimating label quality and errors in semantic segmentation data via any
    model", 2023, https://arxiv.org/abs/2307.05080, with their temperature of 0.1.

    Args:
        probabilities: float (B, C, H, W).
        masks: class ids, uint8 (B, H, W).

    Returns:
        (B,), from 0, an unlikely label, to 1.
    """
    likely = probabilities.gather(1, masks.long()[:, None]).flatten(1)
    weights = ((1 - likely) / _TEMPERATURE).softmax(dim=1)
    quality: Tensor = (likely * weights).sum(dim=1)
    return quality


def largest_region(region: NDArray[np.bool_]) -> float:
    """The share of all pixels in the largest part whose pixels touch by sides or corners.

    ``region`` is of shape (H, W).
    """
    labels, number = ndimage.label(region, _TOUCHING)
    areas = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    return float(areas.max(initial=0) / region.size)


def most_doubtful(looked: Iterable[Looked], number: int) -> list[Looked]:
    """Those whose labels are least likely, the worst first, each photo once, at most so many."""
    worst: dict[str, Looked] = {}
    for each in sorted(looked, key=lambda each: (each.quality, each.file_name, each.run)):
        worst.setdefault(each.digest, each)
    return list(worst.values())[:number]


def write_doubtful(chosen: Sequence[Looked], photos: int, out: Path) -> None:
    """Write ``doubtful.csv``, a sheet for each photo, and last ``index.html`` over them.

    Args:
        photos: how many were looked at, for the page.
    """
    figures, rows = [], list[Row]()
    for rank, each in enumerate(chosen, start=1):
        name = f"{rank:04d}-{Path(each.file_name).stem}.jpg"
        write_bytes(out / name, encoded(_sheet(each), "JPEG", quality=90))
        figures.append((name, each.file_name, _words(each)))
        rows.append(
            {
                "rank": rank,
                "image": each.file_name,
                "quality": round(each.quality, 4),
                "unlabelled": round(each.unlabelled, 4),
                "unseen": round(each.unseen, 4),
                "run": each.run,
                "sheet": name,
            }
        )
    write_table(out / "doubtful.csv", rows)
    words = (
        f"The {len(chosen)} of {photos:,} photos whose labels are least likely to networks that "
        f"were not trained on them. These are disagreements: look which side is right. "
        f"doubtful.csv beside this page has all numbers."
    )
    write_text(out / "index.html", figures_page("Labels to look at", words, figures))


def _sheet(each: Looked) -> Image.Image:
    sample = each.reader.read(each.sample)
    scale = _VIEW_PX / max(sample.mask.shape)
    size = round(sample.mask.shape[0] * scale), round(sample.mask.shape[1] * scale)
    view = np.asarray(resize_image(Image.fromarray(sample.image), size))
    predicted = np.asarray(Image.open(io.BytesIO(each.predicted)))
    cells = [("photo", view)] + [
        (name, overlay(view, resize_mask(mask, size)))
        for name, mask in (("label", sample.mask), ("network", predicted))
    ]
    return contact_sheet([[(name, Image.fromarray(picture)) for name, picture in cells]])


def _words(each: Looked) -> str:
    parts = [
        f"{share:.1%} of the photo {what}"
        for share, what in (
            (each.unlabelled, "surely damaged to the network, not labelled"),
            (each.unseen, "labelled, surely sound to the network"),
        )
        if share >= 0.001
    ]
    return "; ".join(parts) or "outlines or classes differ"
