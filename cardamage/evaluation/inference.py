"""What a network says of images, whole or in tiles, mirrored as well; for tests and predictions.

Where several views of a pixel meet, the mean of their probabilities counts.
"""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn

Size = tuple[int, int]
"""Height and width in pixels."""

OVERLAP = 0.5
"""The least share of a tile's side that it has in common with the next."""


def infer(
    network: nn.Module, images: Tensor, *, flip: bool = False, tile: Size | None = None
) -> Tensor:
    """Logits of images; with several views of a pixel, the logarithm of its mean probabilities.

    Args:
        network: float images (B, 3, h, w) to logits (B, C, h, w).
        images: normalised, float (B, 3, H, W).
        flip: look at the images mirrored left to right as well.
        tile: show the network tiles of this size, no larger than the images; whole images if None.

    Returns:
        float32 (B, C, H, W); softmax gives probabilities.
    """
    views = [_whole_or_tiled(network, images, tile)]
    if flip:
        views.append(_whole_or_tiled(network, images.flip(-1), tile).flip(-1))
    return mean_of(views)


def mean_of(logits: list[Tensor]) -> Tensor:
    """The logarithm of the mean of the probabilities that float logits (B, C, H, W) stand for."""
    if len(logits) == 1:
        return logits[0]
    logs = torch.stack([each.log_softmax(dim=1) for each in logits])
    return logs.logsumexp(dim=0) - math.log(len(logits))


class Together(nn.Module):
    """Several networks of the same classes as one: the mean of their probabilities."""

    def __init__(self, networks: list[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W) of images (B, 3, H, W)."""
        return mean_of([network(images).float() for network in self.networks])


def _whole_or_tiled(network: nn.Module, images: Tensor, tile: Size | None) -> Tensor:
    size = (images.shape[2], images.shape[3])
    if tile is None or tile == size:
        logits: Tensor = network(images).float()
        return logits
    weights = _window(tile).to(images.device)
    total: Tensor | None = None
    for rows, columns in tiles(size, tile):
        shares = network(images[:, :, rows, columns]).float().softmax(dim=1) * weights
        if total is None:
            total = shares.new_zeros(*shares.shape[:2], *size)
        total[:, :, rows, columns] += shares
    assert total is not None  # noqa: S101 - there is one tile at least
    # Weights of a pixel's tiles need not sum to one; probabilities do.
    return (total / total.sum(dim=1, keepdim=True)).clamp_min(1e-12).log()


def tiles(size: Size, tile: Size) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of tiles that cover an image, evenly spread, by row."""
    for top, left in product(*map(_starts, size, tile)):
        yield slice(top, top + tile[0]), slice(left, left + tile[1])


def _starts(length: int, part: int) -> list[int]:
    count = 1 + math.ceil((length - part) / (part * (1 - OVERLAP)))
    return [round(number * (length - part) / max(1, count - 1)) for number in range(count)]


def _window(tile: Size) -> Tensor:
    """How much a tile counts, falling along lines towards its edges: float32 (h, w)."""
    rows, columns = (
        torch.minimum(torch.arange(1, side + 1), torch.arange(side, 0, -1)) / side for side in tile
    )
    return rows[:, None] * columns
