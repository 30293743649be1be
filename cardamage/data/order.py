"""Which sample is read when: a pure function of the seed, the number of samples and the position.

The stream of training samples is endless. Positions count from 0; position ``p`` lies in epoch
``p // n + 1``, whose order is a permutation of all ``n`` samples. Global batch ``g`` is positions
``[g * B, (g + 1) * B)``, so every batch is full, and epoch ``e`` ends with the first step that
reaches position ``e * n``. Neither the number of processes nor threads nor restarts appear here.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_ORDER, _AUGMENT = 0, 1  # what a random stream is for, so that no two share numbers


@lru_cache(maxsize=3)
def epoch_order(seed: int, samples: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch: int64 of shape (samples,), a permutation of 0..samples-1.

    Philox's raw output is fixed for all time by NumPy's compatibility policy (NEP 19), unlike
    ``Generator.permutation``; sorting it stably is therefore one order on every machine.

    Args:
        seed: the experiment's seed.
        samples: how many samples the split has.
        epoch: counted from 1.
    """
    keys = _philox(seed, _ORDER, epoch).random_raw(samples)
    order = np.argsort(keys, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def batch_at(
    seed: int, samples: int, batch_size: int, step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples and epochs of one global batch.

    Args:
        seed: the experiment's seed.
        samples: how many samples the split has.
        batch_size: images in a global batch.
        step: the global batch, counted from 0.

    Returns:
        Two int64 arrays of shape (batch_size,): sample numbers from 0, and the epoch, from 1,
        that each position lies in.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // samples + 1
    chosen = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        chosen[inside] = epoch_order(seed, samples, int(epoch))[positions[inside] % samples]
    return chosen, epochs


def steps_until(samples: int, batch_size: int, epoch: int) -> int:
    """Optimiser steps done when ``epoch`` (from 1) has ended; 0 for epoch 0."""
    return -(-epoch * samples // batch_size)


def shares(items: int, parts: int) -> list[slice]:
    """``items`` cut into ``parts`` neighbouring slices whose lengths differ by at most one.

    The one rule by which a global batch is cut into ranks, a rank's share into micro-batches, and
    an evaluation into ranks.
    """
    edges = [items * part // parts for part in range(parts + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


def augmentation_generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The random numbers that augment one sample in one epoch, whoever reads it and when."""
    return np.random.Generator(_philox(seed, _AUGMENT, epoch, sample))


def _philox(*key: int) -> np.random.Philox:
    return np.random.Philox(np.random.SeedSequence(key))
