"""Per-image results while they accumulate on the device, and their gathering over processes."""

import torch
from accelerate import Accelerator
from torch import Tensor

from cardamage.evaluation.damages import BINS, UNIT


def confusion_counts(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Pixels by true and predicted class, int64 (B, C, C); C counts the background.

    ``[n, t, p]`` counts the pixels of image n of true class t and predicted class p, from ids of
    shape (B, H, W), int64 and uint8. Computed on the tensors' device without waiting for it.
    """
    pairs = (target.long() * classes + predicted).flatten(1)
    counts = torch.zeros(len(pairs), classes * classes, dtype=torch.int64, device=pairs.device)
    counts.scatter_add_(1, pairs, torch.ones_like(pairs))
    return counts.view(-1, classes, classes)


def foreground_probability(logits: Tensor) -> Tensor:
    """How probable any damage is, float32 (B, H, W) from logits (B, C, H, W)."""
    return (1 - logits.float().softmax(dim=1)[:, 0]).clamp(0, 1)


def foreground_confidence(foreground: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image how sure the network is of damage, and how often it is right to be.

    Args:
        foreground: as :func:`foreground_probability` gives it.
        target: true class ids, uint8 (B, H, W).

    Returns:
        The largest foreground probability, float32 (B,), and the bins of
        :attr:`~cardamage.evaluation.damages.Damages.reliability`, summed over the batch. Computed
        on the tensors' device.
    """
    bins = (foreground * BINS).long().clamp_(max=BINS - 1).flatten()
    columns = (
        torch.ones_like(bins),
        (target > 0).long().flatten(),
        (foreground * UNIT).round().long().flatten(),
    )
    reliability = torch.zeros(BINS, len(columns), dtype=torch.int64, device=bins.device)
    for number, column in enumerate(columns):
        reliability[:, number].scatter_add_(0, bins, column)
    return foreground.amax(dim=(1, 2)), reliability


class Tally:
    """Rows of (position, counts, loss), one an image, kept on the device until they are needed."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, positions: Tensor, predicted: Tensor, target: Tensor, loss: Tensor) -> None:
        """Add a batch: ids as :func:`confusion_counts` takes them, loss float32 (B,).

        ``positions``, int64 (B,), are where each image stands in the order read or in the split.
        """
        counts = confusion_counts(predicted, target, self._classes)
        self._rows.append((positions, counts, loss.detach()))

    def gather(self, accelerator: Accelerator) -> dict[str, Tensor]:
        """The rows of all processes, on each of them, in ascending position, on the CPU.

        ``positions`` int64 (N,), ``counts`` int64 (N, C, C), ``loss`` float64 (N,).
        """
        device, classes = accelerator.device, self._classes
        empty = (
            torch.empty(0, dtype=torch.int64),
            torch.empty(0, classes, classes, dtype=torch.int64),
            torch.empty(0, dtype=torch.float32),
        )
        rows = [empty, *self._rows]
        columns = [torch.cat([t.to(device) for t in column]) for column in zip(*rows, strict=True)]
        padded = [accelerator.pad_across_processes(c, dim=0, pad_index=-1) for c in columns]
        positions, counts, loss = (accelerator.gather(c).cpu() for c in padded)
        real = positions >= 0
        order = torch.argsort(positions[real])
        return {
            "positions": positions[real][order],
            "counts": counts[real][order],
            "loss": loss[real][order].double(),  # here, for not every device has float64
        }

    def restore(self, rows: dict[str, Tensor]) -> None:
        """Start from rows that :meth:`gather` gave; called on one process only."""
        self._rows = [(rows["positions"], rows["counts"], rows["loss"].float())]
