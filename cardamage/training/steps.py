"""What one process does in each step: its share of the global batch, cut into micro-batches."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cardamage.data.shards.loader import Request
from cardamage.data.shards.order import batch_at, shares, steps_until
from cardamage.errors import ConfigError


@dataclass(frozen=True)
class StepPlan:
    """How the samples of a split become steps.

    Attributes:
        batch_size: images per optimiser step over all processes.
        micro_batch_size: most images of one forward pass; None for no limit.
        weights: of each sample, to draw an epoch by; None gives every sample once.
        process: this process, from 0.
    """

    seed: int
    samples: int
    batch_size: int
    micro_batch_size: int | None
    process: int
    processes: int
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.batch_size > self.samples:
            raise ConfigError(
                f"train.batch_size is {self.batch_size}, but the training split has "
                f"{self.samples} images; lower it to {self.samples} or less"
            )
        if self.batch_size < self.processes:
            raise ConfigError(
                f"train.batch_size is {self.batch_size}, too few for {self.processes} processes; "
                f"raise it to {self.processes} or more, or start fewer processes"
            )

    def steps_until(self, epoch: int) -> int:
        """Steps done when ``epoch`` (from 1) has ended."""
        return steps_until(self.samples, self.batch_size, epoch)

    def batch_at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Samples and epochs of the global batch of a step, from 0."""
        return batch_at(self.seed, self.samples, self.batch_size, step, self.weights)

    @property
    def micro_batches(self) -> list[slice]:
        """This process's micro-batches as slices of a global batch, alike in size."""
        share = shares(self.batch_size, self.processes)[self.process]
        size = share.stop - share.start
        count = 1 if self.micro_batch_size is None else -(-size // self.micro_batch_size)
        return [slice(share.start + s.start, share.start + s.stop) for s in shares(size, count)]

    @property
    def smallest_micro_batch(self) -> int:
        """Images of the smallest micro-batch of any process."""
        ranks = [replace(self, process=process) for process in range(self.processes)]
        return min(int(s.stop - s.start) for rank in ranks for s in rank.micro_batches)

    def requests(self, first_step: int, last_step: int) -> Iterator[Request]:
        """What this process reads from ``first_step`` up to but without ``last_step``."""
        for step in range(first_step, last_step):
            samples, epochs = self.batch_at(step)
            for micro in self.micro_batches:
                yield samples[micro], epochs[micro]
