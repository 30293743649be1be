"""Ending training early: when, and how the learning rate comes down before.

All of it follows from the rows of ``metrics.csv``, so that a resumed run ends where an undisturbed
one does.
"""

from collections.abc import Sequence
from typing import NamedTuple

from cardamage.config.experiment import Experiment
from cardamage.errors import counted
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.tables import Row

COOL_DOWN = 0.1
"""Length of the cool-down, as a share of the epochs before it; it has one epoch at least."""


class CoolDown(NamedTuple):
    """The last epochs of a training that ends early, over which the rate falls to 0."""

    after: int
    """The epoch that it follows, counted from 1."""
    last: int
    """Its last epoch, and the run's."""
    why: str
    """In a sentence."""


def cool_down(rows: Sequence[Row], experiment: Experiment) -> CoolDown | None:
    """How a run ends early, as its epochs so far tell; None when it does not.

    It does once the score that chooses has not improved for ``train.patience`` epochs.
    """
    patience, rule = experiment.train.patience, experiment.test.select_by
    if patience is None:
        return None
    for after in range(patience + 1, len(rows) + 1):
        best = best_epoch(rows[:after], rule) or 0
        if after - best >= patience:
            last = min(after + max(1, round(COOL_DOWN * after)), experiment.train.epochs)
            return CoolDown(
                after,
                last,
                f"validation {rule} had not improved for {counted(patience, 'epoch')} after epoch "
                f"{after} (the best was epoch {best}), so the learning rate came down to 0 until "
                f"epoch {last} and training ended",
            )
    return None
