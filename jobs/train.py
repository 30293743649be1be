"""Train one experiment: `accelerate launch jobs/train.py CONFIG`; the same command again resumes.

Read :func:`train` from top to bottom: build, take up where the last start ended, then for every
epoch the steps, the validation, and what is written.
"""

from __future__ import annotations

from cardamage.signals import hold_usr2

if __name__ == "__main__":
    hold_usr2()  # before imports that take seconds

from contextlib import closing, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor

from cardamage import metrics
from cardamage.command_line import experiment_parser
from cardamage.config import Experiment, SegNet, TorchvisionModel
from cardamage.console import EventLog, Progress, log, start_logging
from cardamage.continuation import find_source
from cardamage.data.loader import load
from cardamage.distributed import check_placement, start_accelerator
from cardamage.errors import CardamageError, ConfigError, Stopped, run_program
from cardamage.evaluate import evaluate, normalise
from cardamage.models import build_model
from cardamage.packed import packed_splits
from cardamage.paths import RunPaths
from cardamage.provenance import write_provenance
from cardamage.runs import open_run, resolve
from cardamage.stages import running
from cardamage.tally import Tally
from cardamage.training.clock import EpochClock
from cardamage.training.continuation import begin_with
from cardamage.training.losses import Loss, build_loss, check_logits
from cardamage.training.optim import build_optimizer
from cardamage.training.plan import StepPlan
from cardamage.training.record import (
    SampleRecord,
    announce_epoch,
    metrics_row,
    publish_epoch,
)
from cardamage.training.resume import Training
from cardamage.training.stopping import StopRequests
from cardamage.training.watchdog import Watchdog, limit_from_environment


def main() -> None:
    """Parse the command line and train."""
    arguments = experiment_parser(__doc__, example="optim.lr=3e-4").parse_intermixed_args()
    experiment, run = resolve(arguments.config, arguments.overrides, arguments.runs_dir)
    accelerator = start_accelerator(experiment.train.mixed_precision)
    start_logging(main_process=accelerator.is_main_process)
    check_placement(accelerator)
    if accelerator.is_main_process:
        open_run(run, experiment)
        write_provenance(run)
    accelerator.wait_for_everyone()
    with (
        StopRequests(accelerator) as stop,
        running(run, "train", main_process=accelerator.is_main_process) as output,
    ):
        train(experiment, run, accelerator, stop)
        output["epochs"] = experiment.train.epochs
    accelerator.end_training()


