"""What a network is given: images as loaded, normalised on the device."""

from functools import lru_cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(
    images: Tensor,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    deviation: tuple[float, ...] = IMAGENET_STD,
) -> Tensor:
    """RGB images, uint8 (B, 3, H, W), as float32: scaled to 0-1, less the mean, by the deviation.

    Done on the images' device: a batch travels there as bytes. Channels lie last in memory, as the
    weights' do.
    """
    mean_there, deviation_there = _on(images.device, mean, deviation)
    normalised = standardise(images, mean_there, deviation_there)
    return normalised.contiguous(memory_format=torch.channels_last)


def standardise(images: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """The arithmetic of :func:`normalise`; mean and deviation broadcast with (B, 3, H, W)."""
    return (images.float() / 255 - mean) / deviation


@lru_cache(maxsize=8)
def _on(
    device: torch.device, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Mean and deviation, copied once: every copy would wait for the device."""
    values = torch.tensor([mean, deviation], device=device).view(2, 1, 3, 1, 1)
    return values[0], values[1]
