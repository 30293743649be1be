"""The networks. All take float images (B, 3, H, W) and give (B, classes, H, W), logits unless said.

To add one: a schema class in ``cardamage/config.py``, a case here, a YAML and a test.
"""

from __future__ import annotations

from typing import Literal, assert_never

from torch import Tensor, nn

from cardamage import config
from cardamage.models.segnet import segnet
from cardamage.models.unet import UNet


class TorchvisionModel(nn.Module):
    """A torchvision segmentation model that gives its logits, instead of a dict that holds them.

    Args:
        name: which of torchvision's models.
        classes: channels that come out, background included.
    """

    def __init__(self, name: Literal["fcn_resnet50", "deeplabv3_resnet50"], classes: int) -> None:
        super().__init__()
        # Imported here: torchvision takes seconds, which the other models need not wait for.
        from torchvision.models import segmentation  # noqa: PLC0415

        build = {
            "fcn_resnet50": segmentation.fcn_resnet50,
            "deeplabv3_resnet50": segmentation.deeplabv3_resnet50,
        }[name]
        # Both weights are named: left out, the backbone's would be downloaded.
        self.model = build(weights=None, weights_backbone=None, num_classes=classes, aux_loss=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of images (B, 3, H, W)."""
        logits: Tensor = self.model(images)["out"]
        return logits


def build_model(model: config.Model, classes: int) -> nn.Module:
    """The network of a config, with random weights from torch's global generator.

    Args:
        model: the config's ``model`` section.
        classes: how many classes there are, background included.

    Returns:
        A module from images, float (B, 3, H, W), to logits, float (B, classes, H, W); only with
        ``softmax_output`` are they probabilities that sum to one over the classes.
    """
    match model:
        case config.SegNet(name=name, softmax_output=softmax):
            return segnet(name, classes, softmax=softmax)
        case config.UNet(name=name):
            return UNet(classes, skips=name == "unet2")
        case config.TorchvisionModel(name=torchvision_name):
            return TorchvisionModel(torchvision_name, classes)
        case _:
            assert_never(model)
