"""The training loop.

Read :func:`train` from top to bottom: build, resume where the last start ended, then for every
epoch the steps, the validation, and what is written.
"""

from collections.abc import Sequence
from contextlib import closing, nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from cardamage.config.augmentation import Augmentation
from cardamage.config.experiment import Experiment
from cardamage.config.trackers import require_installed
from cardamage.data.shards.loader import load
from cardamage.data.shards.order import class_weights
from cardamage.data.shards.reader import packed_splits
from cardamage.evaluation import metrics
from cardamage.evaluation.confusion import Tally
from cardamage.evaluation.evaluate import evaluate
from cardamage.models.inputs import normalise
from cardamage.runs.directory import open_run
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import record_attempt
from cardamage.runs.rung import last_epoch
from cardamage.runs.stages import running
from cardamage.runs.tables import read_table
from cardamage.system.console import EventLog, Progress, log, start_logging
from cardamage.training.augment import augment
from cardamage.training.distributed import check_placement, resources, start_accelerator
from cardamage.training.failures import (
    explain_compiler,
    explain_out_of_memory,
    propagate_first_failure,
)
from cardamage.training.finite import FiniteCheck
from cardamage.training.losses import Loss, build_loss
from cardamage.training.meter import Meter
from cardamage.training.numerics import (
    deterministic_algorithms,
)
from cardamage.training.outputs import (
    EpochClock,
    announce_epoch,
    epoch_seconds_before,
    keep_validation,
    metrics_row,
)
from cardamage.training.patience import cool_down
from cardamage.training.saving import Saver
from cardamage.training.schedule import Schedule
from cardamage.training.start import build, resume_or_start, with_fitting_micro_batch
from cardamage.training.state import Training, remove_old_states
from cardamage.training.steps import StepPlan
from cardamage.training.stopping import StopRequests
from cardamage.training.trackers import Trackers
from cardamage.training.watchdog import Watchdog, limit_from_environment


def train_stage(experiment: Experiment, run: RunPaths) -> None:
    """The stage ``train`` of a run, on all processes of this launch.

    Raises:
        Stopped: a signal asked for it; the state is saved.
        UserError: the shards, the config or the state on disk cannot serve.
    """
    require_installed(experiment.track)
    accelerator = start_accelerator(experiment.train.mixed_precision)
    start_logging(main_process=accelerator.is_main_process)
    check_placement(accelerator)
    with (
        StopRequests(accelerator) as requests,
        running(run, "train", main_process=accelerator.is_main_process) as output,
        propagate_first_failure(accelerator),
        deterministic_algorithms(enabled=experiment.train.deterministic),
        explain_compiler(),
        explain_out_of_memory(what_to_lower(experiment)),
    ):
        if accelerator.is_main_process:  # and not before no other process works at the run
            open_run(run, experiment)
        accelerator.wait_for_everyone()
        if not is_finished(run, experiment, accelerator):
            if accelerator.is_main_process:
                record_attempt(run, "train", **resources(accelerator))
            with Meter(run, "train", accelerator):
                train(experiment, run, accelerator, requests)
        accelerator.wait_for_everyone()
        output.update(epochs=experiment.train.epochs, precision=accelerator.mixed_precision)
        if accelerator.is_main_process:
            epochs, ending = len(rows := read_table(run.metrics)), cool_down(rows, experiment)
            if epochs < (ending.last if ending else experiment.train.epochs):
                log.info("epoch %d is the rung where this run stops for now", epochs)
                output["epochs"] = epochs
            else:
                if ending:
                    log.info("%s", ending.why)
                    output["ended_early"] = ending.why
                if ending or experiment.schedule.spans_epochs:  # it can't be trained any further
                    remove_old_states(run, [])
    accelerator.end_training()


def is_finished(run: RunPaths, experiment: Experiment, accelerator: Accelerator) -> bool:
    """Whether a run is trained to its end and its states were removed; all take part."""
    found = False
    if accelerator.is_main_process and run.metrics.is_file() and not run.states():
        rows = read_table(run.metrics)
        ending = cool_down(rows, experiment)
        found = len(rows) >= (ending.last if ending else experiment.train.epochs)
    return bool(broadcast_object_list([found])[0])


