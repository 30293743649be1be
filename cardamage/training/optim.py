"""Optimisers, at a constant learning rate as in the study."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from torch import nn, optim

from cardamage import config


def build_optimizer(
    settings: config.Adam | config.AdamW | config.SGD, parameters: Iterable[nn.Parameter]
) -> optim.Optimizer:
    """The optimiser a config asks for, over ``parameters``."""
    match settings:
        case config.Adam():
            return optim.Adam(
                parameters,
                lr=settings.lr,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
            )
        case config.AdamW():
            return optim.AdamW(
                parameters,
                lr=settings.lr,
                betas=settings.betas,
                weight_decay=settings.weight_decay,
            )
        case config.SGD():
            return optim.SGD(
                parameters,
                lr=settings.lr,
                momentum=settings.momentum,
                weight_decay=settings.weight_decay,
            )
        case _:
            assert_never(settings)
