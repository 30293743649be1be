"""An exponential moving average of a model's weights, exact across resumptions."""

import copy

import torch
from torch import nn

from cardamage.config.recipe import Ema


class AveragedModel:
    """A copy of a model whose weights are the average of those after every step.

    Running statistics of normalisation are averaged as weights are; whole numbers are taken over.

    Attributes:
        module: the copy, which is never trained.
    """

    def __init__(self, settings: Ema, model: nn.Module) -> None:
        self._decay = settings.decay
        self.module = copy.deepcopy(model).requires_grad_(requires_grad=False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take the weights after a step into the average.

        Args:
            model: without what ``prepare`` wrapped around it.
            step: the steps done before it, from 0. Early averages forget sooner, so that they do
                not hold on to where training began.
        """
        kept = min(self._decay, (1 + step) / (10 + step))
        averages, new = self.module.state_dict(), model.state_dict()
        floating = [name for name, tensor in averages.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [averages[name] for name in floating], [new[name] for name in floating], 1 - kept
        )
        for name in averages.keys() - floating:
            averages[name].copy_(new[name])
