"""Pack an experiment's dataset into shards: `python jobs/pack.py CONFIG`.

The same command goes on after an interruption and does nothing when the shards are complete. The
last line on standard output is the shard folder.
"""

from __future__ import annotations

from cardamage.signals import hold_usr2

if __name__ == "__main__":
    hold_usr2()  # before imports that take seconds

import os
from dataclasses import replace
from pathlib import Path

from cardamage.command_line import experiment_parser
from cardamage.config import SYNTHETIC, Experiment
from cardamage.console import EventLog, start_logging
from cardamage.data.pack import Packing, make, prepare
from cardamage.data.synthetic import synthetic_source
from cardamage.errors import ConfigError, run_program
from cardamage.paths import RunPaths
from cardamage.runs import open_run, resolve
from cardamage.stages import read_stage, running, write_stage


def main() -> None:
    """Parse the command line and pack."""
    parser = experiment_parser(__doc__, example="data.subset=0.4")
    parser.add_argument("--workers", type=int, help="processes; default: one on each core")
    parser.add_argument(
        "--check",
        action="store_true",
        help="read every shard that is there, and make those again that were damaged",
    )
    parser.add_argument(
        "--also",
        nargs="+",
        type=Path,
        default=[],
        metavar="RUN",
        help="run directories that pack alike, and get the same shards",
    )
    arguments = parser.parse_intermixed_args()
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers {arguments.workers}: at least one process has to pack")
    experiment, run = resolve(arguments.config, arguments.overrides, arguments.runs_dir)
    others = [packs_alike(experiment, folder) for folder in arguments.also]
    start_logging()
    try:
        with running(run, "pack") as output:
            open_run(run, experiment)
            packing = prepare_experiment(experiment, check=arguments.check)
            if not others:  # one run's mistake is not the others'; training refuses it as well
                check_batch_size(experiment, packing)
            folder = make(packing, events=EventLog(run.events), workers=arguments.workers)
            output["shards"] = str(folder.resolve())  # read from other folders too
    finally:
        record = read_stage(run, "pack")
        if record.pid == os.getpid():  # another process may have the run
            for other in others:
                attempts = read_stage(other, "pack").attempts + 1
                write_stage(other, replace(record, attempts=attempts))
    print(folder)


def packs_alike(experiment: Experiment, folder: Path) -> RunPaths:
    """The run of a directory whose shards are the same as an experiment's.

    Raises:
        ConfigError: it packs otherwise.
    """
    other, run = resolve(folder)
    mine, others = experiment.data.packing(), other.data.packing()
    if differing := [key for key in mine if mine[key] != others.get(key)]:
        key = differing[0]
        raise ConfigError(
            f"--also {folder}: packs otherwise (data.{key}: {others.get(key)}, not {mine[key]}); "
            f"pack it by itself"
        )
    return run


def prepare_experiment(experiment: Experiment, *, check: bool) -> Packing:
    """What an experiment's ``data`` section asks to be packed; draws a synthetic source first."""
    data = experiment.data
    shards_dir = Path(data.shards_dir)
    if data.source == SYNTHETIC:
        drawing = data.synthetic
        source = synthetic_source(
            shards_dir, images=drawing.images, size=drawing.size, seed=drawing.seed
        )
    else:
        source = Path(data.source)
    return prepare(
        source,
        classes=data.class_groups,
        drop=data.drop,
        image_size=data.image_size,
        subset=data.subset,
        subset_by=data.subset_by,
        image_format=data.image_format,
        shards_dir=shards_dir,
        check=check,
    )


def check_batch_size(experiment: Experiment, packing: Packing) -> None:
    """Refuse a batch that the training split cannot fill.

    Raises:
        ConfigError: it is larger than the split.
    """
    batch_size, samples = experiment.train.batch_size, packing.samples["train"]
    if batch_size > samples:
        raise ConfigError(
            f"train.batch_size is {batch_size}, but the train split has {samples} images; "
            f"set train.batch_size to {samples} or less, or use more of the dataset"
        )


if __name__ == "__main__":
    run_program(main)