def train(
    experiment: Experiment, run: RunPaths, accelerator: Accelerator, requests: StopRequests
) -> None:
    """Train up to the experiment's last epoch, or the rung before, from wherever the run stands.

    Raises:
        Stopped: a signal asked for it; the state is saved.
        UserError: the shards, the config or the state on disk cannot serve.
    """
    settings, names = experiment.train, experiment.data.class_names
    train_split, valid_split = packed_splits(run, experiment, "train", "valid")
    plan = StepPlan(
        seed=experiment.seed,
        samples=len(train_split),
        batch_size=settings.batch_size,
        micro_batch_size=None if settings.micro_batch_size == "auto" else settings.micro_batch_size,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        weights=class_weights(train_split.shown())
        if experiment.data.balance == "classes"
        else None,
    )
    training = build(experiment, plan, accelerator, train_split.fingerprint)
    loss_of = build_loss(experiment.losses, train_split.manifest.splits["train"].pixels)
    schedule = Schedule(experiment.schedule, training.optimizer, plan, settings.epochs)
    resumed_from = resume_or_start(training, schedule, plan, run, experiment)
    earlier_s = epoch_seconds_before(run, training.step) if resumed_from else 0.0
    if settings.micro_batch_size == "auto":
        plan = with_fitting_micro_batch(training, plan, loss_of, experiment)

    is_main, last = accelerator.is_main_process, last_epoch(run, experiment)
    last_step = max(training.step, plan.steps_until(last))
    events = EventLog(run.events, enabled=is_main)
    finite = FiniteCheck(run, experiment, plan, train_split)
    batches = load(
        train_split,
        plan.requests(training.step, last_step),
        workers=experiment.data.workers,
        pin_memory=accelerator.device.type == "cuda",
    )
    progress = Progress(
        "train",
        last_step * plan.batch_size,
        "images",
        done=training.step * plan.batch_size,
        events=events,
        enabled=is_main,
    )
    saver = Saver(
        run=run,
        experiment=experiment,
        training=training,
        finite=finite,
        requests=requests,
        resumed_from=resumed_from,
    )
    with (
        Watchdog(limit_from_environment()) as watchdog,
        Trackers(experiment, run, training.rows, enabled=is_main) as trackers,
        progress,
        saver,
        closing(batches),
    ):

        def between_batches() -> None:
            watchdog.pet()
            saver.heed()

        for epoch in range(len(training.rows) + 1, last + 1):
            if ending := cool_down(training.rows, experiment):
                if epoch > ending.last:
                    break
                schedule.cool_down(*map(plan.steps_until, (ending.after, ending.last)))
            saver.clock = clock = EpochClock(batches, earlier_s)
            earlier_s = 0.0
            while training.step < plan.steps_until(epoch):
                saver.heed()
                schedule.set_rates(training.step)
                train_step(
                    training,
                    plan,
                    loss_of,
                    clock,
                    clip_norm=experiment.optim.clip_norm,
                    augmentations=experiment.augment,
                )
                progress.advance(plan.batch_size, epoch=epoch)
                watchdog.pet()
            seen = training.tally.gather(accelerator)
            finite.losses(seen)
            speed = clock.stop()
            validation = evaluate(
                training.outcome,
                loss_of,
                valid_split,
                accelerator,
                tile=experiment.tile,
                batch_size=experiment.evaluation_batch_size,
                workers=experiment.data.workers,
                after_batch=between_batches,
            )
            if is_main:
                keep_validation(run, epoch, validation, valid_split)
            train_scores = metrics.scores(seen["counts"].numpy(), seen["loss"].numpy(), names)
            val_scores = metrics.scores(validation.counts, validation.loss, names)
            rate = schedule.rate(training.step - 1)
            training.rows.append(metrics_row(epoch, train_scores, val_scores, rate))
            training.tally = Tally(len(names))
            saver.save(epoch_ended=True)
            announce_epoch(experiment, events, training.rows[-1], speed)
            trackers.log(training.rows[-1:])


def train_step(
    training: Training,
    plan: StepPlan,
    loss_of: Loss,
    clock: EpochClock,
    *,
    clip_norm: float | None = None,
    augmentations: Sequence[Augmentation] = (),
) -> None:
    """One optimiser step on one global batch, of which this process does its micro-batches.

    Nothing here waits for the device, but for ``jpeg`` among the augmentations. Dropout and the
    like draw from (seed, step, process) alone.
    """
    accelerator, model, step = training.accelerator, training.model.train(), training.step
    torch.manual_seed((plan.seed << 31) + (step << 10) + plan.process)
    for micro in plan.micro_batches:
        batch = clock.next_batch()
        images = batch.images.to(accelerator.device, non_blocking=True)
        target = batch.masks.to(accelerator.device, non_blocking=True)
        if augmentations and batch.epochs is not None:
            keys = {"epochs": batch.epochs, "samples": batch.samples}
            images, target = augment(images, target, augmentations, seed=plan.seed, **keys)
        is_last = micro == plan.micro_batches[-1]
        with nullcontext() if is_last else accelerator.no_sync(model):
            logits = model(normalise(images))
            loss = loss_of(logits, target)
            # Gradients are averaged over processes; this weight makes that the batch's mean.
            accelerator.backward(loss.sum() * plan.processes / plan.batch_size)
        positions = torch.arange(micro.start, micro.stop) + step * plan.batch_size
        training.tally.add(positions, logits.detach().argmax(dim=1), target, loss)
    if clip_norm is not None:
        accelerator.clip_grad_norm_(model.parameters(), clip_norm)
    training.optimizer.step()
    training.optimizer.zero_grad()
    if training.averaged:
        training.averaged.update(training.module, step)
    training.step += 1
    clock.count(plan.batch_size)


def what_to_lower(experiment: Experiment) -> str:
    """The remedy for training that runs out of memory."""
    micro = experiment.train.micro_batch_size or experiment.train.batch_size  # a number or auto
    height, width = experiment.data.image_size
    return (
        f"lower train.micro_batch_size, which is {micro} (train.batch_size may stay), "
        f"test.batch_size, which is {experiment.evaluation_batch_size}, data.workers, which is "
        f"{experiment.data.workers}, or data.image_size, which is [{height}, {width}], and start "
        f"under another name=..."
    )
