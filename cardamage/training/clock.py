"""How fast an epoch trains, and what share of its time is spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from cardamage.data.loader import Batch


@dataclass(frozen=True)
class Speed:
    """The training part of one epoch, without validation.

    Attributes:
        seconds: wall time.
        images_per_second: over all processes together.
        data_wait_share: share of the time this process waited for its next batch, 0 to 1.
    """

    seconds: float
    images_per_second: float
    data_wait_share: float


class EpochClock:
    """Times one epoch's steps from its creation to :meth:`stop`."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._waited_s = 0.0
        self._images = 0
        self._started = time.perf_counter()

    def next_batch(self) -> Batch:
        """Draw the next batch; the time it takes counts as waiting for data."""
        asked = time.perf_counter()
        batch = next(self._batches)
        self._waited_s += time.perf_counter() - asked
        return batch

    def count(self, images: int) -> None:
        """Count the images of a step, over all processes."""
        self._images += images

    def stop(self) -> Speed:
        """The speed so far; call it once the device has finished."""
        seconds = time.perf_counter() - self._started
        return Speed(seconds, self._images / seconds, self._waited_s / seconds)
