"""Augmentation of training batches, on the device that trains.

What happens to a sample is a function of (seed, epoch, sample) alone, to the bit: neither the batch
it is in nor the number of processes counts. So its numbers are drawn one sample at a time, each
step drawing as many whatever comes of them, and nothing here sums floats or multiplies matrices
over a batch, which adds up in an order that depends on its size.
"""

import math
from collections.abc import Sequence
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from cardamage.config.augmentation import (
    Affine,
    Augmentation,
    Blur,
    Colour,
    Crop,
    HorizontalFlip,
    Jpeg,
    Noise,
    RandomResizedCrop,
    VerticalFlip,
)
from cardamage.data.images import decode_image, encoded
from cardamage.data.shards.order import augmentation_generator
from cardamage.models.inputs import IMAGENET_MEAN

Draws = NDArray[np.float64]
"""Of shape (B, 7) with values in [0, 1): what a step draws beside its chance, for every sample."""

_OUTSIDE = [round(255 * mean) for mean in IMAGENET_MEAN]  # the colour of what is not in the photo
_GREY = (0.2989, 0.587, 0.114)  # as in torchvision


def augment(
    images: Tensor,
    masks: Tensor,
    steps: Sequence[Augmentation],
    *,
    seed: int,
    epochs: NDArray[np.int64],
    samples: NDArray[np.int64],
) -> tuple[Tensor, Tensor]:
    """Apply steps in their order, each to the samples for which chance says so.

    Only ``jpeg`` waits for the device.

    Args:
        images: RGB, uint8 of shape (B, 3, H, W), like the result, which is smaller after a crop.
        masks: class ids, uint8 of shape (B, H, W), like the result.
        epochs: of shape (B,): the epoch, from 1, that each sample is read in.
        samples: of shape (B,): sample numbers.
    """
    if not steps:
        return images, masks
    photos, maps = list(images), list(masks)
    keys = zip(epochs.tolist(), samples.tolist(), strict=True)
    generators = [augmentation_generator(seed, *key) for key in keys]
    # On a CPU one sample after another is quicker: what is between the operations stays in cache.
    portion = 1 if images.device.type == "cpu" else len(photos)
    for step in steps:
        count = 1 if isinstance(step, HorizontalFlip | VerticalFlip) else 8
        draws = np.array([generator.random(count) for generator in generators])
        chosen = np.flatnonzero(draws[:, 0] < step.probability).tolist()
        for first in range(0, len(chosen), portion):
            part = chosen[first : first + portion]
            seen = torch.stack([photos[n] for n in part]), torch.stack([maps[n] for n in part])
            for n, photo, mask in zip(part, *_apply(step, *seen, draws[part, 1:]), strict=True):
                photos[n], maps[n] = photo, mask
    return torch.stack(photos), torch.stack(maps)


def _apply(
    step: Augmentation, images: Tensor, masks: Tensor, draws: Draws
) -> tuple[Tensor, Tensor]:
    match step:
        case HorizontalFlip():
            images, masks = images.flip(-1), masks.flip(-1)
        case VerticalFlip():
            images, masks = images.flip(-2), masks.flip(-2)
        case Affine():
            matrices = [affine_inverse(step, row, *masks.shape[1:]) for row in draws.tolist()]
            images, masks = warp(images, masks, _on(np.array(matrices), masks.device))
        case RandomResizedCrop():
            images, masks = warp(images, masks, _crops(step, masks, draws))
        case Crop():
            images, masks = _cut(step, images, masks, draws)
        case Colour():
            images = _eight_bit(_recoloured(step, images, draws))
        case Blur():
            images = _eight_bit(_blurred(images, _within(step.sigma, draws[:, 0])))
        case Noise():
            sigma = _within(step.sigma, draws[:, 0])
            images = _eight_bit(_noisy(images, sigma, draws[:, 1]))
        case Jpeg():
            low, high = step.quality
            quality = low + np.floor(draws[:, 0] * (high - low + 1))
            images = _compressed(images, quality.astype(int).tolist())
        case _:
            assert_never(step)
    return images, masks


