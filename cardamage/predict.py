"""A run's checkpoint, and from it the class maps of photos of any size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cardamage.errors import CheckpointError, ConfigError
from cardamage.evaluate import normalise
from cardamage.paths import RunPaths
from cardamage.picks import parse_choice
from cardamage.selection import best_epoch
from cardamage.tables import read_table

_STRIP_NUMBERS = 1 << 22
"""Numbers in a strip of logits that is resized at once."""


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
    if (wanted := parse_choice(choice)) is None:
        raise ConfigError(
            f'--checkpoint "{choice}" is unknown; allowed: best, last, or an epoch from 1'
        )
    there = run.finished_checkpoints()
    if not there:
        raise CheckpointError(
            f"{run.root} has no checkpoints; train it first: accelerate launch jobs/train.py "
            f"{run.root}"
        )
    match wanted:
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
            epoch = wanted
    if epoch not in there:
        raise CheckpointError(
            f"{run.root} has no checkpoint of epoch {epoch}; choose one of {_ranges(there)}"
        )
    return epoch, there[epoch]


@dataclass(frozen=True)
class ClassMap:
    """What a model says of one photo.

    Attributes:
        ids: the likeliest class of each pixel, uint8 (H, W).
        confidence: its probability, in 255ths, uint8 (H, W).
    """

    ids: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


@torch.no_grad()
def predict(model: nn.Module, images: NDArray[np.uint8], *, flip: bool = False) -> Tensor:
    """The logits of a batch, on the CPU; the model computes where it is.

    Args:
        model: gives logits (B, C, H, W); put into evaluation mode.
        images: RGB at the size the model was trained at, uint8 (B, H, W, 3).
        flip: also predict on the images mirrored left to right, mirror the result back, and take
            the mean of the probabilities; what is returned is its logarithm.

    Returns:
        float32 (B, C, H, W): logits, whose softmax is the probability of each class.
    """
    model.eval()
    device = next(model.parameters()).device
    batch = normalise(torch.from_numpy(images).permute(0, 3, 1, 2).to(device))
    logits: Tensor = model(batch).float()
    if flip:
        mirrored = model(batch.flip(-1)).float().flip(-1)
        both = torch.stack([logits.log_softmax(dim=1), mirrored.log_softmax(dim=1)])
        logits = both.logsumexp(dim=0) - math.log(2)
    return logits.cpu()


def enlarge(logits: Tensor, size: tuple[int, int]) -> ClassMap:
    """The class map of a photo at its own size: logits resized bilinearly, then the likeliest.

    As ``torch.nn.functional.interpolate`` without aligned corners, but in strips, so that a photo
    of 100 megapixels takes two bytes a pixel and not four for every class.

    Args:
        logits: of one photo, float32 (C, H, W).
        size: height and width of the photo, in pixels.
    """
    height, width = size
    classes, rows, _ = logits.shape
    wide = functional.interpolate(logits[None], (rows, width), mode="bilinear")[0]
    centres = ((torch.arange(height) + 0.5) * rows / height - 0.5).clamp(min=0)
    above = centres.long()
    below = (above + 1).clamp(max=rows - 1)
    weight = (centres - above)[:, None]
    found = ClassMap(np.empty(size, np.uint8), np.empty(size, np.uint8))
    strip = max(1, _STRIP_NUMBERS // (classes * width))
    for start in range(0, height, strip):
        at = slice(start, start + strip)
        part = torch.lerp(wide[:, above[at]], wide[:, below[at]], weight[at])
        highest, ids = part.max(dim=0)
        found.ids[at] = ids.numpy()
        found.confidence[at] = (255 * (highest - part.logsumexp(dim=0)).exp()).round().numpy()
    return found


def _ranges(epochs: Iterable[int]) -> str:
    """Ascending epochs in few words: ``1-4, 7``."""
    ranges: list[list[int]] = []
    for epoch in epochs:
        if ranges and epoch == ranges[-1][-1] + 1:
            ranges[-1][1:] = [epoch]
        else:
            ranges.append([epoch])
    return ", ".join("-".join(map(str, bounds)) for bounds in ranges)
