"""The line of a log that tells why a program ended."""

import pytest

from cardamage.launch.watching.tail import last_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2026-01-31 12:00:00,123 INFO epoch 3/9: done\n", "epoch 3/9: done"),
        ("2026-01-31 is a day\n\n", "2026-01-31 is a day"),
        ("ValueError: bad\nerror: give 1 or more\nbye\n", "error: give 1 or more"),
        ("\n", ""),
    ],
)
def test_the_last_words_are_without_their_time(tmp_path, text, words):
    log = tmp_path / "train.log"
    log.write_text(text)
    assert last_words(log, 0) == words
