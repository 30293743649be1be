"""The Pareto front of score against cost."""

from math import nan

from cardamage.report.cost import pareto_front


def test_the_front_is_what_no_other_beats_in_both():
    costs, scores = [1, 2, 3, 2, 5], [0.5, 0.7, 0.6, 0.6, 0.9]

    assert pareto_front(costs, scores) == [0, 1, 4]


def test_equals_are_both_on_the_front_and_the_undefined_on_none():
    assert pareto_front([1, 1, nan, 2], [0.5, 0.5, 0.9, nan]) == [0, 1]
