"""What is exported: a network with its normalisation before it and the likeliest class behind."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cardamage.models.inputs import standardise
from cardamage.models.segnet import SegNet
from cardamage.models.torchvision import TorchvisionModel
from cardamage.models.unet import UNet
from cardamage.predict.model import TrainedModel


class Exported(nn.Module):
    """From images as they are decoded to classes and probabilities; in evaluation mode.

    Args:
        half: compute in float16 between the normalisation and the logits.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: TrainedModel, *, half: bool = False) -> None:
        super().__init__()
        self.network = copy.deepcopy(model.network).half() if half else model.network
        self._type = torch.float16 if half else torch.float32
        self.register_buffer("mean", torch.tensor(model.info.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(model.info.deviation).view(3, 1, 1))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classes, uint8 (B, H, W), and probabilities, float32 (B, C, H, W).

        Args:
            images: RGB, uint8 (B, H, W, 3).
        """
        pixels = standardise(images.permute(0, 3, 1, 2), self.mean, self.deviation)
        probabilities = self.network(pixels.to(self._type)).float().softmax(dim=1)
        return probabilities.argmax(dim=1).to(torch.uint8), probabilities


def side_multiple(network: nn.Module) -> int:
    """What both sides of an image have to be a multiple of; 0 where the size cannot vary.

    It cannot in encoders with TensorFlow's "same" padding, which depends on the size itself: torch
    traces those for one size only.
    """
    match network:
        case SegNet() | UNet():
            return 8
        case TorchvisionModel():
            return 1
        case _:
            pads = any(type(layer).__name__.endswith("Same") for layer in network.modules())
            return 0 if pads else 32