def affine_inverse(
    step: Affine, draws: Sequence[float], height: int, width: int
) -> list[list[float]]:
    """Where each pixel of the outcome comes from: two rows of three, for :func:`warp`.

    ``draws`` are, from 0 to 1, the angle, the scale, the ways right and down, and the slant.
    """
    angle, right, down, slant = (2 * draws[place] - 1 for place in (0, 2, 3, 4))
    turn, shear = math.radians(step.rotate * angle), math.tan(math.radians(step.shear * slant))
    low, high = step.scale
    cosine, sine = (f(turn) / (low + (high - low) * draws[1]) for f in (math.cos, math.sin))
    # Forward: slant, turn clockwise, scale, move.
    x_from = cosine + shear * sine, (sine - shear * cosine) * height / width
    y_from = -sine * width / height, cosine
    move = 2 * step.translate * right, 2 * step.translate * down
    return [[x, y, -x * move[0] - y * move[1]] for x, y in (x_from, y_from)]


def warp(images: Tensor, masks: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Images, bilinearly, and masks, by the nearest pixel, as seen through a matrix for each.

    Args:
        matrices: float32 of shape (B, 2, 3): from a place in the result, right and down from -1 to
            1 over the image, to the place that is shown there. Outside of the image are the mean
            colour and background.
    """
    height, width = masks.shape[1:]
    x = (torch.arange(width, device=masks.device) * 2 + 1) / width - 1
    y = ((torch.arange(height, device=masks.device) * 2 + 1) / height - 1)[:, None]
    to = matrices[..., None, None]
    grid = torch.stack([to[:, i, 0] * x + to[:, i, 1] * y + to[:, i, 2] for i in (0, 1)], dim=-1)
    outside = _on(np.array(_OUTSIDE), images.device)[:, None, None]
    images = functional.grid_sample(images - outside, grid, align_corners=False).add_(outside)
    seen = functional.grid_sample(masks[:, None].float(), grid, mode="nearest", align_corners=False)
    return _eight_bit(images), seen[:, 0].byte()


def _crops(step: RandomResizedCrop, masks: Tensor, draws: Draws) -> Tensor:
    """Matrices for :func:`warp`, from draws of area, shape, damage or not, pixel, place (2)."""
    width, height = masks.shape[2], masks.shape[1]
    area, (low, high) = _within(step.scale, draws[:, 0]), step.ratio
    ratio = low * (high / low) ** draws[:, 1]  # as often twice as wide as twice as high
    whole = np.array([width, height])
    sizes = np.clip(whole * np.sqrt(np.stack([area * ratio, area / ratio], axis=1)), 1, whole)
    wanted = draws[:, 2:3] < step.on_damage
    numbers = _on(np.hstack([sizes, wanted, draws[:, 3:6]]), masks.device)
    size, limit = numbers[:, :2], _on(whole, masks.device)
    start = _placed(size, masks, numbers[:, 2:])
    middle = (2 * start + size) / limit - 1
    return torch.cat([torch.diag_embed(size / limit), middle[:, :, None]], dim=2)


def _cut(step: Crop, images: Tensor, masks: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Parts of a fixed size, from draws of damage or not, pixel, place (2)."""
    height, width = step.size
    size = np.broadcast_to([width, height], (len(masks), 2))
    numbers = _on(np.hstack([size, draws[:, :1] < step.on_damage, draws[:, 1:4]]), masks.device)
    start = _placed(numbers[:, :2], masks, numbers[:, 2:]).round().long()
    across = (start[:, 0, None] + torch.arange(width, device=masks.device))[:, None]
    down = (start[:, 1, None] + torch.arange(height, device=masks.device))[:, :, None]
    number = torch.arange(len(masks), device=masks.device)[:, None, None]
    parts = images.movedim(1, -1)[number, down, across].movedim(-1, 1)
    return parts.contiguous(), masks[number, down, across]


def _placed(size: Tensor, masks: Tensor, numbers: Tensor) -> Tensor:
    """Where parts of a size begin: left and top, float32 of shape (B, 2), in pixels.

    Args:
        size: width and height, float32 of shape (B, 2), in pixels.
        numbers: float32 of shape (B, 4): whether a pixel of damage is to be inside, which one, and
            where the part lies, both from 0 to 1.
    """
    width, height = masks.shape[2], masks.shape[1]
    limit = _on(np.array([width, height]), masks.device)
    on_damage, nth, place = numbers[:, :1] > 0, numbers[:, 1:2], numbers[:, 2:]

    # The pixel is found without waiting for the device, and counted in whole numbers.
    counted = (masks > 0).flatten(1).cumsum(1, dtype=torch.int32)
    damaged = counted[:, -1:]
    pixel = torch.searchsorted(counted, ((nth * damaged).int() + 1).minimum(damaged))
    at = torch.cat([pixel % width, pixel.div(width, rounding_mode="floor")], dim=1)
    on_damage &= damaged > 0
    lowest = torch.where(on_damage, (at + 1 - size).clamp(min=0), 0)
    highest = torch.where(on_damage, at.minimum(limit - size), limit - size)
    return lowest + place * (highest - lowest)


def _recoloured(step: Colour, images: Tensor, draws: Draws) -> Tensor:
    """As torchvision's functions of these names do, rounded at the end alone."""
    spans = np.array([step.brightness, step.contrast, step.saturation, step.hue])
    factors = [1, 1, 1, 0] + spans * (2 * draws[:, :4] - 1)
    brightness, contrast, saturation, hue = _on(factors.T[..., None, None, None], images.device)
    colours = images.float()
    if step.brightness:
        colours = (colours * brightness).clamp_(0, 255)
    if step.contrast:
        # Whole numbers add up to the same in any order.
        total = _grey(colours).floor_().sum((1, 2, 3), keepdim=True, dtype=torch.int64)
        mean = total / math.prod(images.shape[2:])
        colours = _blend(colours, mean, contrast)
    if step.saturation:
        colours = _blend(colours, _grey(colours), saturation)
    return _turned(colours, 6 * hue[:, 0]) if step.hue else colours


def _blend(colours: Tensor, other: Tensor, share: Tensor) -> Tensor:
    return (colours * share).add_(other * (1 - share)).clamp_(0, 255)


def _grey(colours: Tensor) -> Tensor:
    red, green, blue = colours.unbind(1)
    return (red * _GREY[0]).add_(green * _GREY[1]).add_(blue * _GREY[2])[:, None]


def _turned(colours: Tensor, turn: Tensor) -> Tensor:
    """Colours with their hue turned, value and saturation kept; ``turn`` in sixths of a circle."""
    red, green, blue = colours.unbind(1)
    value = colours.amax(1)
    chroma = value - colours.amin(1)
    divisor = chroma.clamp(min=1e-6)
    sector = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    ).add_(turn)
    channels = []
    for offset in (5, 3, 1):
        place = sector + offset
        place -= 6 * (place / 6).floor_()  # remainder_(6), which is slow
        channels.append(value - chroma * place.minimum(4 - place).clamp_(0, 1))
    return torch.stack(channels, dim=1)


