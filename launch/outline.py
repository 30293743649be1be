"""The graph of a submission in a few lines: who packs for whom, who waits for whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cardamage.continuation import has_begun
from cardamage.picks import parse_pick
from launch.plan import Plan, StudyPlan

_MOST_NAMES = 16


def outline(plan: Plan) -> Iterator[str]:
    """What runs of a submission share and wait for, and what its studies compare."""
    for first, others in plan.packed_together().items():
        names = [first.root.name, *(other.root.name for other in others)]
        yield f"one dataset, packed once by {names[0]}, for {_listed(names)}"
    for each in plan.plans:
        continued = each.experiment.continue_from
        if continued and each.has("train") and not has_begun(each.run):
            which = f"{continued.checkpoint} checkpoint"
            if isinstance(continued.checkpoint, int):
                which = f"checkpoint of epoch {continued.checkpoint}"
            words = f"{each.run.root.name} begins with the {which} of {continued.run}"
            waits = each.run in plan.continues
            yield f"{words}: its train waits for that of {continued.run}" if waits else words
    for study in plan.studies:
        yield from _comparisons(study)


def _comparisons(study: StudyPlan) -> Iterator[str]:
    epochs = {plan.run.root.name: plan.experiment.train.epochs for plan in study.plans}
    for comparison in study.record.compare:
        words = []
        for asked in map(parse_pick, comparison.runs):
            pick = asked.within(epochs[asked.run])
            words.append(str(pick) if pick == asked else f"{pick} in place of {asked}")
        yield f"{comparison.name} compares {', '.join(words)}"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_NAMES - 1])}, ..., {len(names)} in all"
