"""The study's U-Nets: three encoders, a bottleneck, three decoders, with skips or without."""

import torch
from torch import Tensor, nn

_WIDTHS = (64, 128, 256)
_BOTTLENECK = 512


class UNet(nn.Module):
    """Images (B, 3, H, W) give logits (B, classes, H, W); H and W are multiples of 8.

    Every convolution but the last is 3x3 with batch normalisation and ReLU; encoders end in a 2x2
    max pool, decoders in a bilinear upsampling by 2, and a 1x1 convolution gives the classes.

    Args:
        skips: concatenate each decoder's input with the output of the encoder of its level. That
            output is taken *after* the pool, as the study does; a U-Net usually takes it before.
    """

    def __init__(self, classes: int, *, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        channels = 3
        self.encoders = nn.ModuleList()
        for width in _WIDTHS:
            self.encoders.append(nn.Sequential(*_twice(channels, width), nn.MaxPool2d(2)))
            channels = width
        self.bottleneck = nn.Sequential(*_twice(channels, _BOTTLENECK))
        channels = _BOTTLENECK
        self.decoders = nn.ModuleList()
        for width in reversed(_WIDTHS):
            upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            skipped = width if skips else 0
            self.decoders.append(nn.Sequential(*_twice(channels + skipped, width), upsample))
            channels = width
        self.output = nn.Conv2d(channels, classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of images (B, 3, H, W)."""
        encoded = []
        features = images
        for encoder in self.encoders:
            features = encoder(features)
            encoded.append(features)
        features = self.bottleneck(features)
        for decoder in self.decoders:
            skipped = encoded.pop()
            features = decoder(torch.cat([features, skipped], dim=1) if self.skips else features)
        logits: Tensor = self.output(features)
        return logits


def _twice(channels: int, out: int) -> list[nn.Module]:
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""
    layers: list[nn.Module] = []
    for entering in (channels, out):
        layers += [
            nn.Conv2d(entering, out, kernel_size=3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        ]
    return layers
