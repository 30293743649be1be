"""Events that survive kills, and progress that degrades to plain lines."""

import json
import logging
import math
import time
from pathlib import Path

import pytest

from cardamage.system.console import EventLog, Progress, log, read_events, start_logging


@pytest.fixture
def printed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """The plain lines that progress prints, as its ``messages``."""
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level(logging.INFO, logger="cardamage")
    return caplog


def test_events_come_back_in_order_with_their_time(tmp_path: Path):
    events = EventLog(tmp_path / "events.jsonl")
    before = time.time() - 0.001
    events.write("epoch", epoch=1, loss=0.5)
    events.write("epoch", epoch=2, loss=0.25)
    first, second = read_events(tmp_path / "events.jsonl")
    assert before <= first.pop("time") <= time.time() + 0.001  # rounded to milliseconds
    assert first == {"event": "epoch", "epoch": 1, "loss": 0.5}
    assert second["epoch"] == 2


def test_events_that_cannot_be_written_are_missed_once(printed: pytest.LogCaptureFixture):
    events = EventLog(Path("/dev/full"))
    events.write("epoch", epoch=1)
    events.write("epoch", epoch=2)
    assert printed.messages == ["/dev/full: No space left on device; continuing without events"]


def test_disabled_log_writes_nothing(tmp_path: Path):
    EventLog(tmp_path / "events.jsonl", enabled=False).write("epoch")
    assert not (tmp_path / "events.jsonl").exists()


def test_line_torn_by_a_kill_costs_only_itself(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    events = EventLog(path)
    events.write("epoch", epoch=1)
    with path.open("a") as stream:
        stream.write('{"time": 1, "event": "ep')
    events.write("epoch", epoch=2)
    assert [event["epoch"] for event in read_events(path)] == [1, 2]


def test_lines_that_are_no_events_are_left_out(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'[1]\n{"time": 1}\n\xff\n\n{"event": "epoch"}\n')
    assert read_events(path) == [{"event": "epoch"}]
    assert read_events(tmp_path / "none.jsonl") == []


def test_progress_reports_lines_and_events(tmp_path: Path, printed: pytest.LogCaptureFixture):
    path = tmp_path / "events.jsonl"
    with Progress(
        "pack", 10, "images", done=4, events=EventLog(path), line_every_s=0.0
    ) as progress:
        progress.advance(3, split="train")
        progress.advance(3, split="valid")
    first, second, last = read_events(path)
    assert (first["stage"], first["done"], first["total"], first["unit"]) == (
        "pack",
        7,
        10,
        "images",
    )
    assert first["split"] == "train"
    assert first["per_second"] > 0  # of the 3 done here, not of the 7
    assert math.isclose(first["seconds_left"], 3 / first["per_second"], rel_tol=0.1, abs_tol=0.06)
    assert (second["done"], second["seconds_left"], last["done"]) == (10, 0.0, 10)
    assert printed.messages[0].startswith("pack: 7/10 images, ")
    assert printed.messages[0].endswith("split train")


def test_progress_speaks_now_and_then_and_at_the_end(
    tmp_path: Path, printed: pytest.LogCaptureFixture
):
    path = tmp_path / "events.jsonl"
    with Progress("train", 100, "images", events=EventLog(path), line_every_s=60) as progress:
        for _ in range(100):
            progress.advance()
    assert [event["done"] for event in read_events(path)] == [100]
    assert len(printed.messages) == 1


def test_progress_that_fails_does_not_say_it_has_ended(
    tmp_path: Path, printed: pytest.LogCaptureFixture
):
    path = tmp_path / "events.jsonl"
    with pytest.raises(ValueError, match="bad"), Progress("x", 2, "y", events=EventLog(path)):
        raise ValueError("bad")
    assert read_events(path) == []
    assert printed.messages == []


def test_progress_of_other_processes_is_silent(tmp_path: Path, printed: pytest.LogCaptureFixture):
    path = tmp_path / "events.jsonl"
    with Progress(
        "train", 2, "images", events=EventLog(path), enabled=False, line_every_s=0.0
    ) as progress:
        progress.advance(2)
    assert not path.exists()
    assert printed.messages == []


def test_nothing_done_yet_has_no_time_left(tmp_path: Path):
    path = tmp_path / "events.jsonl"
    with Progress("train", 2, "images", events=EventLog(path), line_every_s=0.0) as progress:
        progress.advance(0)
    assert [event["seconds_left"] for event in read_events(path)] == [None, None]


@pytest.mark.parametrize(("main_process", "shown"), [(True, "INFO seen"), (False, None)])
def test_log_lines_go_to_standard_error(
    capsys: pytest.CaptureFixture[str], main_process: bool, shown: str | None
):
    handlers, propagate, level = log.handlers, log.propagate, log.level
    try:
        start_logging(main_process=main_process)
        log.info("seen")
        log.warning("always")
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("INFO seen" in err) is (shown is not None)
    assert "WARNING always" in err


def test_every_event_is_one_line_of_json(tmp_path: Path):
    EventLog(tmp_path / "events.jsonl").write("epoch", text="two\nlines")
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line)["text"] == "two\nlines"


def test_an_undefined_score_is_null_in_an_event(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path).write("epoch", val_dice_fg=float("nan"), val_loss=0.5)
    event = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert event["val_dice_fg"] is None
    assert event["val_loss"] == 0.5


def test_a_log_line_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]):
    start_logging()
    log.info("read %s", "a\x1b[2J\nb.jpg")
    assert capsys.readouterr().err.endswith(" INFO read a\\x1b[2J\\nb.jpg\n")
