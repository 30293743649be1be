"""The gallery of test images: what a page needs to show, sort and compare them by itself.

A photo is a JPEG, its truth and every prediction a PNG of class colours to lay over it, as testing
kept them. The page draws error maps from these, so any two checkpoints can be set against each
other without another picture. What does not fit :data:`PHOTO_BYTES` and :data:`MAP_BYTES` is left
out, and the page says so.
"""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.drawing import layer_png
from cardamage.errors import RunError
from cardamage.evaluation.damages import count_damages
from cardamage.evaluation.metrics import scores_per_image
from cardamage.evaluation.results import TestResult, read_result
from cardamage.labels import colour
from cardamage.report.load import RunResults

PHOTO_BYTES, MAP_BYTES = 11_000_000, 9_000_000
"""Of photos with their truths, and of predicted maps, at most; base64 makes them a third larger."""

_SIDES_PX = ((40, 640), (150, 480), (300, 360))  # up to so many images, the longer side of a photo
_LEAST_SIDE_PX = 300


@dataclass(frozen=True)
class Side:
    """A checkpoint whose predictions are shown."""

    label: str
    result: TestResult


@dataclass(frozen=True)
class Gallery:
    """The images of a page.

    Attributes:
        data: the JSON that ``gallery.js`` reads, safe inside a script element.
        shown: how many images are in it.
        images: how many the split has.
        whole: of how many every checkpoint's map is in it.
        is_over_epochs: whether the checkpoints are the epochs of one run.
        ratio: width of an image by its height.
    """

    data: Markup
    shown: int
    images: int
    whole: int
    sides: int
    is_over_epochs: bool
    ratio: float


def gallery_of_run(results: RunResults) -> Gallery | None:
    """The test images under every tested epoch; None where their photos or maps are not here.

    Raises:
        DataError: a shard is damaged.
        RunError: a result is damaged, or its maps do not fit the shards.
    """
    split = results.experiment.test.split
    sides = [
        Side(
            f"epoch {epoch}",
            results.result
            if epoch == results.best
            else read_result(results.run.test_counts(split, epoch)),
        )
        for epoch in results.tested_epochs
    ]
    at = results.tested_epochs.index(results.best)
    return _gallery(results, sides, at, is_over_epochs=True)


def gallery_of_runs(
    runs: Sequence[RunResults], labels: Sequence[str], leader: int
) -> Gallery | None:
    """The test images under the checkpoint of each run; None where there is nothing to show.

    Args:
        runs: tested on the same images, in the order of the page.
        leader: the number of the run whose maps come first.

    Raises:
        DataError: a shard is damaged.
        RunError: kept maps do not fit the shards.
    """
    sides = [Side(label, run.result) for label, run in zip(labels, runs, strict=True)]
    return _gallery(runs[leader], sides, leader, is_over_epochs=False)


def _gallery(
    results: RunResults, sides: Sequence[Side], chosen: int, *, is_over_epochs: bool
) -> Gallery | None:
    manifest, result = results.manifest, sides[chosen].result
    if results.shards is None or manifest is None or manifest.fingerprint != result.fingerprint:
        return None
    maps = [dict(zip(s.result.map_samples.tolist(), s.result.maps, strict=True)) for s in sides]
    dice = np.stack(
        [scores_per_image(s.result.counts, s.result.loss)["dice"] for s in sides], axis=1
    )
    order = _by_interest(dice, chosen, sorted(maps[chosen]))
    if not order:
        return None
    longer = next((side for most, side in _SIDES_PX if len(order) <= most), _LEAST_SIDE_PX)
    shown: list[dict[str, Any]] = []
    photo_bytes = map_bytes = whole = 0
    with results.tested_split() as reader:
        height, width = reader.image_size
        for number in order:
            if not 0 <= number < len(reader):
                raise _unfitting(results)
            sample = reader.read(number)
            photo, truth = _photo(sample.image, longer), layer_png(sample.mask)
            photo_bytes += len(photo) + len(truth)
            if shown and photo_bytes > PHOTO_BYTES:
                break
            kept: list[str | None] = [None] * len(sides)
            for side in (chosen, *(s for s in range(len(sides)) if s != chosen)):
                png = maps[side].get(number)
                if png is None or (side != chosen and map_bytes + len(png) > MAP_BYTES):
                    continue
                if side == chosen and Image.open(io.BytesIO(png)).size != reader.image_size[::-1]:
                    raise _unfitting(results)
                map_bytes += len(png)
                kept[side] = _base64(png)
            whole += None not in kept
            sizes = count_damages(sample.mask, sample.mask, len(result.class_names))[0, :, 0]
            shown.append(
                {
                    "name": str(reader.info(number).get("file_name", sample.key)),
                    "key": sample.key,
                    "photo": _base64(photo),
                    "truth": _base64(truth),
                    "maps": kept,
                    "dice": dice[number].round(6).tolist(),
                    "classes": [i for i in np.unique(sample.mask).tolist() if i],
                    "sizes": np.flatnonzero(sizes).tolist(),
                    "words": _words(result, number),
                }
            )
    data = {
        "sides": [side.label for side in sides],
        "chosen": chosen,
        "isOverEpochs": is_over_epochs,
        "classes": [
            {"id": i, "name": name, "rgb": colour(i)}
            for i, name in enumerate(result.class_names)
            if i > 0
        ],
        "images": shown,
    }
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace("&", "\\u0026")
    return Gallery(
        data=Markup(text),  # noqa: S704 - "<" and "&" are escaped
        shown=len(shown),
        images=len(result.counts),
        whole=whole,
        sides=len(sides),
        is_over_epochs=is_over_epochs,
        ratio=round(width / height, 4),
    )


def _by_interest(dice: NDArray[np.float64], chosen: int, samples: Sequence[int]) -> list[int]:
    """Sample numbers, in turn the worst of the chosen checkpoint and the one that changes most."""
    if not samples:
        return []
    of = np.array(samples)
    worst = of[np.argsort(dice[of, chosen], kind="stable")]
    most = of[np.argsort(-np.ptp(dice[of], axis=1), kind="stable")]
    return list(dict.fromkeys(np.stack([worst, most], axis=1).ravel().tolist()))


def _words(result: TestResult, number: int) -> str:
    """Damages found and false marks of one image."""
    if result.damages is None:
        return ""
    damages, found, marks, false = result.damages.counts[number, 0].sum(axis=0).tolist()
    words = f"{found} of {damages} damages found" if damages else "no damage"
    return f"{words}, {false} of {marks} marks false" if marks else f"{words}, nothing marked"


def _photo(image: NDArray[np.uint8], longer: int) -> bytes:
    picture = Image.fromarray(image)
    picture.thumbnail((longer, longer), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=82)
    return stream.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _unfitting(results: RunResults) -> RunError:
    kept = results.run.test_counts(results.experiment.test.split, results.best)
    return RunError(
        f"the kept maps of epoch {results.best} do not fit the shards in {results.shards}; delete "
        f"{kept} and test again"
    )
