"""Where a checkpoint fails, in sentences worked out by hand from counts."""

import dataclasses

import numpy as np

from cardamage.report.failures import where_it_fails


def with_counts(results, counts, damages=None):
    """The same run whose chosen checkpoint was tested with other counts, without photos here."""
    counts = np.asarray(counts, dtype=np.int64)
    keys = np.array([f"{i:08d}" for i in range(len(counts))])
    if damages is not None:
        damages = dataclasses.replace(results.result.damages, counts=damages)
    result = dataclasses.replace(results.result, counts=counts, keys=keys, damages=damages)
    return dataclasses.replace(results, result=result, shards=None)


def test_damages_are_told_by_the_sizes_that_there_are(results):
    table = np.zeros((1, 3, 3, 4), np.int32)
    table[0, 0, 0] = 30, 3, 5, 1
    table[0, 0, 2] = 4, 4, 4, 0
    counts = [[[900, 0, 0], [0, 50, 0], [0, 0, 50]]]

    said = where_it_fails(with_counts(results, counts, table))

    assert "finds 3 of 30 small and 4 of 4 large damages." in said


def test_the_weakest_class_has_the_lowest_iou_and_what_it_is_taken_for(results):
    counts = [[[900, 0, 0], [10, 40, 0], [25, 50, 25]]]  # IoU: scratch 40/100, dent 25/100

    said = where_it_fails(with_counts(results, counts))

    assert "“dent”: IoU 0.250; 50\N{NO-BREAK SPACE}% of its pixels are taken for scratch." in said


def test_photos_whose_damage_is_missed_altogether_are_counted(results):
    seen, blind = [[90, 0, 0], [5, 5, 0], [0, 0, 0]], [[90, 0, 0], [10, 0, 0], [0, 0, 0]]
    sound = [[95, 5, 0], [0, 0, 0], [0, 0, 0]]

    assert "In 2 of 3 photos with damage" in where_it_fails(
        with_counts(results, [seen, blind, blind, sound])
    )
    said = where_it_fails(with_counts(results, [seen, sound]))
    assert said == "The worst photo is sample 00000000, Dice 0.667."  # 2 * 5 / 15


def test_without_damage_there_is_nothing_to_fail_on(results):
    said = where_it_fails(with_counts(results, [[[95, 5, 0], [0, 0, 0], [0, 0, 0]]]))

    assert said == "There is no damage in these photos to fail on."
