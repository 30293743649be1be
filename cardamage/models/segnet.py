"""The study's SegNets: convolutions down to an eighth of the size and up again, without skips."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

Stage = Sequence[tuple[int, int]]
"""The convolutions of one stage: (kernel size in pixels, output channels) of each."""

SegNetName = Literal["segnet1", "segnet2", "segnet3"]


class SegNet(nn.Module):
    """Encoder and decoder of the same depth; images (B, 3, H, W) give logits (B, classes, H, W).

    Every convolution but the last is followed by batch normalisation and ReLU. H and W are
    multiples of 2 to the number of ``down`` stages.

    Args:
        down: the encoder's stages; each ends in a 2x2 max pool.
        up: the decoder's stages, as many as ``down``; each begins with a bilinear upsampling by 2.
            The last stage's last convolution gives the classes.
        softmax: end in a softmax over the classes, so that probabilities come out, not logits.
    """

    def __init__(self, down: Sequence[Stage], up: Sequence[Stage], *, softmax: bool) -> None:
        super().__init__()
        channels = 3
        self.down = nn.ModuleList()
        for stage in down:
            self.down.append(nn.Sequential(*_convolutions(channels, stage), nn.MaxPool2d(2)))
            channels = stage[-1][1]
        self.up = nn.ModuleList()
        for number, stage in enumerate(up, start=1):
            upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            layers = _convolutions(channels, stage, ends_bare=number == len(up))
            self.up.append(nn.Sequential(upsample, *layers))
            channels = stage[-1][1]
        self.output = nn.Softmax(dim=1) if softmax else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of images (B, 3, H, W); probabilities with ``softmax``."""
        for stage in (*self.down, *self.up, self.output):
            images = stage(images)
        return images


def segnet(name: SegNetName, classes: int, *, softmax: bool) -> SegNet:
    """One of the study's SegNets."""
    match name:
        case "segnet1":
            down = (
                ((7, 64), (5, 128)),
                ((5, 256), (3, 512), (3, 512)),
                ((3, 1024), (3, 1024), (3, 1024)),
            )
            up = (
                ((5, 512), (5, 256), (7, 128)),
                ((7, 64), (9, 32), (11, 16)),
                ((11, 8), (13, classes)),
            )
            return SegNet(down, up, softmax=softmax)
        case "segnet2":
            return _small(1, classes, softmax=softmax)
        case "segnet3":
            return _small(2, classes, softmax=softmax)


def _small(convolutions: int, classes: int, *, softmax: bool) -> SegNet:
    """The small SegNets differ in how many convolutions each stage on the way down has."""
    down = tuple(((3, channels),) * convolutions for channels in (64, 128, 256))
    up = tuple(((3, channels),) for channels in (128, 64, classes))
    return SegNet(down, up, softmax=softmax)


def _convolutions(channels: int, stage: Stage, *, ends_bare: bool = False) -> list[nn.Module]:
    """The layers of a stage; with ``ends_bare`` its last convolution stays alone."""
    layers: list[nn.Module] = []
    for kernel, out in stage:
        layers += [
            nn.Conv2d(channels, out, kernel, padding=kernel // 2),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
        channels = out
    return layers[:-2] if ends_bare else layers
