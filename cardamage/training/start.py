"""Where training begins: network, optimiser and weights, new or as they were saved."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from cardamage.config.experiment import Experiment
from cardamage.config.recipe import SegNet
from cardamage.data.shards.order import shares
from cardamage.evaluation.confusion import Tally
from cardamage.models import build_model
from cardamage.models.pretrained import fetch, load_pretrained
from cardamage.runs.continued import (
    Pretrained,
    Source,
    find_source,
    weights_file,
    write_origin,
    write_pretrained,
)
from cardamage.runs.paths import RunPaths, weights_folder
from cardamage.system.console import log
from cardamage.training.checkpoint import check_belongs, load_checkpoint, load_weights
from cardamage.training.ema import AveragedModel
from cardamage.training.losses import Loss, check_logits
from cardamage.training.memory import fitting_micro_batch
from cardamage.training.numerics import (
    check_batch_norm,
    quicken_depthwise,
    synchronise_batch_norm,
    warm_up_ddp_buckets,
)
from cardamage.training.optim import build_optimizer
from cardamage.training.outputs import publish_epoch
from cardamage.training.schedule import Schedule
from cardamage.training.state import Training
from cardamage.training.steps import StepPlan


def build(
    experiment: Experiment, plan: StepPlan, accelerator: Accelerator, fingerprint: str
) -> Training:
    """Everything that training changes, as it is before the first step of a new run.

    Raises:
        ConfigError: the model cannot be trained this way, or gives no logits.
    """
    check_batch_norm(experiment, plan)
    torch.manual_seed(experiment.seed)
    classes = len(experiment.data.class_names)
    model = build_model(experiment.model, classes)
    if not (isinstance(experiment.model, SegNet) and experiment.model.softmax_output):
        check_logits(model, experiment.network_size)
    model = quicken_depthwise(model, accelerator)
    if experiment.train.sync_batchnorm:
        model = synchronise_batch_norm(model, plan, accelerator)
    averaged = AveragedModel(experiment.ema, model) if experiment.ema else None
    optimizer = build_optimizer(experiment.optim, model)
    if experiment.train.compile:
        model.compile()
    model, optimizer = accelerator.prepare(model, optimizer)
    warm_up_ddp_buckets(model, accelerator, experiment.network_size)
    origin = {"config": experiment.hash(), "dataset": fingerprint}
    if averaged:
        averaged.module.to(accelerator.device)
    return Training(accelerator, model, optimizer, Tally(classes), origin, averaged)


def with_fitting_micro_batch(
    training: Training, plan: StepPlan, loss_of: Loss, experiment: Experiment
) -> StepPlan:
    """The plan with the micro-batch that memory allows, as found at the very first start.

    Raises:
        ConfigError: none fits, or the network cannot train on so few images.
    """
    if training.micro_batch_size is None:
        share = max(s.stop - s.start for s in shares(plan.batch_size, plan.processes))
        size = experiment.network_size
        training.micro_batch_size = fitting_micro_batch(training, share, loss_of, size)
    log.info("micro-batches of %d images at most", training.micro_batch_size)
    found = replace(plan, micro_batch_size=training.micro_batch_size)
    check_batch_norm(experiment, found)
    return found


def resume_or_start(
    training: Training, schedule: Schedule, plan: StepPlan, run: RunPaths, experiment: Experiment
) -> Path | None:
    """Continue where the run was saved last, or else begin with the weights the config asks for.

    Returns:
        The saved state that was taken up; None for a new run.

    Raises:
        UserError: a state or the other run's checkpoint cannot serve.
    """
    is_main = training.accelerator.is_main_process
    if state := training.resume(run):
        epochs = len(training.rows)
        log.info("resuming: %d epochs, %d steps done", epochs, training.step)
        training.rows = [  # a state may be older than the column
            {**row, "lr": row.get("lr", schedule.rate(plan.steps_until(epoch) - 1))}
            for epoch, row in enumerate(training.rows, start=1)
        ]
        if is_main and epochs and training.step == plan.steps_until(epochs):
            # The last start may have been killed after it saved and before it published.
            publish_epoch(run, experiment, training.rows, training.outcome.state_dict())
        return state
    load_initial_weights(training, run, experiment)
    return None


def load_initial_weights(training: Training, run: RunPaths, experiment: Experiment) -> None:
    """Begin a new run with the weights that its config asks for.

    The first process chooses the file: another's view of a shared disk may be older.

    Raises:
        UserError: the weights are missing or damaged, or do not fit.
    """
    is_main = training.accelerator.is_main_process
    if experiment.continue_from:
        source = find_source(run, experiment, experiment.continue_from) if is_main else None
        (source,) = broadcast_object_list([source])
        load_continued(source, experiment, training.module, run, is_main=is_main)
    else:
        file = _pretrained_file(experiment, run) if is_main else None
        (file,) = broadcast_object_list([file])
        if file:
            found = load_pretrained(training.module, file)
            text = "starting from pretrained weights: %s (sha256 %s), %d tensors, %d left out"
            log.info(text, found.source, found.sha256[:12], found.tensors, found.left_out)
            if is_main:
                write_pretrained(run, Pretrained(experiment.weights, str(file), **asdict(found)))
    if training.averaged:
        training.averaged.module.load_state_dict(training.module.state_dict())


def _pretrained_file(experiment: Experiment, run: RunPaths) -> Path | None:
    """The file of the weights that ``model.weights`` means; None where there are none."""
    weights = experiment.weights
    if weights == "none":
        return None
    if weights == "imagenet":
        return fetch(experiment.model, weights_folder(experiment.data.shards_dir))
    return weights_file(run, weights)


def load_continued(
    source: Source, experiment: Experiment, model: nn.Module, run: RunPaths, *, is_main: bool
) -> None:
    """Copy a checkpoint's weights into ``model``, and write down which they were.

    Args:
        model: without what ``prepare`` wrapped around it; every process has its own.

    Raises:
        CheckpointError: the checkpoint is damaged, of another config, or does not fit.
    """
    checkpoint = load_checkpoint(source.path)
    check_belongs(checkpoint, source.experiment, source.path)
    load_weights(model, checkpoint, source.path)
    log.info(
        "starting from the weights of epoch %d of %s; the optimiser starts from the beginning",
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
