"""Test every epoch's checkpoint that has no result yet."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from PIL import Image

from cardamage.config.experiment import Experiment
from cardamage.config.experiment import Test as TestSettings
from cardamage.data.drawing import overlay
from cardamage.data.shards.reader import ShardReader, packed_splits
from cardamage.errors import ConfigError, RunError
from cardamage.evaluation import metrics
from cardamage.evaluation.evaluate import evaluate
from cardamage.evaluation.results import TestResult, read_result, write_result
from cardamage.models import build_model
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.directory import as_tested, open_run
from cardamage.runs.paths import RunPaths
from cardamage.runs.provenance import record_attempt
from cardamage.runs.stages import require, running
from cardamage.runs.tables import Row, read_table, write_table
from cardamage.system.console import EventLog, Progress, log, start_logging
from cardamage.system.files import sha256_of
from cardamage.training.checkpoint import check_belongs, load_checkpoint, load_weights
from cardamage.training.distributed import check_placement, resources, start_accelerator
from cardamage.training.failures import explain_out_of_memory, propagate_first_failure
from cardamage.training.losses import build_loss
from cardamage.training.meter import Meter
from cardamage.training.numerics import deterministic_algorithms, quicken_depthwise
from cardamage.training.trackers import Trackers
from cardamage.training.watchdog import Watchdog, limit_from_environment

_TRACKED_PICTURES = 6


@dataclass(frozen=True)
class Part:
    """A part of the checkpoints: every one of ``parts``, beginning with ``number``, from 0."""

    number: int = 0
    parts: int = 1

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part written as ``I/K``.

        Raises:
            ConfigError: there is no such part.
        """
        number, _, parts = text.partition("/")
        if not (number.isdecimal() and parts.isdecimal() and int(number) < int(parts)):
            raise ConfigError(f'--part "{text}": give I/K with I from 0 to K-1, as in 0/4')
        return cls(int(number), int(parts))

    @property
    def is_all(self) -> bool:
        """Whether this is the whole stage."""
        return self.parts == 1

    @property
    def stage(self) -> str:
        """The name of its marker."""
        return "test" if self.is_all else f"test.{self.number}"


def test_stage(experiment: Experiment, run: RunPaths, part: Part) -> None:
    """The stage ``test`` of a run, or a part of it, on all processes of this launch.

    Raises:
        UserError: training is not done, or the shards or a checkpoint cannot serve.
    """
    accelerator = start_accelerator(experiment.train.mixed_precision)
    start_logging(main_process=accelerator.is_main_process)
    check_placement(accelerator)
    asked, experiment = experiment, as_tested(run, experiment)
    split = experiment.test.split
    with (
        running(run, part.stage, main_process=accelerator.is_main_process) as output,
        propagate_first_failure(accelerator),
        deterministic_algorithms(enabled=experiment.train.deterministic),
        explain_out_of_memory(
            f"lower test.batch_size, which is {experiment.evaluation_batch_size}; the scores "
            f"do not depend on it"
        ),
    ):
        if accelerator.is_main_process:
            open_run(run, asked)
            if split != asked.test.split:
                log.warning("the dataset has no split %s: testing on %s", asked.test.split, split)
            run.test_table(split).parent.mkdir(exist_ok=True)
        accelerator.wait_for_everyone()
        require(run, "train", f"`cardamage train {run.root}`")
        checkpoints = dict(list(run.finished_checkpoints().items())[part.number :: part.parts])
        test(experiment, run, accelerator, checkpoints, part)
        output.update(split=split, checkpoints=len(checkpoints), config=sha256_of(run.config))
        if accelerator.is_main_process and part.is_all:
            rows = [table_row(run, split, epoch) for epoch in checkpoints]
            write_table(run.test_table(split), rows)
            tell_trackers(run, experiment, rows)
            print(run.test_table(split))  # noqa: T201 - what the stage says it made
    accelerator.end_training()