def train(
    experiment: Experiment, run: RunPaths, accelerator: Accelerator, stop: StopRequests
) -> None:
    """Train up to the experiment's last epoch, from wherever the run stands.

    Raises:
        Stopped: a signal asked for it; the state is saved.
        UserError: the shards, the config or the state on disk cannot serve.
    """
    settings, is_main = experiment.train, accelerator.is_main_process
    train_split, valid_split = packed_splits(run, experiment, "train", "valid")
    names = experiment.data.class_names
    plan = StepPlan(
        seed=experiment.seed,
        samples=len(train_split),
        batch_size=settings.batch_size,
        micro_batch_size=settings.micro_batch_size,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    check_batch_norm(experiment, plan)

    torch.manual_seed(experiment.seed)
    model = build_model(experiment.model, len(names))
    if not is_softmax_asked(experiment):
        check_logits(model, experiment.data.image_size)
    optimizer = build_optimizer(experiment.optim, model.parameters())
    loss_of = build_loss(experiment.loss)
    model, optimizer = accelerator.prepare(model, optimizer)
    origin = {"config": experiment.hash(), "dataset": train_split.fingerprint}
    training = Training(accelerator, model, optimizer, Tally(len(names)), origin)
    if training.take_up(run):
        epochs = len(training.rows)
        log.info("resuming: %d epochs, %d steps done", epochs, training.step)
        if is_main and epochs and training.step == plan.steps_until(epochs):
            # The last start may have been killed after it saved and before it published.
            publish_epoch(run, experiment, training.rows, training.module.state_dict())
    elif experiment.continue_from:
        source = find_source(run, experiment, experiment.continue_from)
        begin_with(source, experiment, training.module, run, is_main=is_main)

    events = EventLog(run.events, enabled=is_main)
    last_step = plan.steps_until(settings.epochs)
    with (
        Watchdog(limit_from_environment()) as watchdog,
        SampleRecord(run, train_split, plan.process, enabled=settings.record_samples) as record,
        progress_of(training, plan, last_step, events) as progress,
        closing(
            load(
                train_split,
                plan.requests(training.step, last_step),
                workers=experiment.data.workers,
                seed=experiment.seed,
                horizontal_flip=settings.horizontal_flip,
                pin_memory=accelerator.device.type == "cuda",
            )
        ) as batches,
    ):
        for epoch in range(len(training.rows) + 1, settings.epochs + 1):
            clock = EpochClock(batches)
            while training.step < plan.steps_until(epoch):
                if stop.agreed():
                    training.save(run)
                    raise Stopped(f"saved at step {training.step}, in epoch {epoch}")
                train_step(training, plan, loss_of, clock, record)
                progress.advance(plan.batch_size, epoch=epoch)
                watchdog.pet()
            seen = training.tally.gather(accelerator)
            speed = clock.stop()
            check_finite(seen["loss"], epoch, experiment)
            validation = evaluate(
                training.module,
                loss_of,
                valid_split,
                accelerator,
                batch_size=experiment.evaluation_batch_size,
                workers=experiment.data.workers,
                after_batch=watchdog.pet,
            )
            train_scores = metrics.scores(seen["counts"].numpy(), seen["loss"].numpy(), names)
            val_scores = metrics.scores(validation.counts, validation.loss, names)
            training.rows.append(metrics_row(epoch, train_scores, val_scores))
            training.tally = Tally(len(names))
            training.save(run)
            if is_main:
                publish_epoch(run, experiment, training.rows, training.module.state_dict())
            announce_epoch(experiment, events, training.rows[-1], speed)


def train_step(
    training: Training, plan: StepPlan, loss_of: Loss, clock: EpochClock, record: SampleRecord
) -> None:
    """One optimiser step on one global batch, of which this process does its micro-batches.

    Nothing here waits for the device. Dropout and the like draw from (seed, step, process) alone.
    """
    accelerator, model, step = training.accelerator, training.model.train(), training.step
    torch.manual_seed((plan.seed << 31) + (step << 10) + plan.process)
    for micro in plan.micro_batches:
        batch = clock.next_batch()
        record.write(step, batch)
        images = batch.images.to(accelerator.device, non_blocking=True)
        target = batch.masks.to(accelerator.device, non_blocking=True)
        is_last = micro == plan.micro_batches[-1]
        with nullcontext() if is_last else accelerator.no_sync(model):
            logits = model(normalise(images))
            loss = loss_of(logits, target)
            # Gradients are averaged over processes; this weight makes that the batch's mean.
            accelerator.backward(loss.sum() * plan.processes / plan.batch_size)
        positions = torch.arange(micro.start, micro.stop) + step * plan.batch_size
        training.tally.add(positions, logits.detach().argmax(dim=1), target, loss)
    training.optimizer.step()
    training.optimizer.zero_grad()
    training.step += 1
    clock.count(plan.batch_size)


def progress_of(training: Training, plan: StepPlan, last_step: int, events: EventLog) -> Progress:
    """Progress in images, over all epochs and processes."""
    return Progress(
        "train",
        last_step * plan.batch_size,
        "images",
        done=training.step * plan.batch_size,
        events=events,
        enabled=training.accelerator.is_main_process,
    )


def is_softmax_asked(experiment: Experiment) -> bool:
    """Whether the study's softmax before cross-entropy is to be reproduced."""
    return isinstance(experiment.model, SegNet) and experiment.model.softmax_output


def check_finite(losses: Tensor, epoch: int, experiment: Experiment) -> None:
    """End training when a loss of the epoch was not finite, before anything of it is kept.

    Raises:
        CardamageError: the weights are worthless from some step on.
    """
    if not bool(torch.isfinite(losses).all()):
        raise CardamageError(
            f"the training loss became {losses.mean().item()} in epoch {epoch}, so nothing of that "
            f"epoch is kept; lower optim.lr, which is {experiment.optim.lr}, and start a new run"
        )


def check_batch_norm(experiment: Experiment, plan: StepPlan) -> None:
    """Refuse micro-batches of one image where BatchNorm would see one value per channel.

    Raises:
        ConfigError: DeepLabV3 pools each image to one pixel, whose variance is not defined.
    """
    pools = isinstance(experiment.model, TorchvisionModel) and (
        experiment.model.name == "deeplabv3_resnet50"
    )
    if pools and plan.smallest_micro_batch < 2:
        raise ConfigError(
            f"deeplabv3_resnet50 cannot train on one image at a time, which train.batch_size "
            f"{plan.batch_size}, train.micro_batch_size {plan.micro_batch_size} and "
            f"{plan.processes} processes come to; give every process 2 images or more"
        )


if __name__ == "__main__":
    run_program(main)