def _blurred(images: Tensor, sigma: Draws) -> Tensor:
    """Each image's own Gaussian, cut off at three standard deviations, down and then across."""
    radius = math.ceil(3 * float(sigma.max()))
    taps = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (taps / sigma[:, None]) ** 2)
    weights *= abs(taps) <= np.ceil(3 * sigma)[:, None]
    weights /= weights.sum(axis=1, keepdims=True)
    there = _on(weights.T[..., None, None, None], images.device)
    blurred = images.float()
    for dim in (2, 3):
        size = images.shape[dim]
        edges = (0, 0, radius, radius) if dim == 2 else (radius, radius, 0, 0)
        padded = functional.pad(blurred, edges, mode="replicate")
        blurred = padded.narrow(dim, 0, size) * there[0]
        for tap in range(1, len(taps)):
            blurred += padded.narrow(dim, tap, size) * there[tap]
    return blurred


def _noisy(images: Tensor, sigma: Draws, seeds: Draws) -> Tensor:
    noisy = images.float()
    for n, (deviation, seed) in enumerate(zip(sigma.tolist(), seeds.tolist(), strict=True)):
        generator = torch.Generator(images.device).manual_seed(int(seed * 2**53))
        field = torch.randn(noisy[n].shape, generator=generator, device=images.device)
        noisy[n] += deviation * field
    return noisy


def _compressed(images: Tensor, quality: Sequence[int]) -> Tensor:
    photos = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.cpu()]
    files = [encoded(photo, "JPEG", quality=q) for photo, q in zip(photos, quality, strict=True)]
    decoded = np.stack([np.asarray(decode_image(file, name="jpeg")) for file in files])
    return torch.from_numpy(decoded).permute(0, 3, 1, 2).to(images.device)


def _within(limits: tuple[float, float], draws: Draws) -> Draws:
    low, high = limits
    return low + (high - low) * draws


def _eight_bit(images: Tensor) -> Tensor:
    return images.round().clamp_(0, 255).int().byte()  # by way of int: torch is quicker at it


def _on(values: NDArray[np.generic], device: torch.device) -> Tensor:
    """Numbers there as float32, without waiting for the device."""
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)
