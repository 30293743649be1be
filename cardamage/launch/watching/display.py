"""What a person sees of a running run: a live bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from cardamage.config.experiment import SelectBy
from cardamage.errors import plain
from cardamage.launch.watching.tail import Event

_LINE_EVERY_S = 10.0


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Countdown:
    """Tells how many of several runs are over, and about how long the others take, by those."""

    def __init__(self, console: Console, runs: int) -> None:
        self._console, self._runs, self._over = console, runs, 0
        self._started = time.monotonic()

    def tell(self, over: int, *, is_stopped: bool = False) -> None:
        """Show a line once more of them are over; not of one that was only stopped."""
        is_more, self._over = over > self._over, over
        if self._runs < 2 or not is_more or is_stopped:
            return
        left = (time.monotonic() - self._started) / over * (self._runs - over)
        told = f", about {duration(left)} left for all" if over < self._runs else ""
        self._console.print(f"{over} of {self._runs} runs are over{told}", highlight=False)

    def place(self) -> str:
        """Which of several runs comes next, as in `` (2 of 4)``; nothing of one or behind them."""
        return f" ({self._over + 1} of {self._runs})" if self._over < self._runs > 1 else ""


def _epoch_line(event: Mapping[str, Any], select_by: SelectBy) -> str:
    """An ``epoch`` event in one line; what the event lacks is left out."""
    parts = [f"epoch {event.get('epoch')}/{event.get('epochs')}"]
    scores = {key: event.get(key) for key in ("train_loss", "val_loss", f"val_{select_by}")}
    parts += [f"{key} {v:.3f}" for key, v in scores.items() if isinstance(v, int | float)]
    if isinstance(speed := event.get("images_per_second"), int | float):
        parts.append(f"{speed:.1f} images/s")
    return ", ".join(parts)


def _progress_text(event: Mapping[str, Any]) -> str:
    """A ``progress`` event in words: how far, how fast, how long still."""
    text = f"{event.get('done')}/{event.get('total')} {event.get('unit', '')}"
    if (epoch := event.get("epoch")) is not None:
        text = f"epoch {epoch}, {text}"
    if speed := event.get("per_second"):
        text += f", {speed:.1f}/s"
    if left := event.get("seconds_left"):
        text += f", {duration(left)} left"
    return text


class StageDisplay:
    """Shows the stages of one run, and of every epoch the validation score ``select_by``.

    ``place`` stands behind the title of a bar: which of several runs it is.
    """

    def __init__(self, console: Console, title: str, select_by: SelectBy, place: str = "") -> None:
        self._console, self._title, self._select_by = console, title, select_by
        self._place = place
        self._stage = ""
        self._started = self._last_line = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def start(self, stage: str) -> None:
        """A stage begins."""
        self._stage, self._started = stage, time.monotonic()
        self._last_line = self._started
        if not self._console.is_terminal:
            self.note("starts")
            return
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[shown]}"),
            console=self._console,
            transient=True,
        )
        title = f"[bold]{escape(self._title)}[/bold]{self._place} {stage}"
        self._task = self._bar.add_task(title, total=None, shown="starting")
        self._bar.start()

    def show(self, events: list[Event]) -> None:
        """Show what a stage reported since the last call."""
        for event in events:
            if event.get("stage") != self._stage:
                continue
            if event["event"] == "epoch":
                self.note(_epoch_line(event, self._select_by))
            elif event["event"] == "progress":
                self._progress(event)

    def note(self, text: str) -> None:
        """Show one line that stays."""
        line = f"[bold]{escape(self._title)}[/bold] {self._stage}: {escape(plain(text))}"
        self._console.print(line, highlight=False, soft_wrap=True)

    def end(self, outcome: str) -> None:
        """The stage has ended, as ``outcome`` says."""
        if self._bar:
            self._bar.stop()
            self._bar = None
        self.note(f"{outcome} after {duration(time.monotonic() - self._started)}")

    def _progress(self, event: Event) -> None:
        shown = _progress_text(event)
        if self._bar:
            done, total = event.get("done"), event.get("total")
            self._bar.update(self._task, completed=done, total=total, shown=escape(plain(shown)))
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            self.note(shown)
