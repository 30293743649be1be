"""Memory: how many images a process has it for at a time, and keeping what was freed."""

import ctypes
import platform

import torch

from cardamage.errors import ConfigError
from cardamage.training.losses import Loss
from cardamage.training.state import Training


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next step, instead of giving it back.

    Tensors of more than 32 MiB are else mapped anew in each step and filled with zeros, page by
    page; on two cores a step of a U-Net then takes up to half as long again. Nothing is done where
    the library is not glibc. The numbers are those of its ``malloc.h``.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    trim_threshold, mmap_max = -1, -4
    libc = ctypes.CDLL(None)
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, -1)  # never


def fitting_micro_batch(
    training: Training, share: int, loss_of: Loss, size: tuple[int, int]
) -> int:
    """The largest of ``share`` and its halves that every process can train on at a time.

    Weights and running statistics are left as they were. All processes take part.

    Args:
        share: the most images that a process has in a step.
        size: height and width of an image, in pixels.

    Raises:
        ConfigError: not even one image fits.
    """
    images = share
    while not _fits_everywhere(training, images, loss_of, size):
        if images == 1:
            raise ConfigError(
                f"out of memory with one image of {size[0]} x {size[1]} pixels; lower "
                f"data.image_size, or take a smaller network"
            )
        images = -(-images // 2)
    return images


def _fits_everywhere(training: Training, images: int, loss_of: Loss, size: tuple[int, int]) -> bool:
    accelerator = training.accelerator
    failed = torch.zeros(1, device=accelerator.device)
    try:
        _try(training, images, loss_of, size)
    except torch.OutOfMemoryError:
        failed += 1
    if accelerator.device.type == "cuda":
        torch.cuda.empty_cache()
    return bool(accelerator.reduce(failed, "sum").item() == 0)


def _try(training: Training, images: int, loss_of: Loss, size: tuple[int, int]) -> None:
    """A forward and backward pass; without what ``prepare`` wrapped, so no process waits."""
    module, device = training.module.train(), training.accelerator.device
    kept = [buffer.clone() for buffer in module.buffers()]
    try:
        pixels = torch.rand(images, 3, *size, device=device)
        target = torch.zeros(images, *size, dtype=torch.uint8, device=device)
        with training.accelerator.autocast():
            logits = module(pixels.contiguous(memory_format=torch.channels_last))
        training.accelerator.backward(loss_of(logits, target).sum())
    finally:
        module.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(module.buffers(), kept, strict=True):
                buffer.copy_(before)
