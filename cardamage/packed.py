"""The packed dataset of a run: found by the pack stage's marker, and checked against the config."""

from __future__ import annotations

from pathlib import Path

from cardamage.config import Experiment
from cardamage.data.shards import ShardReader
from cardamage.errors import DataError
from cardamage.paths import RunPaths
from cardamage.stages import require


def packed_splits(run: RunPaths, experiment: Experiment, *splits: str) -> list[ShardReader]:
    """A reader for each split, in the order asked for.

    Raises:
        RunError: the run has not been packed.
        DataError: the shards are missing, damaged, or of other classes or another image size.
    """
    packed = require(run, "pack", f"`python jobs/pack.py {run.root}`")
    folder = Path(packed.output["shards"])
    readers = [ShardReader(folder, split) for split in splits]
    wanted = (experiment.data.class_names, experiment.data.image_size)
    for reader in readers:
        found = (tuple(reader.class_names), tuple(reader.image_size))
        if found != wanted:
            raise DataError(
                f"{folder} was packed for classes and size {found}, but the config asks for "
                f"{wanted}; run `python jobs/pack.py {run.root}`"
            )
    return readers
