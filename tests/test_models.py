"""The networks: sizes as the study's table has them, and outputs computed a second way."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from cardamage import config
from cardamage.models import build_model
from cardamage.models.segnet import SegNet

PARAMETERS = {
    "segnet1": 46_820_419,
    "segnet2": 742_659,
    "segnet3": 1_518_147,
    "unet": 7_014_531,
    "unet2": 7_788_675,
    "fcn_resnet50": 32_947_779,
    "deeplabv3_resnet50": 39_634_243,
}


def build(name: str, classes: int = 3, **options: object) -> nn.Module:
    model = TypeAdapter(config.Model).validate_python({"name": name, **options})
    return build_model(model, classes)


def settled(name: str, **options: object) -> nn.Module:
    """A network whose batch normalisations have statistics and scales unlike their defaults."""
    torch.manual_seed(3)
    model = build(name, **options)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    return model.eval()


class ByHand:
    """Runs the convolutions of a state dict one after the other, in the order they lie there."""

    def __init__(self, model: nn.Module) -> None:
        state = model.state_dict()
        stems = [key.removesuffix(".weight") for key in state if key.endswith(".weight")]
        self.left = [
            {k.removeprefix(stem + "."): v for k, v in state.items() if k.startswith(stem + ".")}
            for stem in stems
        ]

    def conv(self, x: Tensor) -> Tensor:
        """The next convolution, alone."""
        layer = self.left.pop(0)
        return functional.conv2d(
            x, layer["weight"], layer["bias"], padding=layer["weight"].shape[-1] // 2
        )

    def block(self, x: Tensor) -> Tensor:
        """The next convolution, its batch normalisation written out, ReLU."""
        x = self.conv(x)
        norm = {key: value for key, value in self.left.pop(0).items() if value.ndim}
        mean, var, weight, bias = (
            norm[key].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-5) * weight + bias).clamp(min=0)


def doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def pooled(x: Tensor) -> Tensor:
    return functional.max_pool2d(x, 2)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_those_of_the_study(name):
    with torch.device("meta"):
        model = build(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
@pytest.mark.parametrize("classes", [2, 5])
def test_logits_have_the_images_size(name, classes):
    with torch.device("meta"):
        logits = build(name, classes).eval()(torch.zeros(2, 3, 48, 64))
    assert logits.shape == (2, classes, 48, 64)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_convolution_but_the_last_is_normalised(name):
    with torch.device("meta"):
        layers = list(build(name).modules())
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    assert norms == convolutions - 1


@torch.no_grad()
@pytest.mark.parametrize(("name", "convolutions"), [("segnet2", 1), ("segnet3", 2)])
def test_segnets_equal_a_second_computation(name, convolutions):
    model = settled(name)
    hand = ByHand(model)
    images = torch.randn(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    x = images
    for _ in range(3):
        for _ in range(convolutions):
            x = hand.block(x)
        x = pooled(x)
    x = hand.block(doubled(x))
    x = hand.block(doubled(x))
    x = hand.conv(doubled(x))
    assert not hand.left
    torch.testing.assert_close(model(images), x, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_segnet1_is_laid_out_as_the_study_says():
    with torch.device("meta"):
        model = build("segnet1")
    layout = [
        (layer.kernel_size[0], layer.out_channels)
        if isinstance(layer, nn.Conv2d)
        else type(layer).__name__
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.Upsample | nn.Softmax)
    ]
    pool, up = "MaxPool2d", "Upsample"
    down = [(7, 64), (5, 128), pool, (5, 256), (3, 512), (3, 512), pool, *[(3, 1024)] * 3, pool]
    first = [up, (5, 512), (5, 256), (7, 128)]
    assert layout == [*down, *first, up, (7, 64), (9, 32), (11, 16), up, (11, 8), (13, 3)]


@torch.no_grad()
def test_a_segnet_with_other_kernels_equals_a_second_computation():
    torch.manual_seed(0)
    model = SegNet([[(7, 4), (5, 6)]], [[(9, 5), (13, 2)]], softmax=False).eval()
    hand = ByHand(model)
    images = torch.randn(1, 3, 16, 16)
    expected = hand.conv(hand.block(doubled(pooled(hand.block(hand.block(images))))))
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["unet", "unet2"])
def test_unets_equal_a_second_computation(name):
    model = settled(name)
    hand = ByHand(model)
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    enc1 = pooled(hand.block(hand.block(images)))
    enc2 = pooled(hand.block(hand.block(enc1)))
    enc3 = pooled(hand.block(hand.block(enc2)))
    x = hand.block(hand.block(enc3))
    for skipped in (enc3, enc2, enc1):
        entering = torch.cat([x, skipped], dim=1) if name == "unet2" else x
        x = doubled(hand.block(hand.block(entering)))
    x = hand.conv(x)
    assert not hand.left
    torch.testing.assert_close(model(images), x, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_softmax_output_is_the_softmax_of_the_logits():
    plain, study = build("segnet2"), build("segnet2", softmax_output=True)
    study.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 16, 16)
    probabilities = study.eval()(images)
    torch.testing.assert_close(probabilities, plain.eval()(images).softmax(dim=1))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 16, 16))


@pytest.mark.parametrize("name", ["segnet2", "segnet3", "unet", "unet2"])
def test_the_seed_makes_the_weights(name):
    torch.manual_seed(5)
    first = build(name).state_dict()
    torch.manual_seed(5)
    second = build(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", ["segnet2", "segnet3", "unet", "unet2"])
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    model = build(name)
    functional.cross_entropy(
        model(torch.randn(2, 3, 16, 16)), torch.ones(2, 16, 16).long()
    ).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_torchvision_models_have_no_auxiliary_head(name):
    with torch.device("meta"):
        model = build(name)
    assert {key.split(".")[1] for key in model.state_dict()} == {"backbone", "classifier"}
