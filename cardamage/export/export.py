"""A run's network in another format, checked before it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cardamage.data.shards.reader import ShardReader, packed_splits
from cardamage.errors import CardamageError, ConfigError, UserError
from cardamage.export.check import Batch, Comparison, batches_of, compare
from cardamage.export.formats import SUFFIXES, Format, runner, write
from cardamage.export.graph import Exported
from cardamage.predict.chosen import Chosen
from cardamage.predict.onnx_model import OnnxModel
from cardamage.runs.directory import as_tested
from cardamage.system.console import log
from cardamage.system.files import write_bytes
from cardamage.training.checkpoint import CheckpointInfo

LARGEST_DIFFERENCE = {False: 1e-3, True: 0.05}
"""Between two probabilities, in float32 and with half precision: beyond it nothing is written."""


class Outcome(NamedTuple):
    """A file that was written."""

    path: Path
    multiple_of: int
    """What the sides of images are multiples of; 0 where their size is fixed."""
    split: str
    """The split it was checked on; empty where none is here, so that noise had to do."""
    comparison: Comparison


def export(
    chosen: Chosen, form: Format, *, out: Path | None, half: bool, most: int | None
) -> Outcome:
    """Write a model in a format, once it gave the same answers on test images.

    Args:
        chosen: a run's checkpoint or a checkpoint file, loaded on the CPU.
        out: the file; None for one in the run directory, or beside the checkpoint.
        half: compute in float16.
        most: how many test images it is checked on; None for all.

    Raises:
        ConfigError: there is nothing to export, or an extra is missing.
        CardamageError: the format cannot express the network, or answers otherwise.
    """
    model = chosen.model
    if isinstance(model, OnnxModel):
        raise ConfigError(f"{chosen.file} is exported already; name a run or a checkpoint")
    path = out or _default(chosen, form)
    content, multiple = write(Exported(model, half=half), model.info, form)
    split, batches = _images(chosen, most)
    found = compare(Exported(model), runner(content, form), batches, model.class_names)
    if not found.difference <= LARGEST_DIFFERENCE[half]:
        raise CardamageError(
            f"--to {form} gives other probabilities than the network, by up to "
            f"{found.difference:.3g}; nothing is written; try another format"
            + (", or leave --half out" if half else "")
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return Outcome(path, multiple, split, found)


def _default(chosen: Chosen, form: Format) -> Path:
    name = chosen.file.with_suffix(SUFFIXES[form]).name
    return (chosen.run.export if chosen.run else chosen.file.parent) / name


def _images(chosen: Chosen, most: int | None) -> tuple[str, Iterator[Batch]]:
    """Images to compare on, and the split they are of."""
    info = chosen.model.info
    if reader := _reader(chosen):
        return reader.split, batches_of(reader, info.tile, most=most)
    log.info("the packed test images are not here, so the check is on noise")
    return "", _noise(info)


def _reader(chosen: Chosen) -> ShardReader | None:
    if chosen.run is None or chosen.experiment is None:
        return None
    experiment = as_tested(chosen.run, chosen.experiment)
    try:
        (reader,) = packed_splits(chosen.run, experiment, experiment.test.split)
    except UserError as error:
        log.info("%s", error)
        return None
    return reader if len(reader) else None


def _noise(info: CheckpointInfo) -> Iterator[Batch]:
    height, width = info.tile or info.image_size
    for seed in range(2):
        generator = np.random.default_rng(seed)
        yield generator.integers(0, 256, (2, height, width, 3), dtype=np.uint8), None
