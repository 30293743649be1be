"""Which checkpoint of a run a comparison takes: ``e6`` is its best, ``e6@2`` that of epoch 2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cardamage.errors import ConfigError

Choice = Literal["best", "last"] | int
"""A checkpoint of a run: the best on its validation split, the last, or that of an epoch."""


@dataclass(frozen=True)
class Pick:
    """A run, and which of its checkpoints.

    Attributes:
        run: its name or path.
        checkpoint: None where nothing is said: then it is the best.
    """

    run: str
    checkpoint: Choice | None = None

    def __str__(self) -> str:
        return self.run if self.checkpoint is None else f"{self.run}@{self.checkpoint}"

    def within(self, epochs: int) -> Pick:
        """The same, or the last of so many epochs where the epoch lies behind it."""
        if isinstance(self.checkpoint, int) and self.checkpoint > epochs:
            return Pick(self.run, epochs)
        return self


def parse_pick(text: str) -> Pick:
    """The pick written as ``RUN`` or ``RUN@CHECKPOINT``.

    Raises:
        ConfigError: what stands behind the @ is no checkpoint.
    """
    run, at, choice = text.rpartition("@")
    if not at:
        return Pick(text)
    match choice:
        case "best" | "last":
            return Pick(run, choice)
        case _ if choice.isascii() and choice.isdecimal() and int(choice) >= 1:
            return Pick(run, int(choice))
    raise ConfigError(
        f'"{text}": "{choice}" is no checkpoint; write {run}@best, {run}@last, or an epoch from 1, '
        f"as in {run}@3"
    )
