"""Which checkpoint of a run a comparison takes: ``e6`` is its best, ``e6@2`` that of epoch 2."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from cardamage.errors import ConfigError

Choice = Literal["best", "last"] | int
"""A checkpoint of a run: the best on its validation split, the last, or that of an epoch."""

_EPOCH = re.compile(r"0*[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Pick:
    """A run, by name or path, and which of its checkpoints: None, as nothing said, is the best."""

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
    if (checkpoint := parse_choice(choice)) is None:
        raise ConfigError(
            f'"{text}": "{choice}" is no checkpoint; write {run}@best, {run}@last, or an epoch '
            f"from 1, as in {run}@3"
        )
    return Pick(run, checkpoint)


def parse_choice(text: str) -> Choice | None:
    """The checkpoint written as ``best``, ``last`` or an epoch from 1; None for anything else."""
    match text:
        case "best" | "last":
            return text
        case _ if _EPOCH.fullmatch(text):
            return int(text)
    return None
