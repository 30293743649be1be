"""torchvision's segmentation networks."""

from typing import Literal

from torch import Tensor, nn


class TorchvisionModel(nn.Module):
    """A torchvision segmentation model that gives its logits, instead of a dict that holds them."""

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
