"""The answer a report begins with: which checkpoint, how good, how sure, and what next."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np

from cardamage.config.dataset import SYNTHETIC
from cardamage.errors import counted
from cardamage.evaluation.intervals import Estimate
from cardamage.report.damages import damage_words, found_and_false
from cardamage.report.failures import photo_name, where_it_fails
from cardamage.report.load import RunResults
from cardamage.report.notices import is_usable
from cardamage.report.selection import (
    alike_epochs,
    best_constant,
    most_influential,
    other_choices,
    promised_too_much,
)
from cardamage.report.wording import (
    each_of_ten,
    in_sentence,
    interval,
    listed,
    rule_words,
    score,
    signed,
    title,
)

_MOST_EPOCHS = 5  # that a verdict names


@dataclass(frozen=True)
class Answer:
    """What the first screen of a report says.

    Attributes:
        verdict: how good and how sure, in two or three sentences.
        figures: name, value, and whether it is a share to be told in percent, of what to see first.
        points: question and answer, each answer a few plain sentences.
        command: predicts with the checkpoint; None where there is none to use.
    """

    headline: str
    verdict: str
    figures: tuple[tuple[str, Estimate, bool], ...]
    is_usable: bool
    points: tuple[tuple[str, str], ...]
    command: str | None


def run_answer(results: RunResults) -> Answer:
    """The answer of the report of one run."""
    usable, best = is_usable(results), results.best
    alike = alike_epochs(results) if len(results.course.epochs) > 1 else None
    points = [
        ("Why this one", _why(results)),
        ("How good", " ".join(quality(results))),
        ("How sure", " ".join(_certainty(results, alike))),
        ("Where it fails", where_it_fails(results)),
        ("Without a model", constant_answer(results)),
        *([] if usable else [("What to try", what_to_try(results))]),
        *_choosing(results),
    ]
    headline = "Checkpoint to use" if usable else "Not usable yet, the best so far"
    firm = "" if alike is None else _firm(results, alike)
    return Answer(
        headline=f"{headline}: epoch {best}",
        verdict=f"{verdict(results)} {firm}".rstrip(),
        figures=key_figures(results),
        is_usable=usable,
        points=tuple(points),
        command=predict_command(results),
    )


def verdict(results: RunResults) -> str:
    """What the chosen checkpoint does, in a sentence or two."""
    words = damage_words(results.result)
    does = f"On {_split(results)} it {words}." if words else _by_area(results)
    if is_usable(results):
        return does
    return f"It is not surely better than calling every pixel damaged. {does}"


def key_figures(results: RunResults) -> tuple[tuple[str, Estimate, bool], ...]:
    """Damages found, false marks, and the score that chooses, with their intervals."""
    select_by = results.experiment.test.select_by
    chosen = title(select_by), results.intervals[results.best][select_by], False
    shares = found_and_false(results.result)
    if shares is None:
        return (chosen,)
    names = ("damages found", "marks that are false")
    return (*((name, share, True) for name, share in zip(names, shares, strict=True)), chosen)


def _firm(results: RunResults, alike: Sequence[int]) -> str:
    images = len(next(iter(results.course.epochs[results.best].without.values())))
    split = results.course.split
    told = f"{images} {'validation' if split == 'valid' else split} photos"
    if not alike:
        return f"On {told} every other epoch differs by more than chance."
    if len(alike) > _MOST_EPOCHS:
        return f"On {told} {len(alike)} other epochs cannot be told from it."
    epochs = "epoch" if len(alike) == 1 else "epochs"
    return f"On {told} {epochs} {listed(list(map(str, alike)))} cannot be told from it."


def predict_command(results: RunResults) -> str:
    """What predicts with the chosen checkpoint."""
    run = shlex.quote(str(results.run.root))
    return f"cardamage predict {run} --images PHOTOS --checkpoint {results.best} --out OUT"


def _why(results: RunResults) -> str:
    select_by, epochs = results.experiment.test.select_by, len(results.epochs)
    value = score(results.validation(select_by, results.best))
    said = f"It has the {rule_words(select_by)} ({value}) of {counted(epochs, 'epoch')}."
    is_unseen = results.experiment.test.split == "test"
    return f"{said} The test split had no say in it." if is_unseen else said


def quality(results: RunResults) -> list[str]:
    """How good the chosen checkpoint is by pixels, and on photos without damage, in sentences."""
    total = results.result.counts.sum(axis=0)
    hit, right = total[1:, 1:].sum(), np.diag(total)[1:].sum()
    said = [_by_area(results)]
    if len(total) > 2 and hit:
        said.append(f"It names the right class for {each_of_ten(right, hit, 'pixels it finds')}.")
    return [*said, *_clean_photos(results)]


def _by_area(results: RunResults) -> str:
    total = results.result.counts.sum(axis=0)
    true, marked, hit = total[1:].sum(), total[:, 1:].sum(), total[1:, 1:].sum()
    said = f"By area it finds {each_of_ten(hit, true, 'damaged pixels')}"
    if marked:
        said += f"; {each_of_ten(marked - hit, marked, 'pixels it marks')} are false"
    return f"{said}."


def _clean_photos(results: RunResults) -> list[str]:
    """Photos without damage, which scores that count pixels hardly see."""
    counts = results.result.counts
    clean = counts[:, 1:].sum(axis=(1, 2)) == 0
    if not clean.any():
        return []
    marked = int((counts[clean][:, 0, 1:].sum(axis=1) > 0).sum())
    return [
        (
            f"Of {counted(int(clean.sum()), 'photo')} without damage it leaves "
            f"{int(clean.sum()) - marked} unmarked."
        )
    ]


def _certainty(results: RunResults, alike: Sequence[int] | None) -> list[str]:
    select_by = results.experiment.test.select_by
    estimate = results.intervals[results.best][select_by]
    said = [
        (
            f"{title(select_by)} {score(estimate.value)}, 95 % interval "
            f"{interval(estimate.low, estimate.high)} for other photos like these {results.images}."
        )
    ]
    if found := most_influential(results, select_by):
        said.append(
            f"Without the photo that weighs most ({photo_name(results, found.image)}) it would be "
            f"{score(found.without)}."
        )
    if alike is not None:
        split = "validation" if results.course.split == "valid" else results.course.split
        paired = f"by the same {split} photos, corrected for the number of epochs"
        if not alike:
            said.append(f"Every other epoch differs by more than chance ({paired}).")
        else:
            number = "Epoch" if len(alike) == 1 else "Epochs"
            epochs = listed(list(map(str, alike)))
            said.append(f"{number} {epochs} cannot be told from it ({paired}).")
    return said


def constant_answer(results: RunResults) -> str:
    """Whether an answer that looks at no photo does as well."""
    select_by = results.experiment.test.select_by
    columns = dict.fromkeys(["dice_fg", *([select_by] if select_by != "loss" else [])])
    said = []
    for column in columns:
        name, value = best_constant(results, column)
        if isnan(value):
            continue
        estimate = results.intervals[results.best][column]
        beaten = (
            "clearly more"
            if estimate.low > value
            else "more, but within the uncertainty"
            if estimate.value > value
            else "no more"
        )
        what = "background" if name == results.result.class_names[0] else f"“{name}”"
        said.append(
            f"Calling every pixel {what} scores {title(column)} {score(value)}; this checkpoint "
            f"{score(estimate.value)}, {beaten}."
        )
    return " ".join(said) or "No constant answer has a score on these photos."


def what_to_try(results: RunResults) -> str:
    """Where to begin with a model that is no better than a constant answer."""
    experiment, steps = results.experiment, []
    if experiment.data.source != SYNTHETIC:
        steps.append(
            f"look at the labels (cardamage preview {shlex.quote(experiment.data.source)} "
            f"--out DIR; cardamage audit)"
        )
    if results.best == results.epochs[-1]:
        steps.append(f"train longer (train.epochs={2 * results.epochs[-1]})")
    if {loss.name for loss in experiment.losses} == {"cross_entropy"}:
        steps.append(
            'add a loss that damage weighs more in (loss="[{name: cross_entropy}, {name: dice}]")'
        )
    if experiment.weights == "none":
        steps.append("begin with pretrained weights (model.name=smp)")
    steps.append("try another learning rate (optim.lr)")
    text = "; ".join(steps)
    return f"{text[0].upper()}{text[1:]}."


def _choosing(results: RunResults) -> list[tuple[str, str]]:
    """What other rules would have picked, and what choosing on the test split would promise."""
    if len(results.tested_epochs) < 2:
        return []
    column = title(results.experiment.test.select_by)
    others = other_choices(results)
    words = [
        f"{listed(list(map(in_sentence, choice.rules)))} "
        f"{'pick' if len(choice.rules) > 1 else 'picks'} "
        + (
            "the same"
            if choice.epoch == results.best
            else f"epoch {choice.epoch} ({column} {signed(choice.gain)} on {_split(results)})"
        )
        for choice in others
    ]
    text = "; ".join(words)
    epoch, excess = promised_too_much(results)
    promise = (
        f"The epoch chosen on the validation split also scores best on {_split(results)}."
        if excess <= 0
        else f"Epoch {epoch} scores best there. A report that chose it for that would promise "
        f"{score(excess)} too much."
    )
    points = [("Other rules", f"{text}.")]
    if results.experiment.test.split == "test" and not isnan(excess):
        points.append(("Choosing on test", promise))
    return points


def _split(results: RunResults) -> str:
    return f"the {results.experiment.test.split} split"
