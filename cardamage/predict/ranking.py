"""Which photos to label next: those a model is most uncertain of, and that differ from each other.

Uncertainty is the mean entropy of the 5 % of a photo's pixels whose classes are least certain, as a
share of the greatest there can be: large photos of small damages do not come out certain because of
their background. Of photos that look alike one is enough, so they are chosen one by one, each for
its uncertainty times its distance to the nearest that is chosen; the greedy rule of core-sets
(Sener and Savarese, 2018, https://arxiv.org/abs/1708.00489), weighted.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from cardamage.data.images import resize_image
from cardamage.predict.model import TrainedModel
from cardamage.predict.photos import Photo, read_photo
from cardamage.system.console import Progress
from cardamage.system.processes import count_cores

_UNCERTAIN_SHARE = 0.05
_COLOUR_CELLS, _CLASS_CELLS = 8, 4


class Ranked(NamedTuple):
    """A photo, and why it was chosen."""

    photo: Photo
    uncertainty: float
    """From 0 to 1."""
    distance: float
    """To the nearest photo chosen before, from 0 to 2; infinite for the first."""


def rank_photos(
    model: TrainedModel, photos: Sequence[Photo], number: int, *, batch_size: int = 8
) -> list[Ranked]:
    """The photos to label next, the most useful first, at most so many.

    Raises:
        DataError: a photo cannot be read.
    """

    def pixels_of(photo: Photo) -> NDArray[np.uint8]:
        return np.asarray(resize_image(read_photo(photo), model.info.image_size))

    uncertainties: list[float] = []
    looks: list[NDArray[np.float32]] = []
    with ThreadPoolExecutor(count_cores()) as pool, Progress("rank", len(photos), "images") as p:
        for start in range(0, len(photos), batch_size):
            pixels = np.stack([*pool.map(pixels_of, photos[start : start + batch_size])])
            probabilities = model.logits(pixels).softmax(dim=1)
            uncertainties += uncertainty(probabilities).tolist()
            looks += [*look(torch.from_numpy(pixels).permute(0, 3, 1, 2), probabilities)]
            p.advance(len(pixels))
    chosen = choose(np.array(uncertainties), np.stack(looks), number)
    return [Ranked(photos[i], uncertainties[i], distance) for i, distance in chosen]


def uncertainty(probabilities: Tensor) -> Tensor:
    """The mean entropy of the least certain pixels, as a share of the greatest.

    Args:
        probabilities: float (B, C, H, W).

    Returns:
        (B,), from 0 to 1.
    """
    entropy = torch.special.entr(probabilities).sum(dim=1).flatten(1)
    count = max(1, round(_UNCERTAIN_SHARE * entropy.shape[1]))
    least_certain: Tensor = entropy.topk(count, dim=1).values.mean(dim=1)
    return least_certain / math.log(probabilities.shape[1])


def look(pixels: Tensor, probabilities: Tensor) -> NDArray[np.float32]:
    """What photos look like and show, coarsely: vectors whose halves are at most 1 apart.

    Args:
        pixels: uint8 (B, 3, H, W).
        probabilities: float (B, C, H, W).

    Returns:
        float32 (B, D).
    """
    colours = functional.adaptive_avg_pool2d(pixels.float() / 255, _COLOUR_CELLS).flatten(1)
    classes = functional.adaptive_avg_pool2d(probabilities, _CLASS_CELLS).flatten(1)
    halves = (colours / colours.shape[1] ** 0.5, classes / (2**0.5 * _CLASS_CELLS))
    joined: NDArray[np.float32] = torch.cat(halves, dim=1).numpy()
    return joined


def choose(
    uncertainties: NDArray[np.float64], looks: NDArray[np.float32], number: int
) -> list[tuple[int, float]]:
    """Which of N photos, and how far each is from the nearest that was chosen before it.

    Args:
        uncertainties: (N,).
        looks: (N, D).
        number: at most so many are chosen.
    """
    nearest = np.full(len(looks), np.inf)
    left = np.ones(len(looks), np.bool_)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < min(number, len(looks)):
        worth = uncertainties * (1 if np.isinf(nearest).all() else nearest)
        best = int(np.argmax(np.where(left, worth, -1)))
        chosen.append((best, float(nearest[best])))
        left[best] = False
        nearest = np.minimum(nearest, np.linalg.norm(looks - looks[best], axis=1))
    return chosen
