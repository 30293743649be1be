"""Curves in a terminal."""

import math

from cardamage.launch.watching.curves import chart, sparkline


def test_a_sparkline_has_a_block_a_value():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, math.nan, 7.0], 8) == "▁ █"
    assert sparkline([0.5, 0.5], 8) == "▄▄"
    assert sparkline([], 8) == sparkline([math.nan], 8) == ""
    assert sparkline([*range(32)], 8) == "▁▂▃▄▅▆▇█"  # the last of every four


def test_a_chart_fits_and_names_both_ends():
    lines = chart("loss", [([3.0, 1.0], ""), ([2.0, math.nan, 0.5], "")], 20, 3)
    assert [len(line.plain) for line in lines] == [8, 20, 20, 20, 20]
    assert lines[0].plain == "loss 0.5"
    assert lines[1].plain.startswith("  3 ")
    assert lines[3].plain.startswith("0.5 ")
    assert lines[3].plain[-1] != " "  # the last value is the lowest, and on the right
    assert lines[-1].plain.split() == ["1", "3"]


def test_a_rising_line_is_drawn_from_corner_to_corner():
    *_, first, second, _ = chart("score", [([0.0, 1.0], "")], 6, 2)
    assert (first.plain[-1] != " ", second.plain[2] != " ") == (True, True)
    assert (first.plain[2], second.plain[-1]) == (" ", " ")


def test_without_an_epoch_there_is_no_chart():
    assert [line.plain for line in chart("loss", [([], "")], 20, 3)] == ["loss: no epoch yet"]
