"""The same test images as several checkpoints see them, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from cardamage.report.pictures import Picture, enlarged, sheet_png, test_pictures
from cardamage.report.results import RunResults
from cardamage.report.statistics import comparable
from cardamage.report.wording import score

MAX_SHOWN = 6
"""Pictures of more checkpoints than this are no longer side by side, and make a page heavy."""


@dataclass(frozen=True)
class ComparedPicture:
    """One test image, and what each checkpoint predicts on it, in the order of the comparison."""

    shown: Picture
    predictions: tuple[Picture, ...]


def compared_pictures(runs: Sequence[RunResults]) -> list[ComparedPicture]:
    """The test images whose maps were kept of every checkpoint.

    None where the checkpoints were tested on other images, where there are more than
    :data:`MAX_SHOWN`, and where the shards are not here.

    Raises:
        DataError: a shard is damaged.
        RunError: the kept maps do not fit the shards.
    """
    first = runs[0]
    alike = all(
        comparable(first.result, results.result)
        and results.experiment.test.split == first.experiment.test.split
        for results in runs
    )
    if not alike or len(runs) > MAX_SHOWN:
        return []
    kept = [{picture.key: picture for picture in test_pictures(results)} for results in runs]
    return [
        ComparedPicture(kept[0][key], tuple(pictures[key] for pictures in kept))
        for key in kept[0]
        if all(key in pictures for pictures in kept)
    ]


def compared_sheet_png(
    pictures: Sequence[ComparedPicture], labels: Sequence[str], class_names: Sequence[str]
) -> bytes:
    """All pictures on one sheet as PNG: a row each, under a legend."""
    rows: list[list[tuple[str, Image.Image]]] = [
        [
            (picture.shown.stem, enlarged(picture.shown.photo)),
            ("truth", enlarged(picture.shown.truth)),
            *(
                (f"{label}, Dice {score(prediction.dice)}", enlarged(prediction.prediction))
                for label, prediction in zip(labels, picture.predictions, strict=True)
            ),
        ]
        for picture in pictures
    ]
    return sheet_png(rows, class_names)
