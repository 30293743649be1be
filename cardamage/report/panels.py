"""The panels of a report: figures with a heading and a caption, in the order of the page.

To add one: a function that draws it in :mod:`~cardamage.report.figures`, and its entry here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cardamage.report import figures, wording
from cardamage.report.pictures import Drawing
from cardamage.report.plots import drawn_scores


@dataclass(frozen=True)
class Panel:
    """A figure of a page.

    Attributes:
        name: of its files, without suffix, and of its place on the page.
        caption: below it; may name ``{split}``, the tested one, and ``{images}``, how many it has.
        draw: draws what the page is of; ``wide`` asks for that of a desktop, not a phone.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[..., Drawing]


@dataclass(frozen=True)
class Illustration:
    """A panel, drawn.

    Attributes:
        wide: for a desktop; this one is also written beside the page.
        narrow: for a phone.
    """

    name: str
    heading: str
    caption: str
    wide: Drawing
    narrow: Drawing
    alt: str


RUN = (
    Panel(
        "curves",
        "Training and validation",
        "The scores of each epoch on the training and the validation split. Training scores are "
        "gathered while the weights still change. The ring marks the chosen epoch.",
        figures.curves,
    ),
    Panel(
        "tests",
        "Test of every checkpoint",
        "Scores on the {split} split ({images}). Vertical bars are 95 % intervals; the ring marks "
        "the epoch chosen on the validation split.",
        figures.tests,
    ),
)
"""Panels of the report of one run; drawn from its results."""

SCORES = Panel(
    "scores",
    "Test scores",
    "The same scores: a dot at the score, a bar over its 95 % interval.",
    figures.compared_scores,
)
"""The panel below the first table of a comparison; drawn as those of :data:`COMPARISON`."""

COSTS = Panel(
    "costs",
    "Score against cost",
    "The validation score of each chosen epoch against the time of training, all attempts "
    "together. Rings, joined by a line, are the Pareto front: runs that no other beats in both.",
    figures.compared_costs,
)
"""The panel of a comparison's section on cost; drawn as those of :data:`COMPARISON`."""

SWEEP = Panel(
    "sweep",
    "The sweep",
    "Scores over {key}, each the mean over the runs of a setting. Blue: validation, by which "
    "settings are chosen, with the standard deviation over the runs. Green: the {split} split, "
    "with 95 % intervals. The ring marks the setting that leads.",
    figures.sweep,
)
"""The panel of a sweep over the numbers of one key; drawn from it and the leading setting."""

COMPARISON = (
    Panel(
        "validation",
        "Validation",
        "Scores on the validation split over the epochs. Rings mark the chosen epochs.{grey}",
        partial(figures.compared_curves, test=False),
    ),
    Panel(
        "tests",
        "Test of every checkpoint",
        "Scores on the {split} split over the epochs. Rings mark the epochs chosen on the "
        "validation split.{grey}",
        partial(figures.compared_curves, test=True),
    ),
)
"""Panels of a comparison of runs; drawn from the results of the runs and their labels."""


def illustrate(panel: Panel, *shown: object, select_by: str, **words: str) -> Illustration:
    """A panel drawn in both widths."""
    caption = panel.caption.format(**words)
    scores = ", ".join(wording.title(column) for column in drawn_scores(select_by))
    return Illustration(
        panel.name,
        panel.heading,
        caption,
        panel.draw(*shown, wide=True),
        panel.draw(*shown, wide=False),
        f"{panel.heading}: {scores}. {caption}",
    )
