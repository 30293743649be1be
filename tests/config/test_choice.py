"""Which checkpoint of a run a comparison takes."""

import pytest

from cardamage.config.choice import Pick, parse_pick
from cardamage.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "pick"),
    [
        ("e6", Pick("e6")),
        ("e6@2", Pick("e6", 2)),
        ("e6@best", Pick("e6", "best")),
        ("runs/me@home/e6@last", Pick("runs/me@home/e6", "last")),
    ],
)
def test_picks_are_read_and_written_alike(text: str, pick: Pick):
    assert parse_pick(text) == pick
    assert str(pick) == text


@pytest.mark.parametrize(
    "text", ["e6@", "e6@0", "e6@-1", "e6@first", "e6@1.5", "e6@²", f"e6@{'9' * 5000}"]
)
def test_other_checkpoints_are_refused(text: str):
    with pytest.raises(ConfigError, match=r"is no checkpoint; write e6@best, e6@last, or an epoch"):
        parse_pick(text)


def test_an_epoch_behind_the_last_gives_way_to_it():
    assert Pick("e6", 9).within(4) == Pick("e6", 4)
    assert Pick("e6", 4).within(4) == Pick("e6", 4)
    assert Pick("e6", "last").within(4) == Pick("e6", "last")
    assert Pick("e6").within(4) == Pick("e6")
