"""Pictures of test images: the photo, the truth over it, the prediction over it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.shards import ShardReader
from cardamage.drawing import contact_sheet, legend, overlay
from cardamage.errors import RunError
from cardamage.metrics import dice_iou_per_image
from cardamage.report.results import RunResults
from cardamage.report.wording import score

_MAX_SIDE = 640  # a picture on the page is about 300 pixels wide, on dense screens twice that

_MIN_SIDE = 192  # on the sheet, so that its titles fit


@dataclass(frozen=True)
class Picture:
    """One test image of N classes, as the page shows it.

    Attributes:
        key: of the sample.
        file_name: of the original photo.
        dice: any foreground against background, in this image.
        iou: likewise.
        photo: RGB, uint8 (H, W, 3).
        truth: the photo with the true mask over it, likewise.
        prediction: the photo with the predicted mask over it, likewise.
        truth_words: the classes in the truth.
        prediction_words: the classes in the prediction.
    """

    key: str
    file_name: str
    dice: float
    iou: float
    photo: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    truth_words: str
    prediction_words: str

    @property
    def stem(self) -> str:
        """The file name without the hash that Roboflow appends."""
        return self.file_name.partition(".rf.")[0]

    @property
    def rest(self) -> str:
        """What :attr:`stem` leaves out; often nothing."""
        return self.file_name.removeprefix(self.stem)


def test_pictures(results: RunResults) -> list[Picture]:
    """The test images whose predicted maps were kept; none where the tested shards are not here.

    Raises:
        DataError: a shard is damaged.
        RunError: the kept maps do not fit the shards.
    """
    result, manifest = results.result, results.manifest
    if results.shards is None or manifest is None or manifest.fingerprint != result.fingerprint:
        return []
    dice, iou = dice_iou_per_image(result.counts)
    pictures = []
    with ShardReader(results.shards, results.experiment.test.split) as reader:
        for number, predicted in zip(result.map_samples.tolist(), result.maps, strict=True):
            if not 0 <= number < len(reader) or predicted.shape != reader.image_size:
                raise RunError(
                    f"the kept maps of epoch {results.best} do not fit the shards in "
                    f"{results.shards}; delete "
                    f"{results.run.test_counts(results.experiment.test.split, results.best)} "
                    f"and test again"
                )
            sample = reader.read(number)
            pictures.append(
                Picture(
                    key=sample.key,
                    file_name=str(reader.info(number).get("file_name", sample.key)),
                    dice=float(dice[number]),
                    iou=float(iou[number]),
                    photo=sample.image,
                    truth=overlay(sample.image, sample.mask),
                    prediction=overlay(sample.image, predicted),
                    truth_words=_classes_in(sample.mask, result.class_names),
                    prediction_words=_classes_in(predicted, result.class_names),
                )
            )
    return pictures


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """A picture as JPEG, made smaller when it is larger than a page shows."""
    picture = Image.fromarray(image)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, subsampling=0)
    return stream.getvalue()


def contact_sheet_png(pictures: Sequence[Picture], class_names: Sequence[str]) -> bytes:
    """All pictures on one sheet as PNG: a row each, under a legend."""
    rows = [
        [
            (picture.stem, enlarged(picture.photo)),
            ("truth", enlarged(picture.truth)),
            (f"prediction, Dice {score(picture.dice)}", enlarged(picture.prediction)),
        ]
        for picture in pictures
    ]
    return sheet_png(rows, class_names)


def sheet_png(
    rows: Sequence[Sequence[tuple[str, Image.Image]]], class_names: Sequence[str]
) -> bytes:
    """Rows of pictures under their titles as PNG, a legend above them."""
    sheet, key = contact_sheet(rows), legend(class_names)
    whole = Image.new("RGB", (max(sheet.width, key.width), key.height + sheet.height), "white")
    whole.paste(key, (0, 0))
    whole.paste(sheet, (0, key.height))
    stream = io.BytesIO()
    whole.save(stream, "PNG")
    return stream.getvalue()


def enlarged(image: NDArray[np.uint8]) -> Image.Image:
    """A picture at least ``_MIN_SIDE`` wide and high, each pixel a square of pixels."""
    picture = Image.fromarray(image)
    times = -(-_MIN_SIDE // min(picture.size))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _classes_in(mask: NDArray[np.uint8], class_names: Sequence[str]) -> str:
    present = [class_names[i] for i in np.unique(mask).tolist() if 0 < i < len(class_names)]
    return ", ".join(present) or "none"
