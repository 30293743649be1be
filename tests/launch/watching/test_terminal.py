"""What runs hold reaches a terminal as text: nothing moves the cursor, no markup, no new lines."""

import io

from rich.console import Console

from cardamage.launch.watching.display import StageDisplay

HOSTILE = "\x1b]0;owned\x07[bold]\x9b2J\nroot"


def test_what_a_run_says_of_itself_is_shown_as_text():
    stream = io.StringIO()
    display = StageDisplay(Console(file=stream, force_terminal=True, width=300), "run", "dice_fg")
    display.note(HOSTILE)
    shown = stream.getvalue()
    assert r"\x1b]0;owned\x07[bold]\x9b2J\nroot" in shown
    assert shown.count("\n") == 1
    assert "\x1b]" not in shown
    assert "\x9b" not in shown


def test_a_progress_event_is_shown_as_text():
    stream = io.StringIO()
    display = StageDisplay(Console(file=stream, force_terminal=True, width=300), "run", "dice_fg")
    display.start("train")
    display.show([{"event": "progress", "stage": "train", "done": 1, "total": 2, "unit": HOSTILE}])
    display.end("done")
    assert "\x1b]" not in stream.getvalue()
    assert "\x9b" not in stream.getvalue()
    assert "[bold]" in stream.getvalue()
