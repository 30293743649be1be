"""Pictures of test images: the photo, the truth over it, the prediction over it."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.drawing import contact_sheet, legend, overlay
from cardamage.errors import RunError
from cardamage.evaluation.intervals import comparable
from cardamage.evaluation.metrics import scores_per_image
from cardamage.report.load import RunResults
from cardamage.report.wording import score

MAX_PICTURES = 6
"""Images that are shown without the page's script, and on paper."""

MAX_SHOWN = 6
"""Pictures of more checkpoints than this are no longer side by side, and make a page heavy."""

_MAX_SIDE = 640  # a picture on the page is about 300 pixels wide, on dense screens twice that
_MIN_SIDE = 192  # on the sheet, so that its titles fit


@dataclass(frozen=True)
class Drawing:
    """A figure as PNG, and as SVG where it is made of lines; else ``svg`` is empty."""

    png: bytes
    svg: bytes = b""

    def files(self) -> dict[str, bytes]:
        """Its content by suffix."""
        return {"png": self.png, "svg": self.svg} if self.svg else {"png": self.png}


@dataclass(frozen=True)
class Picture:
    """One test image of N classes, as the page shows it.

    Attributes:
        dice: any foreground against background, in this image.
        iou: likewise.
        photo: RGB, uint8 (H, W, 3).
        truth: the photo with the true mask over it, likewise.
        prediction: the photo with the predicted mask over it, likewise.
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
    """Up to :data:`MAX_PICTURES` test images whose maps were kept, spread evenly over them.

    None where the tested shards are not here.

    Raises:
        DataError: a shard is damaged.
        RunError: the kept maps do not fit the shards.
    """
    result, manifest = results.result, results.manifest
    if results.shards is None or manifest is None or manifest.fingerprint != result.fingerprint:
        return []
    each = scores_per_image(result.counts, result.loss)
    pictures = []
    kept = list(zip(result.map_samples.tolist(), result.maps, strict=True))
    if len(kept) > MAX_PICTURES:
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, MAX_PICTURES).round().astype(int)]
    with results.tested_split() as reader:
        for number, png in kept:
            predicted = np.asarray(Image.open(io.BytesIO(png)))
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
                    dice=float(each["dice"][number]),
                    iou=float(each["iou"][number]),
                    photo=sample.image,
                    truth=overlay(sample.image, sample.mask),
                    prediction=overlay(sample.image, predicted),
                    truth_words=_classes_in(sample.mask, result.class_names),
                    prediction_words=_classes_in(predicted, result.class_names),
                )
            )
    return pictures


def file_names(results: RunResults) -> list[str]:
    """The name of each test image's file; its key where the tested shards are not here.

    Raises:
        DataError: a shard is damaged.
    """
    result, manifest = results.result, results.manifest
    keys: list[str] = result.keys.tolist()
    if results.shards is None or manifest is None or manifest.fingerprint != result.fingerprint:
        return keys
    with results.tested_split() as reader:
        infos = zip(keys, reader.infos(), strict=True)
        return [str(info.get("file_name", key)) for key, info in infos]


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """A picture as JPEG, made smaller when it is larger than a page shows."""
    picture = Image.fromarray(image)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=88, subsampling=0)
    return stream.getvalue()


def _enlarged(image: NDArray[np.uint8]) -> Image.Image:
    """A picture at least ``_MIN_SIDE`` wide and high, each pixel a square of pixels."""
    picture = Image.fromarray(image)
    times = -(-_MIN_SIDE // min(picture.size))
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _classes_in(mask: NDArray[np.uint8], class_names: Sequence[str]) -> str:
    present = [class_names[i] for i in np.unique(mask).tolist() if 0 < i < len(class_names)]
    return ", ".join(present) or "none"


@dataclass(frozen=True)
class ComparedPicture:
    """One test image, and what each checkpoint predicts on it, in the order of the comparison."""

    shown: Picture
    predictions: tuple[Picture, ...]


def tested_alike(a: RunResults, b: RunResults) -> bool:
    """Whether two checkpoints were tested on the same images, split and classes."""
    return a.experiment.test.split == b.experiment.test.split and comparable(a.result, b.result)


def compared_pictures(runs: Sequence[RunResults]) -> list[ComparedPicture]:
    """The test images whose maps were kept of every checkpoint.

    None where the checkpoints were tested on other images, where there are more than
    :data:`MAX_SHOWN`, and where the shards are not here.

    Raises:
        DataError: a shard is damaged.
        RunError: the kept maps do not fit the shards.
    """
    if not all(tested_alike(runs[0], results) for results in runs) or len(runs) > MAX_SHOWN:
        return []
    kept = [{picture.key: picture for picture in test_pictures(results)} for results in runs]
    return [
        ComparedPicture(kept[0][key], tuple(pictures[key] for pictures in kept))
        for key in kept[0]
        if all(key in pictures for pictures in kept)
    ]


def picture_sheet(
    pictures: Sequence[ComparedPicture], labels: Sequence[str], class_names: Sequence[str]
) -> Drawing:
    """All pictures on one sheet, a row each, under a legend.

    Args:
        class_names: by class id, background first.
    """
    sheet = contact_sheet(
        [
            [
                (picture.shown.stem, _enlarged(picture.shown.photo)),
                ("truth", _enlarged(picture.shown.truth)),
                *(
                    (f"{label}, Dice {score(prediction.dice)}", _enlarged(prediction.prediction))
                    for label, prediction in zip(labels, picture.predictions, strict=True)
                ),
            ]
            for picture in pictures
        ]
    )
    key = legend(class_names)
    whole = Image.new("RGB", (max(sheet.width, key.width), key.height + sheet.height), "white")
    whole.paste(key, (0, 0))
    whole.paste(sheet, (0, key.height))
    stream = io.BytesIO()
    whole.save(stream, "PNG")
    return Drawing(stream.getvalue())
