"""How kills are spread, drawn and counted."""

from random import Random

import pytest

from benchmarks.drill.kills import COLUMNS, Draw, Kill, allot, markdown, rows


def test_a_hundred_kills_are_spread_by_weight():
    assert allot(100, [1, 2]) == {
        ("pack", 1): 10,
        ("train", 1): 25,
        ("test", 1): 15,
        ("pack", 2): 10,
        ("train", 2): 25,
        ("test", 2): 15,
    }


@pytest.mark.parametrize(
    ("kills", "expected"),
    [
        (1, {"pack": 0, "train": 1, "test": 0}),  # shares 0.2, 0.5, 0.3
        (4, {"pack": 1, "train": 2, "test": 1}),  # 0.8, 2, 1.2
        (5, {"pack": 1, "train": 3, "test": 1}),  # 1, 2.5, 1.5: a tie, the earlier wins
    ],
)
def test_what_is_left_over_goes_to_the_largest_remainders(kills, expected):
    assert allot(kills, [1]) == {(stage, 1): count for stage, count in expected.items()}


def test_the_same_seed_draws_the_same_and_every_kind_occurs():
    drawn = [Draw.by(random) for random in [Random(3)] for _ in range(100)]
    again = [Draw.by(random) for random in [Random(3)] for _ in range(100)]
    assert drawn == again
    assert {draw.cold for draw in drawn} == {True, False}
    assert {draw.everyone for draw in drawn} == {True, False}
    assert {draw.writing for draw in drawn} == {True, False}
    assert min(draw.moment for draw in drawn) < 0.1
    assert max(draw.moment for draw in drawn) > 0.9


KILLS = [
    Kill("train", 2, cold=False, moment="working", alone=True, equal=True),
    Kill("train", 2, cold=True, moment="starting", alone=False, equal=True),
    Kill("train", 2, cold=False, moment="writing", alone=True, equal=False),
    Kill("pack", 1, cold=False, moment="writing", alone=False, equal=True),
]


def test_the_table_counts_each_stage_on_each_number_of_processes_and_all():
    assert rows(KILLS) == [
        ["pack", "1", "1", "0", "0", "0", "0", "1", "1 of 1"],
        ["train", "2", "3", "2", "1", "1", "1", "1", "2 of 3"],
        ["all", "", "4", "2", "1", "1", "1", "2", "3 of 4"],
    ]


def test_the_table_in_markdown():
    lines = markdown(KILLS).splitlines()
    assert lines[0] == f"| {' | '.join(COLUMNS)} |"
    assert lines[1].count("---") == len(COLUMNS)
    assert lines[2] == "| pack | 1 | 1 | 0 | 0 | 0 | 0 | 1 | 1 of 1 |"
    assert len(lines) == 5
