"""Whether an exported network says what the one it was made from says, on a split's images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cardamage.data.shards.reader import ShardReader
from cardamage.evaluation import metrics
from cardamage.evaluation.confusion import confusion_counts
from cardamage.export.formats import Answer
from cardamage.export.graph import Exported

SCORES = ("dice_fg", "iou_fg", "miou", "accuracy")


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images.

    Attributes:
        difference: the greatest between two probabilities of a pixel.
        other_classes: share of the pixels whose likeliest class differs.
        scores: by name, of the network and of the exported one; empty without masks.
    """

    images: int
    difference: float
    other_classes: float
    scores: dict[str, tuple[float, float]]


Batch = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]
"""Images (B, H, W, 3), and their masks (B, H, W) where there are any."""


def batches_of(
    reader: ShardReader, tile: tuple[int, int] | None, *, most: int | None, size: int = 8
) -> Iterator[Batch]:
    """The images of a split and their masks; of a network that works on tiles, a tile of each.

    Args:
        most: how many images; None for all.
        size: of a batch.
    """
    rows, columns = (slice(0, side) for side in tile or reader.image_size)
    number = len(reader) if most is None else min(most, len(reader))
    for start in range(0, number, size):
        samples = [reader.read(i) for i in range(start, min(start + size, number))]
        images = np.stack([sample.image[rows, columns] for sample in samples])
        yield images, np.stack([sample.mask[rows, columns] for sample in samples])


def compare(
    network: Exported,
    exported: Callable[[NDArray[np.uint8]], Answer],
    batches: Iterable[Batch],
    class_names: tuple[str, ...],
) -> Comparison:
    """What an exported network and the one it was made from say of the same images.

    There must be a batch at least; both networks are on the CPU.
    """
    images, pixels, others, difference = 0, 0, 0, 0.0
    counts: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    for batch, masks in batches:
        with torch.no_grad():
            expected = tuple(each.numpy() for each in network(torch.from_numpy(batch)))
        found = exported(batch)
        images, pixels = images + len(batch), pixels + found[0].size
        others += int(np.count_nonzero(expected[0] != found[0]))
        difference = max(difference, float(np.abs(expected[1] - found[1]).max()))
        if masks is not None:
            for kept, (classes, _) in zip(counts, (expected, found), strict=True):
                ids, truth = torch.from_numpy(classes).long(), torch.from_numpy(masks)
                kept.append(confusion_counts(ids, truth, len(class_names)).numpy())
    scores = {}
    if counts[0]:
        mine, theirs = (
            metrics.scores(np.concatenate(each), np.full(images, np.nan), class_names)
            for each in counts
        )
        scores = {name: (mine[name], theirs[name]) for name in SCORES}
    return Comparison(images, difference, others / pixels, scores)
