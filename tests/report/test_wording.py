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


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (7, 10, "about 7 of 10 pixels"),
        (66, 100, "about 7 of 10 pixels"),
        (0, 10, "none of the pixels"),
        (10, 10, "all pixels"),
        (1, 100, "fewer than 1 of 20 pixels"),
        (99, 100, "more than 19 of 20 pixels"),
        (0, 0, "nothing, for there are no pixels"),
    ],
)
def test_shares_in_tenths(part, whole, text):
    assert wording.each_of_ten(part, whole, "pixels") == text


@pytest.mark.parametrize(
    ("number", "text"), [(1500, "1.5 kB"), (31_040_000, "31 MB"), (2_340_000_000, "2.34 GB")]
)
def test_sizes_in_bytes(number, text):
    assert wording.bytes_of(number) == text


def test_p_values():
    assert [wording.p_value(p) for p in (0.0001, 0.0234, 0.5, nan)] == [
        "< 0.001",
        "0.023",
        "0.50",
        DASH,
    ]


@pytest.mark.parametrize(
    ("names", "beginning"),
    [
        (("rates-lr_0.1-seed_0", "rates-lr_0.01-seed_1"), "rates-"),
        (("runs/a/cars", "runs/b/cars"), "runs/"),
        (("unet", "unet2"), ""),
        (("a-", "a-b"), ""),
        (("run-01", "run-02"), ""),
        (("only-one",), ""),
    ],
)
def test_what_names_begin_with_ends_at_a_hyphen_or_slash(names, beginning):
    assert wording.common_beginning(names) == beginning
