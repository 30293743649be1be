import pytest
import torch
from torch import nn

from cardamage.config.recipe import SGD, Adam, AdamW, SmpModel
from cardamage.models import build_model, encoder_of
from cardamage.training.optim import build_optimizer


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        (Adam(name="adam", lr=0.5), torch.optim.Adam, {"lr": 0.5, "betas": (0.9, 0.999)}),
        (
            AdamW(name="adamw", weight_decay=0.25, betas=(0.5, 0.75)),
            torch.optim.AdamW,
            {"lr": 0.001, "weight_decay": 0.25, "betas": (0.5, 0.75)},
        ),
        (
            SGD(name="sgd", lr=0.01, momentum=0.9),
            torch.optim.SGD,
            {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0},
        ),
    ],
)
def test_the_config_reaches_the_optimiser(settings, kind, expected):
    optimizer = build_optimizer(settings, nn.Linear(1, 1))
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {key: group[key] for key in expected} == expected


def test_one_sgd_step_by_hand():
    model = nn.Linear(1, 1, bias=False)
    weight = model.weight
    nn.init.ones_(weight)
    optimizer = build_optimizer(SGD(name="sgd", lr=0.1), model)
    (weight * 3).sum().backward()
    optimizer.step()
    assert weight.item() == pytest.approx(1.0 - 0.1 * 3)


def test_norms_and_encoder_have_their_own_decay_and_rate():
    model = build_model(SmpModel(name="smp", encoder="resnet18", weights="none"), 2)
    settings = AdamW(name="adamw", lr=0.01, weight_decay=0.1, decay_norms=False, encoder_lr=0.25)
    optimizer = build_optimizer(settings, model)
    inside = {id(parameter) for parameter in encoder_of(model).parameters()}
    assert optimizer.param_groups[0]["lr"] == 0.01  # what metrics.csv calls lr
    seen = 0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == (0.0025 if id(parameter) in inside else 0.01)
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
            seen += 1
    assert seen == len(list(model.parameters()))
