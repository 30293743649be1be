"""Labels to look at: what is listed, in which order, and what it needs."""

import dataclasses

import numpy as np
import pytest

from cardamage.evaluation.results import read_result, write_result
from cardamage.report.labels import shown_suspects, suspect_table, suspects_of
from cardamage.report.pictures import file_names
from cardamage.report.run import run_report

# image, kind, class, top, left, height, width, pixels, confidence
MARK = (1, 0, 2, 3, 4, 5, 6, 20, 0.9)
LARGER = (2, 0, 1, 0, 0, 9, 9, 40, 0.85)
LABEL = (0, 1, 1, 8, 8, 4, 4, 12, 0.95)
DOUBTFUL = (0, 0, 1, 1, 1, 5, 5, 25, 0.7)


def with_rows(result, *rows):
    kept = np.array(rows, np.float32).reshape(-1, 9)
    return dataclasses.replace(
        result, damages=dataclasses.replace(result.damages, disagreements=kept)
    )


@pytest.fixture
def checked(run):
    """Three epochs, of which the last finds the labelled region after all."""
    from tests.report.conftest import load

    results = load(run)
    for epoch in results.tested_epochs:
        path = run.test_counts("test", epoch)
        write_result(path, with_rows(read_result(path), MARK, LABEL, DOUBTFUL))
    return load(run).at(1)


def test_sure_regions_are_listed_the_large_ones_first(checked):
    chosen = dataclasses.replace(
        checked, result=with_rows(checked.result, MARK, LABEL, LARGER, DOUBTFUL)
    )

    found = suspects_of(chosen)

    assert [(s.number, s.kind, s.pixels) for s in found] == [
        (2, "unlabelled", 40),
        (1, "unlabelled", 20),
        (0, "unfound", 12),
    ]
    assert found[1].class_name == chosen.result.class_names[2]
    assert found[1].box == (4, 3, 6, 5)


def test_a_damage_that_a_late_epoch_finds_is_no_suspect(checked):
    path = checked.run.test_counts("test", 3)
    write_result(path, with_rows(read_result(path), MARK))

    assert [s.kind for s in suspects_of(checked)] == ["unlabelled"]


def test_the_page_shows_them_and_a_table_has_them_all(checked):
    names = file_names(checked)
    shown = shown_suspects(checked, suspects_of(checked), names)
    report = run_report(checked)

    assert [each.file_name for each in shown] == [names[1], names[0]]
    assert shown[0].photo.shape == shown[0].truth.shape
    assert 'id="labels"' in report.page
    rows = suspect_table(suspects_of(checked), checked.result.keys.tolist(), names)
    assert report.tables["labels_to_check"] == rows
    assert rows[0]["left"] == 4


def test_a_result_of_before_they_were_kept_has_none(checked):
    damages = dataclasses.replace(checked.result.damages, disagreements=None)
    old = dataclasses.replace(checked, result=dataclasses.replace(checked.result, damages=damages))

    assert suspects_of(old) is None
    assert 'id="labels"' not in run_report(old).page
