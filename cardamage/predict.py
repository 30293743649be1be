"""A run's checkpoint, and from it the class maps of photos of any size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cardamage.data.images import resize_image, resize_mask
from cardamage.errors import CheckpointError, ConfigError
from cardamage.evaluate import normalise
from cardamage.paths import RunPaths
from cardamage.selection import best_epoch
from cardamage.tables import read_table


def choose_checkpoint(run: RunPaths, choice: str, select_by: str) -> tuple[int, Path]:
    """The epoch and file of the checkpoint that a command's ``--checkpoint`` means.

    Args:
        run: the run.
        choice: ``best``, ``last`` or an epoch, from 1.
        select_by: the validation score that ``best`` goes by.

    Raises:
        ConfigError: ``choice`` is none of these.
        CheckpointError: the run has no such checkpoint.
        RunError: ``best`` is asked for and ``metrics.csv`` is missing or damaged.
    """
    if choice not in ("best", "last") and not (choice.isdecimal() and int(choice) >= 1):
        raise ConfigError(
            f'--checkpoint "{choice}" is unknown; allowed: best, last, or an epoch from 1'
        )
    there = run.finished_checkpoints()
    if not there:
        raise CheckpointError(
            f"{run.root} has no checkpoints; train it first: accelerate launch jobs/train.py "
            f"{run.root}"
        )
    match choice:
        case "best":
            epoch = best_epoch(read_table(run.metrics), select_by)
            if epoch is None:
                raise CheckpointError(
                    f"no epoch of {run.root} has a validation {select_by}, so none is best; "
                    f"choose --checkpoint last or one of {_ranges(there)}"
                )
        case "last":
            epoch = max(there)
        case _:
            epoch = int(choice)
    if epoch not in there:
        raise CheckpointError(
            f"{run.root} has no checkpoint of epoch {epoch}; choose one of {_ranges(there)}"
        )
    return epoch, there[epoch]


def predict(
    model: nn.Module,
    photos: Iterable[Image.Image],
    *,
    image_size: tuple[int, int],
    batch_size: int,
) -> Iterator[NDArray[np.uint8]]:
    """The class map of each photo, in their order, at the photo's own size.

    A photo is resized to what the model was trained on; the map that comes out is resized back, so
    its borders are as coarse as the model's pixels.

    Args:
        model: gives logits (B, classes, H, W); put into evaluation mode, and used where it is.
        photos: RGB images; drawn from only as far as the next batch goes.
        image_size: height and width the model was trained at, in pixels.
        batch_size: photos per forward pass.

    Yields:
        Class ids, uint8 (height, width) of the photo.
    """
    model.eval()
    device = next(model.parameters()).device
    remaining = iter(photos)
    while batch := list(islice(remaining, batch_size)):
        pixels = np.stack([np.asarray(resize_image(photo, image_size)) for photo in batch])
        maps = _forward(model, torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device))
        for photo, small in zip(batch, maps.cpu().numpy(), strict=True):
            yield resize_mask(small, (photo.height, photo.width))


@torch.no_grad()
def _forward(model: nn.Module, images: Tensor) -> Tensor:
    """Class ids, uint8 (B, H, W), of images, uint8 (B, 3, H, W)."""
    logits: Tensor = model(normalise(images))
    return logits.argmax(dim=1).to(torch.uint8)


def _ranges(epochs: Iterable[int]) -> str:
    """Ascending epochs in few words: ``1-4, 7``."""
    ranges: list[list[int]] = []
    for epoch in epochs:
        if ranges and epoch == ranges[-1][-1] + 1:
            ranges[-1][1:] = [epoch]
        else:
            ranges.append([epoch])
    return ", ".join("-".join(map(str, bounds)) for bounds in ranges)
