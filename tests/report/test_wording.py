"""Numbers in words: no false digits, no nan, no width that jumps."""

from math import inf, nan

import pytest

from cardamage.report import wording

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.500"),
        (-0.5, f"{MINUS}0.500"),
        (nan, DASH),
        (inf, "∞"),
        (-inf, f"{MINUS}∞"),
        (12.3456, "12.346"),
    ],
)
def test_scores(value, text):
    assert wording.score(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.1, "+0.100"), (-0.1, f"{MINUS}0.100"), (0.0, "0.000")]
)
def test_signed_scores(value, text):
    assert wording.signed(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "50.0 %"), (0.0012, "0.12 %"), (0.0, "0 %"), (nan, DASH)]
)
def test_percent_does_not_break_from_its_number(value, text):
    assert wording.percent(value) == text.replace(" ", "\u00a0")


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((0.1, 0.2), f"0.100{DASH}0.200"),
        ((-0.1, 0.2), f"{MINUS}0.100 to 0.200"),
        ((nan, nan), DASH),
    ],
)
def test_intervals(bounds, text):
    assert wording.interval(*bounds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.25, "1.2 s"), (59.6, "60 s"), (150, "2 min"), (7200, "2 h 0 min"), (9000, "2 h 30 min")],
)
def test_durations(seconds, text):
    assert wording.duration(seconds) == text


def test_long_names_keep_both_ends():
    assert wording.shortened("abcdefghij", 7) == "abc…hij"
    assert wording.shortened("abcdefg", 7) == "abcdefg"


def test_sizes():
    assert wording.size((240, 320)) == f"240 {TIMES} 320"
