"""Batches from shards, decoded ahead of their use.

A sample is one task, so several threads share a batch; Pillow decodes without the interpreter's
lock, so threads do what processes would, and nothing has to be pickled or copied between them. Only
as much is decoded ahead as keeps the threads busy. Pixels stay 8 bit until they are on the device:
a quarter of the bytes to move.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardamage.data.order import augmentation_generator
from cardamage.data.shards import ShardReader

BATCHES_AHEAD = 2
"""How many batches at least are decoded, or being decoded, while the consumer works."""

Request = tuple[NDArray[np.int64], NDArray[np.int64] | None]
"""Sample numbers of one batch, and the epoch each is read in; no epochs, no augmentation."""


class Batch(NamedTuple):
    """Decoded samples."""

    images: Tensor
    """uint8 of shape (B, 3, H, W), RGB."""
    masks: Tensor
    """uint8 of shape (B, H, W), class ids."""
    samples: NDArray[np.int64]
    """Of shape (B,): the sample numbers, as requested."""


def load(
    reader: ShardReader,
    requests: Iterable[Request],
    *,
    workers: int,
    seed: int = 0,
    horizontal_flip: float = 0.0,
    pin_memory: bool = False,
) -> Generator[Batch, None, None]:
    """Yield the batch of each request, in the order of the requests.

    Closing the generator, or an error in it, ends the threads. ``requests`` is drawn from in the
    consumer's thread and may be endless.

    Args:
        reader: where the samples are.
        requests: which samples make up each batch.
        workers: threads that decode; 0 decodes in the consumer's thread, when it asks.
        seed: of the augmentation.
        horizontal_flip: chance that a sample of a request with epochs is mirrored left to right;
            it depends on (seed, epoch, sample) alone.
        pin_memory: give the tensors page-locked memory, for copies to a GPU that do not block.

    Raises:
        DataError: a sample is damaged.
        IndexError: a request names a sample that the split lacks.
    """
    decoder = _Decoder(reader, seed, horizontal_flip, pin_memory)
    if workers == 0:
        return decoder.in_step(requests)
    return decoder.ahead(requests, workers)


class _Decoder:
    """Fills batches; see :func:`load`."""

    def __init__(
        self,
        reader: ShardReader,
        seed: int,
        horizontal_flip: float,
        pin_memory: bool,  # noqa: FBT001
    ) -> None:
        self._reader, self._seed = reader, seed
        self._horizontal_flip, self._pin_memory = horizontal_flip, pin_memory

    def in_step(self, requests: Iterable[Request]) -> Generator[Batch, None, None]:
        for request in requests:
            batch = self._allocate(request)
            for slot in range(len(batch.samples)):
                self._fill(batch, request, slot)
            yield batch

    def ahead(self, requests: Iterable[Request], workers: int) -> Generator[Batch, None, None]:
        coming = iter(requests)
        pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")

        def start_more() -> None:
            # Small batches on many threads: two batches alone would leave threads idle.
            while len(pending) < BATCHES_AHEAD or samples_pending() < 2 * workers:
                request = next(coming, None)
                if request is None:
                    return
                batch = self._allocate(request)
                slots = range(len(batch.samples))
                tasks = [threads.submit(self._fill, batch, request, slot) for slot in slots]
                pending.append((batch, tasks))

        def samples_pending() -> int:
            return sum(len(tasks) for _, tasks in pending)

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

    def _allocate(self, request: Request) -> Batch:
        samples = np.asarray(request[0], dtype=np.int64)
        height, width = self._reader.image_size
        size = len(samples)
        return Batch(
            torch.empty((size, 3, height, width), dtype=torch.uint8, pin_memory=self._pin_memory),
            torch.empty((size, height, width), dtype=torch.uint8, pin_memory=self._pin_memory),
            samples,
        )

    def _fill(self, batch: Batch, request: Request, slot: int) -> None:
        number = int(batch.samples[slot])
        sample = self._reader.read(number)
        image, mask = sample.image, sample.mask
        epochs = request[1]
        if self._horizontal_flip and epochs is not None:
            generator = augmentation_generator(self._seed, int(epochs[slot]), number)
            if generator.random() < self._horizontal_flip:
                image, mask = image[:, ::-1], mask[:, ::-1]
        batch.images[slot].numpy()[...] = image.transpose(2, 0, 1)
        batch.masks[slot].numpy()[...] = mask
