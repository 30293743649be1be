"""Figures: drawn from whatever a run holds, and labels that do not cover each other."""

import dataclasses
import io
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.config.experiment import SelectBy
from cardamage.report import figures, plots
from cardamage.report.pictures import Drawing
from cardamage.runs.paths import RunPaths


def opened(drawing: Drawing) -> Image.Image:
    image = Image.open(io.BytesIO(drawing.png))
    image.load()
    return image


@pytest.mark.parametrize("draw", [figures.curves, figures.tests])
def test_a_phone_gets_a_narrow_figure(results, draw):
    wide, narrow = opened(draw(results, wide=True)), opened(draw(results, wide=False))

    assert wide.width > wide.height
    assert narrow.width < narrow.height
    assert narrow.width < wide.width


@pytest.mark.parametrize(
    ("select_by", "expected"),
    [
        ("dice", ["loss", "dice", "iou", "accuracy"]),
        ("dice_fg", ["dice_fg", "loss", "dice", "iou", "accuracy"]),
    ],
)
def test_the_score_that_chooses_always_has_a_panel(select_by: SelectBy, expected):
    assert plots.drawn_scores(select_by) == expected


def test_a_figure_is_the_same_every_time(results):
    assert figures.curves(results, wide=True) == figures.curves(results, wide=True)


def test_the_figure_of_a_desktop_is_there_as_svg_too(results):
    wide, narrow = (figures.curves(results, wide=wide) for wide in (True, False))

    assert ET.fromstring(wide.svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert list(wide.files()) == ["png", "svg"]
    assert list(narrow.files()) == ["png"]


def test_curves_without_any_value_are_drawn(results):
    nothing = {name: np.full_like(column, np.nan) for name, column in results.metrics.items()}
    nothing["epoch"] = results.metrics["epoch"]

    opened(figures.curves(dataclasses.replace(results, metrics=nothing), wide=True))


def test_infinite_losses_are_gaps(results):
    loss = results.metrics["val_loss"].copy()
    loss[2] = np.inf
    metrics = results.metrics | {"val_loss": loss}

    opened(figures.curves(dataclasses.replace(results, metrics=metrics), wide=True))


@pytest.mark.parametrize("name", ["costs 5$ or 6$", "$\\frac{$", "車 🚗"])
def test_names_of_runs_are_drawn_as_they_are(results, name):
    renamed = dataclasses.replace(results, run=RunPaths(Path(name)))

    opened(figures.compared_scores([renamed, results], [name, "other"], wide=True))
    opened(figures.compared_curves([renamed, results], [name, "other"], test=True, wide=False))


def test_runs_whose_cost_is_not_known_are_left_out_of_the_figure_of_costs(results):
    unknown = dataclasses.replace(results, cost=dataclasses.replace(results.cost, seconds=None))

    drawn = figures.compared_costs([results, unknown], ["a", "b"], wide=True)
    opened(figures.compared_costs([unknown], ["b"], wide=False))

    assert drawn == figures.compared_costs([results], ["a"], wide=True)


def test_twenty_runs_are_drawn(results):
    labels = [f"run {number}" for number in range(20)]

    opened(figures.compared_costs([results] * 20, labels, wide=True))
    opened(figures.compared_curves([results] * 20, labels, test=False, wide=True))


def test_of_many_runs_the_best_on_validation_are_named(results):
    select_by = results.experiment.test.select_by
    runs = [
        dataclasses.replace(
            results,
            metrics=results.metrics
            | {f"val_{select_by}": np.full(len(results.metrics["epoch"]), value)},
        )
        for value in (0.1, 0.9, np.nan, 0.8, 0.7, 0.2, 0.6, 0.5, 0.4)
    ]

    assert figures.named_runs(runs) == {1, 3, 4, 5, 6, 7, 8}
    assert figures.named_runs(runs[:3]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0.5], [0.5]),
        ([0.1, 0.5, 0.9], [0.1, 0.5, 0.9]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.52, 0.54], [0.42, 0.52, 0.62]),
        ([0.98, 0.99, 1.0], [0.8, 0.9, 1.0]),
        ([0.0, 0.01, 0.12], [0.0, 0.1, 0.2]),
        ([0.4, 0.5, 0.5], [0.4 - 1 / 30, 0.5 - 1 / 30, 0.6 - 1 / 30]),  # two, then the third
    ],
)
def test_labels_are_moved_as_little_as_needed(heights, expected):
    assert plots.apart(heights, gap=0.1) == pytest.approx(expected)
