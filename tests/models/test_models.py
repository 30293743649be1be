"""The networks: sizes as the study's table has them, and outputs computed a second way."""

import numpy as np
import pytest
import torch
import torchvision
from pydantic import TypeAdapter
from torch import nn
from torch.nn import functional

from cardamage.config import recipe
from cardamage.launch.planning import forecast
from cardamage.models import build_model
from tests.helpers import numpy_networks

PARAMETERS = {
    "segnet1": 46_820_419,
    "segnet2": 742_659,
    "segnet3": 1_518_147,
    "unet": 7_014_531,
    "unet2": 7_788_675,
    "fcn_resnet50": 32_947_779,
    "deeplabv3_resnet50": 39_634_243,
}

LOGITS = {  # height and width of the images in pixels; the logits at row 3, column 5
    "segnet1": (16, 24, (-0.108931, -0.069240, -0.014692)),
    "segnet2": (16, 24, (-0.133148, -0.056022, 0.031462)),
    "segnet3": (16, 24, (0.141158, -0.079286, 0.127351)),
    "unet": (16, 24, (0.023449, -0.274435, 0.133513)),
    "unet2": (16, 24, (0.015805, -0.271379, 0.136085)),
    # An eighth of the width is 9 places for dilations up to 4, and 38 for those up to 36.
    "fcn_resnet50": (16, 72, (-0.036560, -0.128945, 0.037850)),
    "deeplabv3_resnet50": (16, 304, (0.054723, 0.006459, -0.048846)),
}
"""Computed once by ``numpy_networks``, in float64, for the weights of :func:`closed_form`."""


def build(name: str, classes: int = 3, **options: object) -> nn.Module:
    model = TypeAdapter(recipe.Model).validate_python({"name": name, **options})
    return build_model(model, classes)


def closed_form(name: str) -> tuple[nn.Module, dict[str, np.ndarray]]:
    """A network whose every tensor is a sine of its own, and those tensors; no random numbers."""
    with torch.device("meta"):
        model = build(name)
    state = {}
    for number, (key, value) in enumerate(model.state_dict().items()):
        wave = np.sin(np.arange(value.numel(), dtype=np.float64) * (1 + number) + number)
        if value.ndim == 4:
            values = wave * np.sqrt(4 / value[0].numel())
        elif key.endswith("num_batches_tracked"):
            values = np.zeros(1)
        elif key.endswith(("weight", "running_var")):
            values = 1 + 0.5 * wave
        else:
            values = 0.1 * wave
        state[key] = torch.from_numpy(values.reshape(value.shape)).to(value.dtype)
    model = model.to_empty(device="cpu")
    model.load_state_dict(state)
    return model.eval(), {key: value.numpy() for key, value in state.items()}


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
@pytest.mark.parametrize("name", PARAMETERS)
def test_logits_equal_those_of_a_second_implementation(name):
    height, width, expected = LOGITS[name]
    model, state = closed_form(name)
    images = np.sin(np.arange(3 * height * width)).reshape(1, 3, height, width)
    logits = model(torch.from_numpy(images).float()).numpy()
    np.testing.assert_allclose(logits, numpy_networks.forward(name, state, images), atol=1e-5)
    np.testing.assert_allclose(logits[0, :, 3, 5], expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["fcn_resnet50", "deeplabv3_resnet50"])
def test_torchvisions_own_network_gives_the_same(name):
    model, state = closed_form(name)
    make = getattr(torchvision.models.segmentation, name)
    own = make(weights=None, weights_backbone=None, num_classes=3, aux_loss=None).eval()
    own.load_state_dict(
        {key.removeprefix("model."): torch.as_tensor(v) for key, v in state.items()}
    )
    images = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    own.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    assert torch.equal(model(images), own(images)["out"])


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


def test_a_forecast_knows_the_parameters_of_every_network():
    """It may not import torch, so it has a table of its own."""
    assert forecast.PARAMETERS == PARAMETERS
