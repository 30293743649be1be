"""Losses: one number per image, so that every mean is taken once and over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from cardamage import config
from cardamage.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, C, H, W) and class ids (B, H, W) to the loss of each image, float32 (B,)."""


def build_loss(loss: config.CrossEntropy) -> Loss:
    """The loss a config asks for."""
    match loss:
        case config.CrossEntropy():
            return cross_entropy
        case _:
            assert_never(loss)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Each image's mean per-pixel cross-entropy, in float32 whatever the logits' type.

    Args:
        logits: float (B, C, H, W), before any softmax.
        target: class ids, integer (B, H, W).

    Returns:
        float32 (B,).
    """
    per_pixel = functional.cross_entropy(logits.float(), target.long(), reduction="none")
    return per_pixel.mean(dim=(1, 2))


@torch.no_grad()
def check_logits(model: nn.Module, image_size: tuple[int, int]) -> None:
    """Refuse a model whose outputs are probabilities already: cross-entropy applies the softmax.

    A second softmax keeps the loss of C classes above ln(1 + (C-1)/e), however good the model is.
    The model is left in the mode it came in.

    Raises:
        ConfigError: the outputs are not negative and sum to one over the classes.
    """
    was_training = model.training
    outputs = model.eval()(torch.rand(1, 3, *image_size)).float()
    model.train(was_training)
    sums = outputs.sum(dim=1)
    if bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3):
        raise ConfigError(
            f"{type(model).__name__} gives probabilities that sum to one, and cross_entropy "
            f"applies a softmax of its own; return logits (model.softmax_output asks for this of "
            f"the study's SegNets, and of no other model)"
        )
