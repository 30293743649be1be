"""What a training run leaves behind: checkpoints, ``metrics.csv``, events, its speed."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from cardamage.config.experiment import Experiment
from cardamage.data.shards.loader import Batch
from cardamage.data.shards.reader import ShardReader
from cardamage.evaluation.evaluate import Evaluation
from cardamage.evaluation.metrics import HEADLINES
from cardamage.evaluation.results import TestResult, write_result
from cardamage.runs.checkpoints import kept_epochs
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import Row, write_table
from cardamage.system.console import EventLog, log
from cardamage.training.checkpoint import CheckpointInfo, save_checkpoint


def metrics_row(epoch: int, train: Mapping[str, float], val: Mapping[str, float], lr: float) -> Row:
    """One row of ``metrics.csv``: headline scores of both splits, the others of validation only.

    ``lr`` is the learning rate of the epoch's last step.
    """
    row: dict[str, float | int | str] = {"epoch": epoch}
    for name in HEADLINES:
        row[f"train_{name}"], row[f"val_{name}"] = train[name], val[name]
    row.update({f"val_{name}": value for name, value in val.items() if name not in HEADLINES})
    row["lr"] = lr
    return row


def keep_validation(run: RunPaths, epoch: int, found: Evaluation, reader: ShardReader) -> None:
    """Keep what each validation image scored, so that epochs can be told apart by images.

    Done before the state of the epoch's end is saved: a start that was killed in between validates
    again, and writes the same.
    """
    result = TestResult(
        epoch=epoch,
        weights_sha256="",
        fingerprint=reader.fingerprint,
        class_names=tuple(reader.class_names),
        keys=reader.keys,
        counts=found.counts,
        loss=found.loss,
        map_samples=np.zeros(0, np.int64),
        maps=(),
    )
    write_result(run.validation_counts(epoch), result)


def publish_epoch(
    run: RunPaths, experiment: Experiment, rows: Sequence[Row], weights: Mapping[str, Tensor]
) -> None:
    """Publish the last epoch's checkpoint, unless it is there, and the rows of all epochs."""
    epoch = len(rows)
    if not run.checkpoint(epoch).exists():
        info = CheckpointInfo(
            epoch=epoch,
            model=experiment.model.model_dump(mode="json"),
            class_names=experiment.data.class_names,
            image_size=experiment.data.image_size,
            config_hash=experiment.hash(),
            tile=experiment.tile,
        )
        save_checkpoint(run.checkpoint(epoch), weights, info)
    write_table(run.metrics, rows)
    kept = kept_epochs(experiment, rows)
    for other, path in run.finished_checkpoints().items():
        if other not in kept:
            path.unlink(missing_ok=True)


def announce_epoch(experiment: Experiment, events: EventLog, row: Row, speed: Speed) -> None:
    """Log a finished epoch, and append it to the events."""
    chosen = f"val_{experiment.test.select_by}"
    shown = {key: row[key] for key in dict.fromkeys(("train_loss", "val_loss", chosen))}
    log.info(
        "epoch %s/%d: %s, %.1f images/s, %.1f %% waiting for data",
        row["epoch"],
        experiment.train.epochs,
        ", ".join(f"{key} {value:.4f}" for key, value in shown.items()),
        speed.images_per_second,
        100 * speed.data_wait_share,
    )
    events.write(
        "epoch",
        stage="train",
        epoch=row["epoch"],
        epochs=experiment.train.epochs,
        **{key: round(value, 6) for key, value in asdict(speed).items()},
        peak_memory_bytes=peak_memory(),
        **shown,
    )


def epoch_seconds_before(run: RunPaths, step: int) -> float:
    """Seconds that the unfinished epoch had taken when ``step`` was saved; 0 where none tells."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        told = json.loads(run.progress.read_text(encoding="utf-8"))
        if told["step"] == step:
            return float(told["epoch_seconds"])
    return 0.0


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes: of its GPU, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in kB


@dataclass(frozen=True)
class Speed:
    """The training part of one epoch, without validation.

    Attributes:
        seconds: with those of earlier starts that the epoch was interrupted in.
        images_per_second: over all processes together.
        data_wait_share: share of the time this process waited for its next batch, 0 to 1.
    """

    seconds: float
    images_per_second: float
    data_wait_share: float


class EpochClock:
    """Times one epoch's steps from its creation to :meth:`stop`.

    ``earlier_s`` are the seconds that the epoch had taken when it was saved.
    """

    def __init__(self, batches: Iterator[Batch], earlier_s: float = 0.0) -> None:
        self._batches, self._earlier_s = batches, earlier_s
        self._waited_s = 0.0
        self._images = 0
        self._started, self._stopped = time.perf_counter(), 0.0

    def next_batch(self) -> Batch:
        """Draw the next batch; the time it takes counts as waiting for data."""
        asked = time.perf_counter()
        batch = next(self._batches)
        self._waited_s += time.perf_counter() - asked
        return batch

    def count(self, images: int) -> None:
        """Count the images of a step, over all processes."""
        self._images += images

    @property
    def seconds(self) -> float:
        """How long the epoch took until it was stopped, or has taken so far."""
        return self._earlier_s + (self._stopped or time.perf_counter()) - self._started

    def stop(self) -> Speed:
        """The speed so far; call it once the device has finished."""
        self._stopped = time.perf_counter()
        seconds = self._stopped - self._started
        return Speed(self.seconds, self._images / seconds, self._waited_s / seconds)
