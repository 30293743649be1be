"""What a reader has to know before trusting the numbers, found in the numbers themselves."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cardamage.config.recipe import SegNet
from cardamage.errors import counted
from cardamage.evaluation.metrics import without_a_model
from cardamage.report.load import RunResults, Trained
from cardamage.report.repeats import same_images
from cardamage.report.wording import score, size
from cardamage.runs.checkpoints import rule

WIDE = 0.05
"""An interval that reaches further than this to each side is called wide."""

FEW = 30
"""Fewer test images than this are few, whatever the interval says."""

RISE = 0.05
"""So much above its lowest value, relatively, a validation loss counts as risen."""


@dataclass(frozen=True)
class Notice:
    """One thing to know: a ``warning`` puts numbers in doubt, a ``note`` does not."""

    level: Literal["warning", "note"]
    text: str
    command: str | None = None
    """What mends it, to be typed into a shell."""


def run_notices(results: RunResults) -> list[Notice]:
    """What to know of one run, warnings first."""
    found = [
        *_about_model(results),
        *_about_training(results),
        *_about_test(results),
        *_about_files(results),
    ]
    return sorted(found, key=lambda notice: notice.level != "warning")


def training_notices(trained: Trained) -> list[Notice]:
    """What to know of a run that is not tested: warnings about its training."""
    return [notice for notice in _about_training(trained) if notice.level == "warning"]


def comparison_notices(runs: Sequence[RunResults], labels: Sequence[str]) -> list[Notice]:
    """Why scores of several runs may not be set side by side."""
    found = []

    def told(values: Sequence[str]) -> str:
        return "; ".join(f"{label}: {value}" for label, value in zip(labels, values, strict=True))

    reasons: list[tuple[str, list[str]]] = [
        ("have different classes", [", ".join(r.result.class_names[1:]) for r in runs]),
        ("were tested on different splits", [r.experiment.test.split for r in runs]),
    ]
    if not all(same_images(runs[0], other) for other in runs[1:]):
        reasons.append(("were tested on different packed images", [_packed_as(r) for r in runs]))
    for reason, values in reasons:
        if len(set(values)) > 1:
            text = f"The runs {reason}, so their scores do not compare. {told(values)}."
            found.append(Notice("warning", text))
    if len({str(r.experiment.loss) for r in runs}) > 1:
        found.append(
            Notice(
                "note", "The runs minimise different losses, so the column loss does not compare."
            )
        )
    rules = [rule(r.experiment.test.select_by) for r in runs]
    if len(set(rules)) > 1:
        text = f"The checkpoints were chosen by different rules. {told(rules)}."
        found.append(Notice("note", text))
    return found


def _packed_as(results: RunResults) -> str:
    data = results.experiment.data
    return (
        f"{results.images} images of {Path(data.source).name}, {size(data.image_size)}, "
        f"fingerprint {results.result.fingerprint[:8]}"
    )


def _about_model(results: RunResults) -> Iterator[Notice]:
    model = results.experiment.model
    if isinstance(model, SegNet) and model.softmax_output:
        classes = len(results.result.class_names)
        floor = -math.log(math.e / (math.e + classes - 1))
        yield Notice(
            "warning",
            f"The model ends in a softmax before cross-entropy (model.softmax_output). With "
            f"{classes} classes, background included, its loss cannot fall below {floor:.3f}; do "
            f"not compare it with the loss of other models.",
        )


def _about_training(results: Trained) -> Iterator[Notice]:
    epochs, best = results.epochs, results.best
    train, valid = results.metrics["train_loss"], results.metrics["val_loss"]
    for name, losses in (("training", train), ("validation", valid)):
        if not np.isfinite(losses).all():
            first = epochs[int(np.argmin(np.isfinite(losses)))]
            yield Notice(
                "warning",
                f"The {name} loss is not a finite number from epoch {first} on; a lower learning "
                f"rate (optim.lr) or mixed_precision: no may help.",
            )
    if len(epochs) >= 3 and np.isfinite(valid).all() and np.isfinite(train).all():
        low = int(np.argmin(valid))
        if valid[-1] > valid[low] * (1 + RISE) and train[-1] < train[low]:
            yield Notice(
                "warning",
                f"The model overfits: validation loss was lowest at epoch {epochs[low]} "
                f"({score(valid[low])}) and rose to {score(valid[-1])} by epoch {epochs[-1]}, "
                f"while training loss went on falling.",
            )
    planned = results.experiment.train.epochs
    if why := results.stages["train"].output.get("ended_early"):
        yield Notice("note", f"Training ended early: {why}.")
    elif epochs[-1] < planned:
        yield Notice(
            "note", f"{epochs[-1]} of {planned} epochs are trained; this is how it stands so far."
        )
    elif best == epochs[-1] and len(epochs) > 1 and not results.experiment.schedule.spans_epochs:
        yield Notice(
            "note",
            "The best epoch is the last one trained, so more epochs may do better:",
            f"cardamage submit {_quoted(results)} train.epochs={2 * planned}",
        )


def _about_test(results: RunResults) -> Iterator[Notice]:
    result, split, images = results.result, results.experiment.test.split, results.images
    if split != "test":
        use = "chosen" if split == "valid" else "trained"
        lacks_test = results.manifest is not None and "test" not in results.manifest.splits
        remedy = (
            "The dataset has no test split; cardamage split makes one."
            if lacks_test
            else "Test on unseen images with test.split=test."
        )
        yield Notice(
            "warning",
            f'The scores are of the split "{split}", on which this checkpoint was {use}: they '
            f"flatter it. {remedy}",
        )
    tested = counted(images, "image")
    half_width = results.intervals[results.best]["dice"].half_width
    if images < FEW or half_width > WIDE:
        reach = f": the 95 % interval of Dice reaches about ±{half_width:.2f}"
        yield Notice(
            "warning",
            f"The {split} split has {tested}, so its scores are uncertain"
            f"{reach if half_width >= 0.005 else ''}. Small differences mean little.",
        )
    total = result.counts.sum(axis=0)
    true, predicted = total.sum(axis=1), total.sum(axis=0)
    names = result.class_names[1:]
    missing = [name for name, pixels in zip(names, true[1:], strict=True) if not pixels]
    unpredicted = [
        name for name, t, p in zip(names, true[1:], predicted[1:], strict=True) if t and not p
    ]
    if not predicted[1:].any():
        yield Notice(
            "warning",
            f"The model predicts no foreground at all on these {tested}: every pixel is "
            f"background. Accuracy then only tells how much background there is.",
        )
    else:
        if unpredicted:
            yield Notice("warning", f"The model never predicts {_listed(unpredicted)}.")
        yield from _beside_no_model(results)
    if missing:
        yield Notice(
            "warning",
            f"No pixel of the {split} split is {_listed(missing)}, so nothing can be said of how "
            f"well that is found.",
        )
    untested = sorted(set(results.epochs) - set(results.tested_epochs))
    if untested:
        yield Notice(
            "note",
            f"{len(untested)} of {len(results.epochs)} epochs are not tested yet:",
            f"cardamage test {_quoted(results)}",
        )


def is_usable(results: RunResults) -> bool:
    """Whether the chosen checkpoint finds damage surely better than calling every pixel damaged."""
    _, all_foreground = without_a_model(results.result.counts)
    return results.intervals[results.best]["dice_fg"].low > all_foreground


def _beside_no_model(results: RunResults) -> Iterator[Notice]:
    all_background, all_foreground = without_a_model(results.result.counts)
    scored = results.intervals[results.best]
    dice_fg, accuracy = scored["dice_fg"].value, scored["accuracy"].value
    if dice_fg <= all_foreground:
        yield Notice(
            "warning",
            f"No better than a constant answer: calling every pixel damaged scores Foreground Dice "
            f"{score(all_foreground)} on these images, and this checkpoint scores "
            f"{score(dice_fg)}.",
        )
    if accuracy <= all_background:
        yield Notice(
            "note",
            f"Accuracy says little here: calling every pixel background scores "
            f"{score(all_background)}, and this checkpoint scores {score(accuracy)}.",
        )


def _about_files(results: RunResults) -> Iterator[Notice]:
    checkpoint = results.run.checkpoint(results.best)
    if not checkpoint.is_file():
        yield Notice(
            "warning",
            f"The checkpoint to use is no longer there: {checkpoint}. Train the run again, or put "
            f"the file back.",
        )
    yield from _about_dataset(results)
    if results.experiment.test.overlays and results.shards is None:
        yield Notice(
            "note",
            "The pictures of test images are left out, because the packed dataset is not on this "
            "machine. This packs it again:",
            f"cardamage pack {_quoted(results)}",
        )
    elif results.manifest and results.manifest.fingerprint != results.result.fingerprint:
        yield Notice(
            "warning",
            "The packed dataset is another one than was tested, so the pictures are left out. This "
            "tests again:",
            f"cardamage test {_quoted(results)}",
        )


def _about_dataset(results: RunResults) -> Iterator[Notice]:
    """Which images were not packed, and which damages are not in the masks."""
    for split, record in (results.manifest.splits if results.manifest else {}).items():
        if record.left_out:
            told = "; ".join(f"“{name}” ({why})" for name, why in record.left_out.items())
            number = counted(len(record.left_out), "image")
            yield Notice("warning", f"Left out of {split}: {number}: {told}.")
        if record.lost:
            told = ", ".join(
                f"{each.no_outline + each.no_area + each.too_thin + each.hidden:,} of the "
                f"{each.annotations:,} of {name}"
                for name, each in record.lost.items()
            )
            yield Notice(
                "note",
                f"Annotations of {split} that leave no pixel in its masks: {told}. The packed "
                f"dataset's manifest.json tells why.",
            )


def _quoted(results: Trained) -> str:
    return shlex.quote(str(results.run.root))


def _listed(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
