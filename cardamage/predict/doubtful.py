"""Labels worth a second look: those that a network contradicts which never trained on them.

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

from cardamage.data.drawing import contact_sheet, layer_png, overlay
from cardamage.data.images import encoded, resize_image, resize_mask
from cardamage.data.shards.reader import ShardReader
from cardamage.evaluation.confusion import foreground_probability
from cardamage.evaluation.disagreements import COLUMNS, KINDS, WORDS, find_disagreements
from cardamage.predict.index_page import figures_page
from cardamage.predict.model import TrainedModel
from cardamage.runs.tables import Row, write_table
from cardamage.system.console import Progress
from cardamage.system.files import write_bytes, write_text

_VIEW_PX = 420


class Looked(NamedTuple):
    """A photo, and what a network says of its label."""

    run: str
    reader: ShardReader
    sample: int
    file_name: str
    digest: str
    """Of its pixels: the same in every run that holds the photo out."""
    unlabelled: float
    """How much there is to the largest mark on what is background by the label: its share of the
    photo times the network's confidence."""
    unfound: float
    """The same of the largest damage of the label that the network takes for background."""
    predicted: bytes
    """The network's class ids, as PNG."""

    @property
    def doubt(self) -> float:
        """From 0 to 1."""
        return max(self.unlabelled, self.unfound)


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
            logits = model.logits(np.stack([s.image for s in samples]))
            ids = logits.argmax(dim=1).to(torch.uint8).numpy()
            foreground = foreground_probability(logits).numpy()
            for number, sample, predicted, sure in zip(
                numbers, samples, ids, foreground, strict=True
            ):
                found = find_disagreements(number, sample.mask, predicted, sure)
                looked.append(
                    Looked(
                        name,
                        reader,
                        number,
                        str(reader.info(number)["file_name"]),
                        hashlib.sha256(sample.image.tobytes()).hexdigest(),
                        *doubts(found, sample.mask.size),
                        layer_png(predicted),
                    )
                )
            progress.advance(len(samples))
    return looked


def doubts(found: NDArray[np.float32], pixels: int) -> tuple[float, float]:
    """The greatest share of the photo times confidence among disagreements, of either kind.

    Args:
        found: float32 (M, 9), as :func:`find_disagreements` gives them.
        pixels: of the photo.
    """
    columns = dict(zip(COLUMNS, found.T, strict=True))
    weights = columns["pixels"] / pixels * columns["confidence"]
    unlabelled, unfound = (
        float(weights[columns["kind"] == kind].max(initial=0)) for kind in range(len(KINDS))
    )
    return unlabelled, unfound


def most_doubtful(looked: Iterable[Looked], number: int) -> list[Looked]:
    """Those whose labels are contradicted most, the worst first, each photo once."""
    worst: dict[str, Looked] = {}
    for each in sorted(looked, key=lambda each: (-each.doubt, each.file_name, each.run)):
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
                "unlabelled": round(each.unlabelled, 4),
                "unfound": round(each.unfound, 4),
                "run": each.run,
                "sheet": name,
            }
        )
    write_table(out / "doubtful.csv", rows)
    words = (
        f"The {len(chosen)} of {photos:,} photos whose labels are contradicted most by networks "
        f"that were not trained on them. These are disagreements: look which side is right. "
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
    if not each.doubt:
        return "outlines or classes differ"
    return WORDS["unlabelled" if each.unlabelled > each.unfound else "unfound"]
