"""Who leads a comparison, by how much, and the answer that follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

from cardamage.errors import counted
from cardamage.evaluation.intervals import Estimate, difference, estimates, holm, interval, p_value
from cardamage.evaluation.metrics import HEADLINES
from cardamage.report.answer import (
    Answer,
    constant_answer,
    key_figures,
    predict_command,
    quality,
    verdict,
    what_to_try,
)
from cardamage.report.failures import where_it_fails
from cardamage.report.notices import is_usable
from cardamage.report.repeats import Group, same_images
from cardamage.report.selection import ALPHA
from cardamage.report.wording import interval as interval_words
from cardamage.report.wording import listed, rule_words, score, title


@dataclass(frozen=True)
class Rival:
    """Another setting, and the scores of the leader minus its own on the same images.

    Attributes:
        p: of each difference, corrected by Holm's method for the number of rivals.
    """

    label: str
    differences: dict[str, Estimate]
    p: dict[str, float]

    def is_certain(self, column: str) -> bool:
        """Whether the difference is more than chance."""
        return self.p[column] < ALPHA


def leading(groups: Sequence[Group], select_by: str) -> int:
    """Which setting is best on its validation split, on average over its runs.

    The first of equals, and never an undefined one.

    Args:
        select_by: a score; ``loss`` is best when lowest, the others when highest.
    """
    sign = 1.0 if select_by == "loss" else -1.0

    def rank(number: int) -> tuple[bool, float]:
        value = groups[number].validation(select_by)
        return isnan(value), 0.0 if isnan(value) else sign * value

    return min(range(len(groups)), key=rank)


def rivals_of(groups: Sequence[Group], leader: int) -> tuple[list[Rival], list[str]]:
    """The leader's lead over each other setting, and those that were tested on other images."""
    first = groups[leader]
    sampled = first.sampled()
    labels, found, unpaired = [], [], []
    for group in groups:
        if group is first:
            continue
        other = group.sampled() if same_images(first.runs[0], group.runs[0]) else None
        if sampled is None or other is None:
            unpaired.append(group.label)
            continue
        labels.append(group.label)
        found.append(difference(sampled, other))
    p = {column: holm([p_value(each, column) for each in found]) for column in HEADLINES}
    rivals = [
        Rival(label, estimates(each), {column: p[column][i] for column in HEADLINES})
        for i, (label, each) in enumerate(zip(labels, found, strict=True))
    ]
    return rivals, unpaired


def alike(rivals: Sequence[Rival], column: str) -> list[str]:
    """The settings that cannot be told from the leader by a score."""
    return [rival.label for rival in rivals if not rival.is_certain(column)]


def headline(group: Group, rivals: Sequence[Rival], select_by: str) -> str:
    """Who leads in a few words, no surer than the intervals are."""
    if not is_usable(group.runs[group.best(select_by)]):
        return f"{group.label} is the best so far, and not usable yet"
    if not rivals and len(group.runs) > 1:
        return f"{len(group.runs)} runs of one setting"
    if not (others := alike(rivals, select_by)):
        return f"{group.label} leads"
    told = others[0] if len(others) == 1 else f"{len(others)} others"
    return f"{group.label} is ahead, and cannot be told from {told}"


def comparison_answer(
    groups: Sequence[Group],
    labels: Sequence[str],
    leader: int,
    *,
    rivals: Sequence[Rival],
    unpaired: Sequence[str],
    select_by: str,
) -> Answer:
    """The answer of a comparison whose scores compare.

    Args:
        labels: of the runs.
    """
    group = groups[leader]
    place = group.best(select_by)
    best, label = group.runs[place], labels[group.numbers[place]]
    usable = is_usable(best)
    points = [
        ("Why this one", _why(groups, labels, leader, label, select_by)),
        ("How good", " ".join(quality(best))),
        ("How sure", " ".join(_certainty(group, rivals, unpaired, select_by))),
        ("Where it fails", where_it_fails(best)),
        ("Without a model", constant_answer(best)),
        *([] if usable else [("What to try", what_to_try(best))]),
        ("Choosing on test", _promise(groups, labels, best, select_by)),
    ]
    use = "Checkpoint to use" if usable else "Not usable yet, the best so far"
    where = label if best.is_picked else f"{label}, epoch {best.best}"
    return Answer(
        headline=f"{use}: {where}",
        verdict=verdict(best),
        figures=key_figures(best),
        is_usable=usable,
        points=tuple(points),
        command=predict_command(best),
    )


