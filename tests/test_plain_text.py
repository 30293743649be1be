"""Foreign text on one plain line."""

import pytest

from cardamage.errors import UNFIT_FOR_TEXT, CardamageError, DataError, plain

ESCAPED = [
    ("two\nlines", r"two\nlines"),
    ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
    ("\x9b2J", r"\x9b2J"),
    ("next\x85line\u2028", r"next\x85line\u2028"),
    ("gpj\u202etxt.exe", r"gpj\u202etxt.exe"),
    ("half \ud83d", r"half \ud83d"),
]


@pytest.mark.parametrize(("text", "shown"), ESCAPED)
def test_what_commands_a_terminal_is_escaped(text: str, shown: str):
    assert plain(text) == shown
    assert UNFIT_FOR_TEXT.search(shown) is None
    assert str(DataError(f"name {text}")) == f"name {shown}"


@pytest.mark.parametrize("text", ["", "a b-c.jpg", "über 車 \u200f\u0633", "C:\\x", "\u202f5 PM"])
def test_other_text_stays_as_it_is(text: str):
    assert plain(text) == text
    assert str(CardamageError(text)) == text
