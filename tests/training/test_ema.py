"""The averaged weights by hand."""

import pytest
import torch
from torch import nn

from cardamage.config.recipe import Ema
from cardamage.training.ema import AveragedModel


def test_weights_and_running_statistics_are_averaged_and_counts_taken_over():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    nn.init.constant_(model[0].weight, 1.0)
    averaged = AveragedModel(Ema(decay=0.5), model)
    nn.init.constant_(model[0].weight, 3.0)
    model[1].running_mean.fill_(4.0)
    model[1].num_batches_tracked.fill_(7)
    averaged.update(model, step=1000)
    assert averaged.module[0].weight.item() == pytest.approx(0.5 * 1 + 0.5 * 3)
    assert averaged.module[1].running_mean.item() == pytest.approx(2.0)
    assert averaged.module[1].num_batches_tracked.item() == 7
    assert model[0].weight.item() == 3.0


def test_early_steps_forget_sooner():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    averaged = AveragedModel(Ema(decay=0.999), model)
    nn.init.constant_(model.weight, 1.0)
    averaged.update(model, step=0)  # a tenth is kept
    assert averaged.module.weight.item() == pytest.approx(0.9)
    averaged.update(model, step=8)  # a half is
    assert averaged.module.weight.item() == pytest.approx(0.95)


def test_the_average_is_never_trained():
    averaged = AveragedModel(Ema(), nn.Linear(2, 2))
    assert not any(parameter.requires_grad for parameter in averaged.module.parameters())
    assert torch.is_tensor(averaged.module.weight)
