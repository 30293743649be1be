"""Weights to begin with that another run has trained."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from cardamage.errors import CheckpointError
from cardamage.files import sha256_of
from cardamage.training.checkpoint import load_checkpoint, load_weights
from cardamage.training.states import read_state


def start_from(path: Path, model: nn.Module) -> str:
    """Copy the weights at ``path`` into ``model``, and nothing else of what is there.

    Args:
        path: a checkpoint, or a saved state, which another run left.
        model: the model as built.

    Returns:
        The file's SHA-256, hex.

    Raises:
        CheckpointError: there is no such file, it is damaged, or its weights do not fit.
    """
    if path.suffix == ".pt":
        try:
            model.load_state_dict(read_state(path)["weights"])
        except (RuntimeError, KeyError, TypeError, AttributeError):
            raise CheckpointError(
                f"train.start_from is {path}, whose weights do not fit this model; choose the "
                f"model and the classes it was trained with"
            ) from None
    else:
        load_weights(model, load_checkpoint(path), path)
    return sha256_of(path)
