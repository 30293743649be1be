"""Optimisers."""

from collections.abc import Callable

from torch import nn, optim

from cardamage.config import recipe
from cardamage.models import encoder_of

_KINDS: dict[str, Callable[..., optim.Optimizer]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "sgd": optim.SGD,
}


def build_optimizer(settings: recipe.Optim, model: nn.Module) -> optim.Optimizer:
    """The optimiser a config asks for; torch's, with torch's names.

    Parameters are in one group, but for those with a rate or a decay of their own. The first group
    is that of the highest rate.
    """
    encoder = encoder_of(model)
    of_encoder = {id(parameter) for parameter in encoder.parameters()} if encoder else set()
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        share = settings.encoder_lr if id(parameter) in of_encoder else 1.0
        decays = settings.decay_norms or parameter.ndim > 1
        key = settings.lr * share, settings.weight_decay if decays else 0.0
        groups.setdefault(key, []).append(parameter)
    return _KINDS[settings.name](
        [
            {"params": groups[rate, decay], "lr": rate, "weight_decay": decay}
            for rate, decay in sorted(groups, reverse=True)
        ],
        **settings.model_dump(exclude={"name", "decay_norms", "encoder_lr", "clip_norm"}),
    )
