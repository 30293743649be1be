"""Batches from shards, decoded ahead of their use.

A sample is one task, so several threads share a batch; decoders work without the interpreter's
lock, so threads do what processes would, and nothing has to be pickled or copied between them. Only
as much is decoded ahead as keeps the threads busy. Pixels stay 8 bit until they are on the device:
a quarter of the bytes to move.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardamage.data.shards.reader import ShardReader

BATCHES_AHEAD = 2
"""How many batches at least are decoded, or being decoded, while the consumer works."""

Request = tuple[NDArray[np.int64], NDArray[np.int64] | None]
"""Sample numbers of one batch, and in training the epoch that each is read in."""


class Batch(NamedTuple):
    """Decoded samples."""

    images: Tensor
    """uint8 of shape (B, 3, H, W), RGB; channels last in memory, as decoders and networks want."""
    masks: Tensor
    """uint8 of shape (B, H, W), class ids."""
    samples: NDArray[np.int64]
    """Of shape (B,): the sample numbers, as requested."""
    epochs: NDArray[np.int64] | None = None
    """Of shape (B,): the epoch of each, from 1, as requested."""


def load(
    reader: ShardReader,
    requests: Iterable[Request],
    *,
    workers: int,
    pin_memory: bool = False,
) -> Generator[Batch, None, None]:
    """Yield the batch of each request, in the order of the requests.

    Closing the generator, or an error in it, ends the threads. ``requests`` is drawn from in the
    consumer's thread and may be endless.

    Args:
        workers: threads that decode; 0 decodes in the consumer's thread, when it asks.
        pin_memory: give the tensors page-locked memory, for copies to a GPU that do not block.

    Raises:
        DataError: a sample is damaged.
        IndexError: a request names a sample that the split lacks.
    """

    def start(request: Request) -> tuple[Batch, list[Callable[[], None]]]:
        samples, epochs = request
        size = len(samples), *reader.image_size
        images = torch.empty((*size, 3), dtype=torch.uint8, pin_memory=pin_memory)
        masks = torch.empty(size, dtype=torch.uint8, pin_memory=pin_memory)
        numbers = np.asarray(samples, dtype=np.int64)
        fill_slot = partial(fill, images.numpy(), masks.numpy(), numbers.tolist())
        batch = Batch(images.permute(0, 3, 1, 2), masks, numbers, epochs)
        return batch, [partial(fill_slot, slot) for slot in range(len(samples))]

    def fill(
        images: NDArray[np.uint8], masks: NDArray[np.uint8], numbers: list[int], slot: int
    ) -> None:
        _, images[slot], masks[slot] = reader.read(numbers[slot])

    started = map(start, requests)
    if workers:
        yield from _ahead(started, workers)
        return
    for batch, fills in started:
        for fill_slot in fills:
            fill_slot()
        yield batch


def _ahead(
    started: Iterator[tuple[Batch, list[Callable[[], None]]]], workers: int
) -> Generator[Batch, None, None]:
    pending: deque[tuple[Batch, list[Future[None]]]] = deque()
    threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")

    def start_more() -> None:
        # Small batches on many threads: two batches alone would leave threads idle.
        while len(pending) < BATCHES_AHEAD or sum(len(t) for _, t in pending) < 2 * workers:
            batch, fills = next(started, (None, []))
            if batch is None:
                return
            pending.append((batch, [threads.submit(fill) for fill in fills]))

    try:
        start_more()
        while pending:
            batch, tasks = pending.popleft()
            start_more()
            for task in tasks:
                task.result()
            yield batch
    finally:
        threads.shutdown(wait=True, cancel_futures=True)
