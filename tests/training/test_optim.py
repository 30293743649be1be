import pytest
import torch

from cardamage.config import SGD, Adam, AdamW
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
    optimizer = build_optimizer(settings, [torch.nn.Parameter(torch.zeros(1))])
    assert type(optimizer) is kind
    assert {key: optimizer.defaults[key] for key in expected} == expected


def test_one_sgd_step_by_hand():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = build_optimizer(SGD(name="sgd", lr=0.1), [weight])
    (weight * 3).sum().backward()
    optimizer.step()
    assert weight.item() == pytest.approx(1.0 - 0.1 * 3)
