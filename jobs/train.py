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
from accelerate.utils import broadcast_object_list

from cardamage import metrics
from cardamage.command_line import experiment_parser
from cardamage.config import Experiment, SegNet
from cardamage.console import EventLog, Progress, log, start_logging
from cardamage.continuation import find_source
from cardamage.data.loader import load
from cardamage.distributed import check_placement, start_accelerator
from cardamage.errors import run_program
from cardamage.evaluate import evaluate, normalise
from cardamage.memory import naming_what_to_lower
from cardamage.models import build_model
from cardamage.packed import packed_splits
from cardamage.paths import RunPaths
from cardamage.peers import failing_alike
from cardamage.provenance import write_provenance
from cardamage.runs import open_run, resolve
from cardamage.stages import running
from cardamage.tally import Tally
from cardamage.training.batch_norm import check_batch_norm, synchronise_batch_norm
from cardamage.training.clock import EpochClock
from cardamage.training.continuation import begin_with
from cardamage.training.determinism import deterministic_algorithms
from cardamage.training.finite import FiniteCheck
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
from cardamage.training.saving import Saver
from cardamage.training.stopping import StopRequests
from cardamage.training.warm_up import settle_gradient_order
from cardamage.training.watchdog import Watchdog, limit_from_environment


def main() -> None:
    """Parse the command line and train."""
    arguments = experiment_parser(__doc__, example="optim.lr=3e-4").parse_intermixed_args()
    experiment, run = resolve(arguments.config, arguments.overrides, arguments.runs_dir)
    accelerator = start_accelerator(experiment.train.mixed_precision)
    start_logging(main_process=accelerator.is_main_process)
    check_placement(accelerator)
    with (
        StopRequests(accelerator) as requests,
        running(run, "train", main_process=accelerator.is_main_process) as output,
        failing_alike(accelerator),
        deterministic_algorithms(enabled=experiment.train.deterministic),
        naming_what_to_lower(what_to_lower(experiment)),
    ):
        if accelerator.is_main_process:  # and not before no other process works at the run
            open_run(run, experiment)
            write_provenance(run)
        accelerator.wait_for_everyone()
        train(experiment, run, accelerator, requests)
        output["epochs"] = experiment.train.epochs
    accelerator.end_training()


def train(
    experiment: Experiment, run: RunPaths, accelerator: Accelerator, requests: StopRequests
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
    origin = {"config": experiment.hash(), "dataset": train_split.fingerprint}
    if settings.sync_batchnorm:
        model = synchronise_batch_norm(model, plan, accelerator)
    optimizer = build_optimizer(experiment.optim, model.parameters())
    loss_of = build_loss(experiment.loss)
    model, optimizer = accelerator.prepare(model, optimizer)
    settle_gradient_order(model, accelerator, experiment.data.image_size)
    training = Training(accelerator, model, optimizer, Tally(len(names)), origin)
    if taken_up := training.take_up(run):
        epochs = len(training.rows)
        log.info("resuming: %d epochs, %d steps done", epochs, training.step)
        if is_main and epochs and training.step == plan.steps_until(epochs):
            # The last start may have been killed after it saved and before it published.
            publish_epoch(run, experiment, training.rows, training.module.state_dict())
    elif experiment.continue_from:
        # The first process chooses: another's view of a shared disk may be older.
        source = find_source(run, experiment, experiment.continue_from) if is_main else None
        (source,) = broadcast_object_list([source])
        begin_with(source, experiment, training.module, run, is_main=is_main)

    events = EventLog(run.events, enabled=is_main)
    last_step = plan.steps_until(settings.epochs)
    finite = FiniteCheck(run, experiment, plan, train_split)
    with (
        Watchdog(limit_from_environment()) as watchdog,
        SampleRecord(run, train_split, plan.process, enabled=settings.record_samples) as record,
        progress_of(training, plan, last_step, events) as progress,
        Saver(
            run=run,
            experiment=experiment,
            training=training,
            finite=finite,
            requests=requests,
            taken_up=taken_up,
        ) as saver,
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

        def between_batches() -> None:
            watchdog.pet()
            saver.heed()

        for epoch in range(len(training.rows) + 1, settings.epochs + 1):
            clock = EpochClock(batches)
            while training.step < plan.steps_until(epoch):
                saver.heed()
                train_step(training, plan, loss_of, clock, record)
                progress.advance(plan.batch_size, epoch=epoch)
                watchdog.pet()
            seen = training.tally.gather(accelerator)
            finite.losses(seen)
            speed = clock.stop()
            validation = evaluate(
                training.module,
                loss_of,
                valid_split,
                accelerator,
                batch_size=experiment.evaluation_batch_size,
                workers=experiment.data.workers,
                after_batch=between_batches,
            )
            train_scores = metrics.scores(seen["counts"].numpy(), seen["loss"].numpy(), names)
            val_scores = metrics.scores(validation.counts, validation.loss, names)
            training.rows.append(metrics_row(epoch, train_scores, val_scores))
            training.tally = Tally(len(names))
            saver.save(epoch_ended=True)
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
        record.write(step, micro.start, batch)
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


def what_to_lower(experiment: Experiment) -> str:
    """The remedy for training that runs out of memory."""
    micro = experiment.train.micro_batch_size or experiment.train.batch_size
    height, width = experiment.data.image_size
    return (
        f"lower train.micro_batch_size, which is {micro} (train.batch_size may stay), "
        f"test.batch_size, which is {experiment.evaluation_batch_size}, data.workers, which is "
        f"{experiment.data.workers}, or data.image_size, which is [{height}, {width}], and start "
        f"under another name=..."
    )


if __name__ == "__main__":
    run_program(main)
