"""What a training run leaves behind: checkpoints, ``metrics.csv``, events, samples consumed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Self

from torch import Tensor

from cardamage.config import Experiment
from cardamage.console import EventLog, log
from cardamage.data.loader import Batch
from cardamage.data.shards import ShardReader
from cardamage.files import naming
from cardamage.metrics import HEADLINES
from cardamage.paths import RunPaths
from cardamage.tables import Row, write_table
from cardamage.training.checkpoint import CheckpointInfo, save_checkpoint
from cardamage.training.clock import Speed


def metrics_row(epoch: int, train: Mapping[str, float], val: Mapping[str, float]) -> Row:
    """One row of ``metrics.csv``: headline scores of both splits, the others of validation only."""
    row: dict[str, float | int | str] = {"epoch": epoch}
    for name in HEADLINES:
        row[f"train_{name}"], row[f"val_{name}"] = train[name], val[name]
    row.update({f"val_{name}": value for name, value in val.items() if name not in HEADLINES})
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
        )
        save_checkpoint(run.checkpoint(epoch), weights, info)
    write_table(run.metrics, rows)


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
        **shown,
    )


class SampleRecord:
    """Writes the keys of the samples each step of this process really consumed, when enabled.

    A line holds the ``step`` and the ``keys`` of one micro-batch, the ``first`` of which stands at
    that place in the global batch. Steps repeated after a kill are there again.
    """

    def __init__(self, run: RunPaths, reader: ShardReader, process: int, *, enabled: bool) -> None:
        self._path, self._keys, self._enabled = run.consumed_samples(process), reader.keys, enabled
        self._stream: IO[str] | None = None

    def __enter__(self) -> Self:
        if self._enabled:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            drop_torn_line(self._path)
            self._stream = self._path.open("a", encoding="utf-8")
        return self

    def write(self, step: int, first: int, batch: Batch) -> None:
        """Append one micro-batch, whose first image is number ``first`` of the global batch."""
        if self._stream:
            keys = self._keys[batch.samples].tolist()
            line = json.dumps({"step": step, "first": first, "keys": keys})
            with naming(self._path):
                self._stream.write(line + "\n")
                self._stream.flush()

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        if self._stream:
            # What could not be written is tried once more, and would hide why training ended.
            with suppress(OSError) if failed else naming(self._path):
                self._stream.close()


def drop_torn_line(path: Path) -> None:
    """Cut off what a killed process began to write behind the last whole line, if it did."""
    if path.exists():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