def test(
    experiment: Experiment,
    run: RunPaths,
    accelerator: Accelerator,
    checkpoints: dict[int, Path],
    part: Part,
) -> None:
    """Test those checkpoints that have no result yet.

    The first process chooses them: another's view of a shared disk may be older, and two processes
    that work on different checkpoints would mix their results without a word.

    Raises:
        UserError: the shards or a checkpoint cannot serve.
    """
    split, is_main = experiment.test.split, accelerator.is_main_process
    (reader,) = packed_splits(run, experiment, split)
    map_samples = spread(len(reader), experiment.test.overlays)
    todo: list[int] = []
    if is_main:
        todo = [
            epoch
            for epoch in checkpoints
            if not is_tested(run, reader, experiment.test, epoch, maps=len(map_samples))
        ]
        if todo:
            record_attempt(run, part.stage, **resources(accelerator))
    (todo,) = broadcast_object_list([todo])
    log.info(
        "%d of %d checkpoints are to be tested on %s, %d images",
        len(todo),
        len(checkpoints),
        split,
        len(reader),
    )
    loss_of = build_loss(experiment.losses, reader.manifest.splits["train"].pixels)
    network = build_model(experiment.model, len(reader.class_names))
    model = accelerator.prepare_model(quicken_depthwise(network, accelerator), evaluation_mode=True)
    with (
        Watchdog(limit_from_environment()) as watchdog,
        Meter(run, part.stage, accelerator) if todo else nullcontext(),
        Progress(
            "test",
            len(todo) * len(reader),
            "images",
            # Parts run at once, and not one of them knows how far the stage is.
            events=EventLog(run.events, enabled=is_main and part.is_all),
            enabled=is_main,
        ) as progress,
    ):
        for epoch in todo:
            path = run.checkpoint(epoch)
            checkpoint = load_checkpoint(path)
            check_belongs(checkpoint, experiment, path)
            load_weights(model, checkpoint, path)
            outcome = evaluate(
                model,
                loss_of,
                reader,
                accelerator,
                flip=experiment.test.flip,
                tile=experiment.tile,
                batch_size=experiment.evaluation_batch_size,
                workers=experiment.data.workers,
                map_samples=map_samples,
                damages=True,
                after_batch=watchdog.pet,
            )
            progress.advance(len(reader), epoch=epoch)
            result = TestResult(
                epoch=epoch,
                weights_sha256=checkpoint.weights_sha256,
                fingerprint=reader.fingerprint,
                class_names=tuple(reader.class_names),
                keys=reader.keys,
                counts=outcome.counts,
                loss=outcome.loss,
                map_samples=np.array(map_samples, dtype=np.int64),
                maps=outcome.maps,
                flip=experiment.test.flip,
                damages=outcome.damages,
            )
            if is_main:
                write_result(run.test_counts(split, epoch), result)


def is_tested(
    run: RunPaths, reader: ShardReader, settings: TestSettings, epoch: int, *, maps: int
) -> bool:
    """Whether a result of these very weights on these very shards is there, with so many maps."""
    try:
        result = read_result(run.test_counts(settings.split, epoch))
    except RunError:  # missing or damaged: both are mended by testing
        return False
    if len(result.map_samples) < maps or result.flip != settings.flip:
        return False
    weights = sha256_of(run.checkpoint(epoch))
    return (result.weights_sha256, result.fingerprint) == (weights, reader.fingerprint)


def tell_trackers(run: RunPaths, experiment: Experiment, rows: Sequence[Row]) -> None:
    """Tell the run's trackers the scores of every tested checkpoint, and pictures of the best."""
    if not experiment.track:
        return
    trained, split = read_table(run.metrics), experiment.test.split
    with Trackers(experiment, run, trained, enabled=True) as trackers:
        trackers.log(rows, split)
        best = best_epoch(trained, experiment.test.select_by)
        if best is not None and run.test_counts(split, best).is_file():
            (reader,) = packed_splits(run, experiment, split)
            result = read_result(run.test_counts(split, best))
            trackers.pictures(sample_pictures(reader, result), best)


def sample_pictures(reader: ShardReader, result: TestResult) -> dict[str, NDArray[np.uint8]]:
    """Some test images by name, RGB uint8 (H, 3W, 3): photo, truth and prediction in a row."""
    pictures = {}
    for chosen in spread(len(result.maps), _TRACKED_PICTURES):
        sample = reader.read(int(result.map_samples[chosen]))
        predicted = np.asarray(Image.open(io.BytesIO(result.maps[chosen])))
        parts = (sample.image, overlay(sample.image, sample.mask), overlay(sample.image, predicted))
        pictures[f"samples/{sample.key}"] = np.concatenate(parts, axis=1)
    return pictures


def spread(samples: int, wanted: int) -> list[int]:
    """Up to ``wanted`` sample numbers, evenly spread over a split."""
    chosen = np.linspace(0, samples - 1, min(wanted, samples)).round().astype(int)
    return sorted({int(number) for number in chosen})


def table_row(run: RunPaths, split: str, epoch: int) -> Row:
    """A checkpoint's row in ``test/<split>.csv``: headline columns first."""
    result = read_result(run.test_counts(split, epoch))
    return {
        "epoch": epoch,
        "checkpoint": run.checkpoint(epoch).name,
        **metrics.scores(result.counts, result.loss, result.class_names),
        "images": len(result.loss),
        "weights_sha256": result.weights_sha256,
    }
