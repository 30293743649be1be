"""The section on damages: its sentence, its table and its curves, from counts given by hand."""

import dataclasses

import numpy as np
import pytest

from cardamage.data.shards.manifest import AgreementRecord
from cardamage.evaluation.damages import BINS, UNIT, Damages
from cardamage.report import damages
from cardamage.report.run import run_report


def with_counts(results, counts):
    """The result with these damages, found, marks and false of all damage in the first image."""
    table = np.zeros((len(results.result.counts), 3, 3, 4), np.int32)
    table[0, 0, 1] = counts
    table[0, 1, 1] = counts
    found = dataclasses.replace(results.result.damages, counts=table)
    return dataclasses.replace(results.result, damages=found)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((4, 3, 5, 1), "finds 3 of 4 damages; 1 of 5 marks are false"),
        ((503, 352, 100, 21), "finds about 7 of 10 damages; about 2 of 10 marks are false"),
        ((100, 99, 100, 1), "finds 99 of 100 damages; 1 of 100 marks are false"),
        ((48, 43, 40, 1), "finds about 9 of 10 damages; 1 of 40 marks are false"),
        ((1000, 1000, 1000, 1), "finds all 1000 damages; less than 1 of 100 marks are false"),
        ((3, 0, 0, 0), "finds none of the 3 damages; it marks nothing"),
        ((0, 0, 2, 2), "there is no damage to find; all of its 2 marks are false"),
    ],
)
def test_a_share_is_said_in_tenths(results, counts, words):
    assert damages.damage_words(with_counts(results, counts)) == words


def test_classes_and_sizes_add_up(results):
    section = damages.damage_section(results.result)
    totals = results.result.damages.counts.sum(axis=0)

    assert [row["name"] for row in section["rows"]] == ["any damage", "scratch", "dent"]
    for row, by_size in zip(section["rows"], totals, strict=True):
        *sizes, whole = row["cells"]
        for cell, outcomes in zip(sizes, by_size.tolist(), strict=True):
            assert [cell.damages, cell.found, cell.marks, cell.false] == outcomes
        assert whole.damages == sum(cell.damages for cell in sizes)
        assert whole.false == sum(cell.false for cell in sizes)
    found = totals[0].sum(axis=0)
    assert section["found"].value == found[1] / found[0]
    assert section["found"].low <= section["found"].value <= section["found"].high


def test_photos_are_noticed_from_the_threshold_on():
    presence = np.array([0.5, 0.4, 0.9, 0.1], np.float32)
    is_damaged = np.array([True, True, False, False])
    sensitivity, specificity = damages.presence_at(presence, is_damaged, 0.5)

    assert (sensitivity.value, specificity.value) == (0.5, 0.5)


def test_bins_without_pixels_are_not_drawn(results):
    reliability = np.zeros((BINS, 3), np.int64)
    reliability[3] = (10, 2, round(1.75 * UNIT))
    found = Damages(results.result.damages.counts, results.result.damages.presence, reliability)
    section = damages.damage_section(dataclasses.replace(results.result, damages=found))

    ((point,),) = (line.points for line in section["reliability_lines"])
    assert point == pytest.approx((0.175, 0.2))
    assert section["calibration_error"] == pytest.approx(0.025)


def test_results_of_before_say_nothing_of_damages(results):
    old = dataclasses.replace(results, result=dataclasses.replace(results.result, damages=None))
    report = run_report(old)

    assert damages.damage_words(old.result) is None
    assert 'id="damages"' not in report.page
    assert "damages" not in report.tables
    assert "found" not in report.tables["images"][0]


def test_how_far_annotators_agree_is_said_where_the_manifest_knows(results):
    agreed = AgreementRecord(photos=22, dice=0.782, low=0.67, high=0.88, classes={})
    manifest = results.manifest.model_copy(update={"label_agreement": agreed})
    page = run_report(dataclasses.replace(results, manifest=manifest)).page

    assert "22 photos" in page
    assert "0.782" in page
    assert "labelled more than once" not in run_report(results).page
