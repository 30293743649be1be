"""What a training run leaves behind: checkpoints, ``metrics.csv``, events, its speed."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from cardamage.config.experiment import Experiment, KeepEvery
from cardamage.data.shards.loader import Batch
from cardamage.evaluation.metrics import HEADLINES
from cardamage.runs.checkpoints import best_epoch
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


def kept_epochs(experiment: Experiment, rows: Sequence[Row]) -> set[int]:
    """The epochs whose checkpoints ``train.keep`` lets stay, of those that ``rows`` tell of."""
    keep, epochs = experiment.train.keep, range(1, len(rows) + 1)
    if keep == "all":
        return set(epochs)
    best = best_epoch(rows, experiment.test.select_by) or len(rows)
    every = keep.every if isinstance(keep, KeepEvery) else len(rows)
    return {epoch for epoch in epochs if epoch % every == 0} | {best, len(rows)}


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


def peak_memory() -> int:
    """The most memory this process has held so far, in bytes: of its GPU, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in kB


@dataclass(frozen=True)
class Speed:
    """The training part of one epoch, without validation.

    Attributes:
        images_per_second: over all processes together.
        data_wait_share: share of the time this process waited for its next batch, 0 to 1.
    """

    seconds: float
    images_per_second: float
    data_wait_share: float


class EpochClock:
    """Times one epoch's steps from its creation to :meth:`stop`."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._waited_s = 0.0
        self._images = 0
        self._started = time.perf_counter()

    def next_batch(self) -> Batch:
        """Draw the next batch; the time it takes counts as waiting for data."""
        asked = time.perf_counter()
        batch = next(self._batches)
        self._waited_s += time.perf_counter() - asked
        return batch

    def count(self, images: int) -> None:
        """Count the images of a step, over all processes."""
        self._images += images

    def stop(self) -> Speed:
        """The speed so far; call it once the device has finished."""
        seconds = time.perf_counter() - self._started
        return Speed(seconds, self._images / seconds, self._waited_s / seconds)
