"""Where the chosen checkpoint fails, in sentences: by size, by class, by photo."""

import numpy as np

from cardamage.errors import counted
from cardamage.evaluation.damages import SIZES
from cardamage.evaluation.metrics import dice_of_foreground, iou_of_class
from cardamage.evaluation.results import TestResult
from cardamage.report.load import RunResults
from cardamage.report.wording import in_percent, listed, score


def where_it_fails(results: RunResults) -> str:
    """Which damages, which class and which photos the chosen checkpoint does worst on."""
    result = results.result
    said = [_sizes(result), _weakest_class(result), _blind_photos(results)]
    return " ".join(filter(None, said)) or "There is no damage in these photos to fail on."


def _sizes(result: TestResult) -> str | None:
    """Damages found by size, of those sizes that there are."""
    if result.damages is None:
        return None
    by_size = result.damages.counts[:, 0].sum(axis=0, dtype=np.int64).tolist()
    parts = [
        f"{found} of {damages} {size}"
        for size, (damages, found, *_) in zip(SIZES, by_size, strict=True)
        if damages
    ]
    return f"It finds {listed(parts)} damages." if parts else None


def _weakest_class(result: TestResult) -> str | None:
    """The class of the lowest IoU, and what its pixels are mostly taken for."""
    total = result.counts.sum(axis=0, dtype=np.int64)
    true = total.sum(axis=1)
    if np.count_nonzero(true[1:]) < 2:
        return None
    iou = np.where(true > 0, iou_of_class(total), np.inf)
    weakest = 1 + int(np.argmin(iou[1:]))
    taken = total[weakest].copy()
    taken[weakest] = 0
    other = int(taken.argmax())
    name, words = result.class_names[weakest], f"IoU {score(float(iou[weakest]))}"
    if taken[other]:
        share = in_percent(float(taken[other] / true[weakest]))
        words += f"; {share} of its pixels are taken for {result.class_names[other]}"
    return f"The weakest class is “{name}”: {words}."


def _blind_photos(results: RunResults) -> str | None:
    """How many damaged photos have no pixel of damage found, else the one with the lowest Dice."""
    counts = results.result.counts
    is_damaged = counts[:, 1:].sum(axis=(1, 2)) > 0
    if not is_damaged.any():
        return None
    hit = counts[:, 1:, 1:].sum(axis=(1, 2))
    blind = int((is_damaged & (hit == 0)).sum())
    damaged = counted(int(is_damaged.sum()), "photo")
    if blind:
        return f"In {blind} of {damaged} with damage it finds no pixel of it."
    dice = np.where(is_damaged, dice_of_foreground(counts), np.inf)
    worst = int(np.argmin(dice))
    return f"The worst photo is {photo_name(results, worst)}, Dice {score(float(dice[worst]))}."


def photo_name(results: RunResults, number: int) -> str:
    """A photo's file name where the packed dataset is here, else its key."""
    key = str(results.result.keys[number])
    manifest = results.manifest
    if results.shards is None or manifest is None:
        return f"sample {key}"
    if manifest.fingerprint != results.result.fingerprint:
        return f"sample {key}"
    with results.tested_split() as reader:
        return str(reader.info(number).get("file_name", key)).partition(".rf.")[0]
