"""Views of an image and their mean, by hand."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from cardamage.evaluation.inference import Together, infer, tiles


class Bright(nn.Module):
    """Two classes from a pixel alone: logits 0 and the red channel."""

    def forward(self, images):
        return torch.stack([torch.zeros_like(images[:, 0]), images[:, 0]], dim=1)


class LeftHalf(nn.Module):
    """A class of the left half of whatever is shown, probability 3/4; of the right half 1/4."""

    def forward(self, images):
        _, _, height, width = images.shape
        side = torch.where(torch.arange(width) < width // 2, 1.0, -1.0) * torch.log(
            torch.tensor(3.0)
        )
        return (
            torch.stack([torch.zeros(width), side])
            .expand(len(images), height, 2, width)
            .movedim(2, 1)
        )


IMAGES = torch.randn(2, 3, 10, 13, generator=torch.Generator().manual_seed(0))


def test_a_network_that_sees_pixels_says_the_same_of_tiles():
    whole = infer(Bright(), IMAGES).softmax(dim=1)
    for tile in [(10, 13), (4, 5), (10, 3), (7, 13)]:
        assert torch.allclose(infer(Bright(), IMAGES, tile=tile).softmax(1), whole, atol=1e-6)
        flipped = infer(Bright(), IMAGES, tile=tile, flip=True)
        assert torch.allclose(flipped.softmax(1), whole, atol=1e-6)


def test_views_count_by_the_mean_of_their_probabilities():
    shares = infer(LeftHalf(), IMAGES[..., :12], flip=True).softmax(dim=1)
    assert torch.allclose(shares, torch.full_like(shares, 0.5))


def test_overlapping_tiles_count_by_their_distance_from_the_edge():
    # Tiles of 4 in 6 columns begin at 0 and 2; column 2 is third in one and first in the other.
    shares = infer(LeftHalf(), IMAGES[:1, :, :4, :6], tile=(4, 4)).softmax(dim=1)
    assert shares[0, 1, 0].tolist() == pytest.approx(
        [3 / 4, 3 / 4, (2 / 4 + 3 / 4) / 3, (1 / 4 + 2 * 3 / 4) / 3, 1 / 4, 1 / 4]
    )


@pytest.mark.parametrize(
    ("size", "tile"), [((10, 13), (4, 5)), ((64, 64), (64, 32)), ((9, 9), (8, 8))]
)
def test_tiles_cover_every_pixel_and_overlap_by_half(size, tile):
    seen = torch.zeros(size)
    rows = sorted({part.start for part, _ in tiles(size, tile)})
    for part in tiles(size, tile):
        assert seen[part].shape == tile
        seen[part] += 1
    assert seen.min() >= 1
    assert all(later - first <= -(-tile[0] // 2) for first, later in pairwise(rows))


def test_networks_together_give_the_mean_of_their_probabilities():
    one, other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    expected = (one(IMAGES).softmax(1) + other(IMAGES).softmax(1)) / 2
    assert torch.allclose(Together([one, other])(IMAGES).softmax(1), expected, atol=1e-6)
