"""From logits to class maps of photos of any size."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_STRIP_NUMBERS = 1 << 22
"""Numbers in a strip of logits that is resized at once."""


class ClassMap(NamedTuple):
    """What a model says of one photo."""

    ids: NDArray[np.uint8]
    """The likeliest class of each pixel, uint8 (H, W)."""
    confidence: NDArray[np.uint8]
    """Its probability, in 255ths, uint8 (H, W)."""


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
        found.confidence[at] = (255 / part.sub_(highest).exp_().sum(dim=0)).round_().numpy()
    return found
