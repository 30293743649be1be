"""Beginning with the weights of another run."""

from __future__ import annotations

from torch import nn

from cardamage.config import Experiment
from cardamage.console import log
from cardamage.continuation import Source, write_origin
from cardamage.paths import RunPaths
from cardamage.training.checkpoint import check_belongs, load_checkpoint, load_weights


def begin_with(
    source: Source, experiment: Experiment, model: nn.Module, run: RunPaths, *, is_main: bool
) -> None:
    """Copy a checkpoint's weights into ``model``, and write down which they were.

    Args:
        source: the checkpoint.
        experiment: that of the run that begins.
        model: without what ``prepare`` wrapped around it; every process has its own.
        run: the run that begins.
        is_main: whether this is the process that writes.

    Raises:
        CheckpointError: the checkpoint is damaged, of another config, or does not fit.
    """
    checkpoint = load_checkpoint(source.path)
    check_belongs(checkpoint, source.experiment.hash(), source.path)
    load_weights(model, checkpoint, source.path)
    log.info(
        "starting from the weights of epoch %d of %s; the optimiser starts anew",
        source.epoch,
        source.run.root,
    )
    size, theirs = experiment.data.image_size, checkpoint.info.image_size
    if size != theirs:
        log.warning(
            "%s was trained on images of %d x %d pixels, these are of %d x %d",
            source.run.root,
            *theirs,
            *size,
        )
    if is_main:
        write_origin(run, source, checkpoint.weights_sha256)
