"""One pass through the model whose only effect is the order in which gradients are added."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn


def settle_gradient_order(
    model: nn.Module, accelerator: Accelerator, size: tuple[int, int]
) -> None:
    """Have torch settle now in which order it adds up the gradients of several processes.

    It sorts them by the order in which the first backward pass gives them, for the passes after.
    Three processes or more then add in another order from the second step on, so that the first
    step after a resumption would differ in the last bit from the same step of an undisturbed run.
    After this pass every step is a later one. Parameters and buffers are left as they were.

    Args:
        model: as prepared.
        accelerator: which prepared it.
        size: height and width of an image, in pixels.
    """
    if accelerator.num_processes == 1:
        return
    kept = [buffer.clone() for buffer in model.buffers()]
    images = torch.rand(2, 3, *size, device=accelerator.device)
    accelerator.backward(model.train()(images).float().mean())
    with torch.no_grad():
        for buffer, before in zip(model.buffers(), kept, strict=True):
            buffer.copy_(before)
    model.zero_grad()
