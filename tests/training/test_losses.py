import math

import pytest
import torch
from torch import nn

from cardamage.config import CrossEntropy, SegNet
from cardamage.errors import ConfigError
from cardamage.models import build_model
from cardamage.training.losses import build_loss, check_logits, cross_entropy


def test_cross_entropy_is_each_images_mean_over_pixels():
    # Two images of two pixels; logits (0, ln 3) give probabilities 1/4 and 3/4.
    logits = torch.zeros(2, 2, 1, 2)
    logits[:, 1] = math.log(3)
    target = torch.tensor([[[1, 1]], [[0, 1]]], dtype=torch.uint8)
    loss = cross_entropy(logits, target)
    expected = [-math.log(3 / 4), -(math.log(1 / 4) + math.log(3 / 4)) / 2]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_is_float32_for_bfloat16_logits():
    loss = cross_entropy(torch.zeros(1, 3, 2, 2).bfloat16(), torch.zeros(1, 2, 2))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(3))


def test_the_config_chooses_the_loss():
    assert build_loss(CrossEntropy()) is cross_entropy


def test_probabilities_are_refused_before_cross_entropy():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(dim=1))
    with pytest.raises(ConfigError, match="sum to one"):
        check_logits(model, (8, 8))


def test_the_studys_softmax_would_be_refused_too():
    model = build_model(SegNet(name="segnet2", softmax_output=True), 3)
    with pytest.raises(ConfigError, match="softmax_output"):
        check_logits(model, (8, 8))


@pytest.mark.parametrize("training", [True, False])
def test_logits_pass_and_the_mode_is_kept(training):
    model = build_model(SegNet(name="segnet2"), 3).train(training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    check_logits(model, (8, 8))
    assert model.training is training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_two_softmaxes_keep_the_loss_above_the_studys_floor():
    # The study's finding: with three classes the loss cannot fall below ln(1 + 2/e) = 0.551.
    perfect = torch.zeros(1, 3, 1, 1)
    perfect[:, 0] = 1.0
    loss = cross_entropy(perfect, torch.zeros(1, 1, 1))
    assert loss.item() == pytest.approx(math.log(1 + 2 / math.e), rel=1e-6)
    assert loss.item() == pytest.approx(0.551, abs=5e-4)
