"""Losses: one number per image, so that every mean is taken once and over images."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional

from cardamage.config import recipe
from cardamage.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, C, H, W) and class ids (B, H, W) to the loss of each image, float32 (B,)."""


def build_loss(losses: Sequence[recipe.Loss], pixels: Sequence[int]) -> Loss:
    """The weighted sum of the losses that a config asks for.

    Args:
        pixels: of each class id over all training masks.

    Raises:
        ConfigError: class weights cannot be balanced.
    """
    parts = [(section.weight, _of_section(section, pixels)) for section in losses]
    if parts[1:] == [] and parts[0][0] == 1:
        return parts[0][1]

    def weighted_sum(logits: Tensor, target: Tensor) -> Tensor:
        return torch.stack([w * part(logits, target) for w, part in parts]).sum(dim=0)

    return weighted_sum


def _of_section(loss: recipe.Loss, pixels: Sequence[int]) -> Loss:
    match loss:
        case recipe.CrossEntropy():
            weights = _class_weights(loss.class_weights, pixels)
            return partial(
                cross_entropy, class_weights=weights, label_smoothing=loss.label_smoothing
            )
        case recipe.Dice():
            return partial(tversky, only_shown=loss.classes == "shown")
        case recipe.Tversky(false_positive=false_positive, false_negative=false_negative):
            return partial(
                tversky,
                false_positive=false_positive,
                false_negative=false_negative,
                only_shown=loss.classes == "shown",
            )
        case recipe.Focal():
            return partial(focal, gamma=loss.gamma)
        case recipe.Lovasz():
            return lovasz
        case _:
            assert_never(loss)


def _class_weights(asked: str | float | Sequence[float], pixels: Sequence[int]) -> Tensor | None:
    """A weight for each class; balanced ones are such that a training pixel weighs 1 on average."""
    if asked == "none":
        return None
    if asked == "balanced":
        if 0 in pixels:
            raise ConfigError(
                f"loss.class_weights: balanced weights need pixels of every class, and no training "
                f"mask has any of class id {list(pixels).index(0)}; give a list of weights"
            )
        counts = torch.tensor(pixels, dtype=torch.float64)
        return (counts.sum() / (len(pixels) * counts)).float()
    if isinstance(asked, float):
        asked = [1.0, *[asked] * (len(pixels) - 1)]
    return torch.tensor(asked, dtype=torch.float32)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Each image's mean per-pixel cross-entropy, in float32 whatever the logits' type.

    Args:
        logits: float (B, C, H, W), before any softmax.
        target: class ids, integer (B, H, W).
        class_weights: float32 (C,); each pixel's cross-entropy is multiplied by its class's.
        label_smoothing: share of the target that is spread evenly over all classes.

    Returns:
        float32 (B,).
    """
    per_pixel = functional.cross_entropy(
        logits.float(),
        target.long(),
        weight=None if class_weights is None else class_weights.to(logits.device),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return per_pixel.mean(dim=(1, 2))


def tversky(
    logits: Tensor,
    target: Tensor,
    *,
    false_positive: float = 0.5,
    false_negative: float = 0.5,
    only_shown: bool = False,
) -> Tensor:
    """Each image's mean over the classes of ``1 - (TP + s) / (TP + a FP + b FN + s)``.

    ``p`` being the softmax and ``t`` 1 in the pixels of the class, TP is ``sum(p t)``, FP
    ``sum(p) - TP``, FN ``sum(t) - TP``, and s half a pixel. As in https://arxiv.org/abs/1706.05721;
    with both prices a half it is the Dice loss, ``1 - (2 TP + 1) / (sum(p) + sum(t) + 1)``.

    Args:
        logits: float (B, C, H, W), before any softmax.
        target: class ids, integer (B, H, W).
        false_positive: the price a.
        false_negative: the price b.
        only_shown: leave classes out of an image's mean that its mask does not show; else every
            pixel painted with one costs.

    Returns:
        float32 (B,), from 0 to 1.
    """
    shares = logits.float().softmax(dim=1)
    painted = shares.sum(dim=(2, 3))
    indices = target.long().unsqueeze(1)
    shown = torch.zeros_like(shares).scatter_(1, indices, 1.0)
    there, hit = shown.sum(dim=(2, 3)), (shares * shown).sum(dim=(2, 3))
    price = false_positive * (painted - hit) + false_negative * (there - hit)
    lost = 1 - (hit + 0.5) / (hit + price + 0.5)
    if not only_shown:
        return lost.mean(dim=1)
    counted = (there > 0).float()
    return (lost * counted).sum(dim=1) / counted.sum(dim=1)


def focal(logits: Tensor, target: Tensor, *, gamma: float) -> Tensor:
    """Each image's mean of ``(1 - p)^gamma`` times the cross-entropy, p that of the pixel's class.

    https://arxiv.org/abs/1708.02002, (4), over the softmax of all classes.

    Args:
        logits: float (B, C, H, W), before any softmax.
        target: class ids, integer (B, H, W).

    Returns:
        float32 (B,).
    """
    per_pixel = functional.cross_entropy(logits.float(), target.long(), reduction="none")
    # Away from 0, where the slope of a power below 1 has no bound.
    missed = (-torch.expm1(-per_pixel)).clamp_min(1e-6)
    return (missed**gamma * per_pixel).mean(dim=(1, 2))


def lovasz(logits: Tensor, target: Tensor) -> Tensor:
    """Each image's Lovász-softmax loss, a mean over the classes that its mask shows.

    The errors of a class, largest first, weighted by how much each lowers the Jaccard index beyond
    those before it: https://arxiv.org/abs/1705.08790, (9) and algorithm 1.

    Args:
        logits: float (B, C, H, W), before any softmax.
        target: class ids, integer (B, H, W).

    Returns:
        float32 (B,), from 0 to 1.
    """
    shares = logits.float().softmax(dim=1).flatten(2)
    shown = torch.zeros_like(shares).scatter_(1, target.long().flatten(1).unsqueeze(1), 1.0)
    errors, order = (shown - shares).abs().sort(dim=2, descending=True, stable=True)
    hits = shown.gather(2, order)
    there = hits.sum(dim=2, keepdim=True)
    jaccard = 1 - (there - hits.cumsum(2)) / (there + (1 - hits).cumsum(2))
    steps = torch.diff(jaccard, dim=2, prepend=torch.zeros_like(there))
    counted = (there.squeeze(2) > 0).float()
    return ((errors * steps).sum(dim=2) * counted).sum(dim=1) / counted.sum(dim=1)


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
