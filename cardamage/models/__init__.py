"""The networks. All take float images (B, 3, H, W) and give (B, classes, H, W), logits unless said.

To add one: a schema class in ``cardamage/config/recipe.py``, a case here, a YAML and a test.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from cardamage.config import recipe
from cardamage.errors import CheckpointError, ConfigError
from cardamage.models.segnet import segnet
from cardamage.models.smp import SmpNetwork
from cardamage.models.torchvision import TorchvisionModel
from cardamage.models.unet import UNet

_SECTION: TypeAdapter[recipe.Model] = TypeAdapter(recipe.Model)


def build_model(model: recipe.Model, classes: int) -> nn.Module:
    """The network of a config, with random weights from torch's global generator.

    Classes count the background. Only with ``softmax_output`` it gives probabilities, not logits.
    Weights lie channels last, in which every network here computes quicker.

    Raises:
        ConfigError: there is no such encoder, or the architecture cannot take it.
    """
    network: nn.Module = _build(model, classes).to(memory_format=torch.channels_last)
    return network


def encoder_of(network: nn.Module) -> nn.Module | None:
    """The part of a network that ImageNet weights are for; None where there are none."""
    place = {SmpNetwork: "model.encoder", TorchvisionModel: "model.backbone"}.get(type(network))
    return network.get_submodule(place) if place else None


def _build(model: recipe.Model, classes: int) -> nn.Module:
    match model:
        case recipe.SegNet(name=name, softmax_output=softmax):
            return segnet(name, classes, softmax=softmax)
        case recipe.UNet(name=name):
            return UNet(classes, skips=name == "unet2")
        case recipe.TorchvisionModel(name=torchvision_name):
            return TorchvisionModel(torchvision_name, classes)
        case recipe.SmpModel():
            return SmpNetwork(model, classes)
        case _:
            assert_never(model)


def model_of_section(section: Mapping[str, Any], classes: int, path: Path) -> nn.Module:
    """The network of a model section as a checkpoint keeps it.

    Raises:
        CheckpointError: this version knows no such network.
    """
    try:
        return build_model(_SECTION.validate_python(dict(section)), classes)
    except (ValidationError, ConfigError):
        raise CheckpointError(
            f"{path} holds a network that this version does not know ({section.get('name')}); use "
            f"the version of cardamage that trained it"
        ) from None