def _why(
    groups: Sequence[Group], labels: Sequence[str], leader: int, label: str, select_by: str
) -> str:
    group = groups[leader]
    value = score(group.validation(select_by))
    if all(len(each.runs) == 1 for each in groups):
        what = "checkpoints" if group.runs[0].is_picked else "runs"
        return f"It has the {rule_words(select_by)} ({value}) of {len(groups)} {what}."
    said = (
        f"{group.label}, {counted(len(group.runs), 'run')}: the {rule_words(select_by)} on "
        f"average, {_with_spread(group, select_by)}, of {counted(len(groups), 'setting')}. "
        f"{label} is its best run."
    )
    sign = -1.0 if select_by == "loss" else 1.0
    singles = [
        (sign * value, number, each)
        for each in groups
        for number, value in zip(each.numbers, each.validations(select_by), strict=True)
        if not isnan(value)
    ]
    _, number, lucky = max(singles, key=lambda single: single[0])
    if lucky is not group:
        said += (
            f" {labels[number]} has the best single score, but {lucky.label} comes to "
            f"{_with_spread(lucky, select_by)} on average."
        )
    return said


def _with_spread(group: Group, column: str) -> str:
    spread = group.spread(column)
    value = score(group.validation(column))
    return value if isnan(spread) else f"{value} (standard deviation {score(spread)})"


def _certainty(
    group: Group, rivals: Sequence[Rival], unpaired: Sequence[str], select_by: str
) -> list[str]:
    said = []
    repeats, images = len(group.runs), group.runs[0].images
    if sampled := group.sampled():
        found = interval(sampled, select_by)
        mean = f" on average over the {repeats} runs of {group.label}" if repeats > 1 else ""
        unit = f"{images} photos and these runs" if repeats > 1 else f"{images} photos"
        said.append(
            f"{title(select_by)}{mean} {score(found.value)}, 95 % interval "
            f"{interval_words(found.low, found.high)} over {unit}."
        )
    paired = "by the same photos" + (" and the runs of each" if repeats > 1 else "")
    if len(rivals) > 1:
        paired += f", corrected for {len(rivals)} comparisons"
    if others := alike(rivals, select_by):
        said.append(f"{_named(others)} cannot be told from it ({paired}).")
    elif rivals:
        which = "The other differs" if len(rivals) == 1 else "Every other differs"
        said.append(f"{which} by more than chance ({paired}).")
    sign = -1.0 if select_by == "loss" else 1.0
    better = [
        rival.label
        for rival in rivals
        if rival.is_certain(select_by) and sign * rival.differences[select_by].value < 0
    ]
    if better:
        said.append(
            f"{_named(better)} {'tests' if len(better) == 1 else 'test'} better by more than "
            f"chance, although validation says otherwise: look at both splits."
        )
    if unpaired:
        said.append(f"{_named(unpaired)} cannot be set beside it image by image.")
    if repeats == 1:
        said.append("It was trained once; another seed may score otherwise.")
    return said


def _named(labels: Sequence[str]) -> str:
    """Up to five of them, and how many more."""
    return listed(labels if len(labels) <= 5 else [*labels[:4], f"{len(labels) - 4} more"])


def _promise(groups: Sequence[Group], labels: Sequence[str], chosen: object, select_by: str) -> str:
    """By how much choosing a run by its test score would have flattered it."""
    sign = -1.0 if select_by == "loss" else 1.0
    tested = [
        (sign * run.sampled.values[select_by], labels[number], run)
        for group in groups
        for number, run in zip(group.numbers, group.runs, strict=True)
        if not isnan(run.sampled.values[select_by])
    ]
    if not tested:
        return "No test score is defined."
    value, label, run = max(tested, key=lambda each: each[0])
    own = next((v for v, _, each in tested if each is chosen), value)
    if run is chosen or value <= own:
        return "The checkpoint chosen on the validation split also scores best on the test split."
    return (
        f"{label} scores best there. A report that chose it for that would promise "
        f"{score(value - own)} too much."
    )
