"""Which sample is read when: a pure function of the seed, the number of samples and the position.

The stream of training samples is endless. Positions count from 0; position ``p`` lies in epoch
``p // n + 1``, whose order is a permutation of all ``n`` samples. Global batch ``g`` is positions
``[g * B, (g + 1) * B)``, so every batch is full, and epoch ``e`` ends with the first step that
reaches position ``e * n``. Neither the number of processes nor threads nor restarts appear here.

With weights an epoch is ``n`` draws with replacement instead.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

MOST_EPOCHS = 10_000  # more than the config allows
_ORDER, _AUGMENT = 0, 1  # what a random stream is for, so that no two share numbers


@lru_cache(maxsize=3)
def epoch_order(
    seed: int, samples: int, epoch: int, weights: tuple[float, ...] | None = None
) -> NDArray[np.int64]:
    """The order of one epoch, from 1: int64 of shape (samples,), a permutation of 0..samples-1.

    Philox's raw output is fixed for all time by NumPy's compatibility policy (NEP 19), unlike
    ``Generator.permutation``; sorting it stably is therefore one order on every machine.

    Args:
        weights: of each sample; draw by them, with replacement.
    """
    keys = _philox(seed, _ORDER, epoch).random_raw(samples)
    if weights is None:
        order = np.argsort(keys, kind="stable").astype(np.int64)
    else:
        edges = np.cumsum(weights)
        places = (keys >> np.uint64(11)) * 2.0**-53 * edges[-1]
        order = np.searchsorted(edges[:-1], places, side="right").astype(np.int64)
    order.flags.writeable = False
    return order


def class_weights(shown: NDArray[np.bool_]) -> tuple[float, ...]:
    """Weights by which photos that show rarer classes are drawn more often.

    Each is the largest, over the photo's classes, of one over the square root of the share of
    photos that show the class; 1 for a photo that shows none.

    Args:
        shown: of shape (samples, classes): whether a sample shows a class.
    """
    share = shown.mean(axis=0)
    each = np.where(shown, 1 / np.sqrt(np.where(share > 0, share, 1)), 1.0)
    return tuple(each.max(axis=1, initial=1.0).tolist())


def batch_at(
    seed: int,
    samples: int,
    batch_size: int,
    step: int,
    weights: tuple[float, ...] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Samples and epochs of global batch ``step``, from 0, of a split of so many samples.

    Two int64 arrays of shape (batch_size,): sample numbers from 0, and the epoch, from 1, that each
    position lies in. With weights, a sample that was drawn ``k`` times before in its epoch has
    ``10,000 k`` added to it, so that no two of its augmentations are alike.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // samples + 1
    chosen = np.empty(batch_size, dtype=np.int64)
    for epoch in np.unique(epochs):
        inside = epochs == epoch
        order, places = epoch_order(seed, samples, int(epoch), weights), positions[inside] % samples
        chosen[inside] = order[places]
        if weights is not None:
            times = _times_before(seed, samples, int(epoch), weights)
            epochs[inside] += MOST_EPOCHS * times[places]
    return chosen, epochs


@lru_cache(maxsize=3)
def _times_before(
    seed: int, samples: int, epoch: int, weights: tuple[float, ...]
) -> NDArray[np.int64]:
    """How often the sample of each place of an epoch stands at earlier places: (samples,)."""
    order = epoch_order(seed, samples, epoch, weights)
    by_sample = np.argsort(order, kind="stable")
    grouped = order[by_sample]
    times = np.empty_like(order)
    times[by_sample] = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    return times


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
