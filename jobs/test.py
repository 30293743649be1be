"""Test every epoch's checkpoint of a run: `python jobs/test.py CONFIG`; only what is missing."""

from __future__ import annotations

from cardamage.signals import hold_usr2

if __name__ == "__main__":
    hold_usr2()  # before imports that take seconds

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from cardamage import metrics
from cardamage.command_line import experiment_parser
from cardamage.config import Experiment
from cardamage.console import EventLog, Progress, log, start_logging
from cardamage.data.shards import ShardReader
from cardamage.distributed import check_placement, start_accelerator
from cardamage.errors import ConfigError, RunError, run_program
from cardamage.evaluate import evaluate
from cardamage.files import sha256_of
from cardamage.memory import naming_what_to_lower
from cardamage.models import build_model
from cardamage.packed import packed_splits
from cardamage.paths import RunPaths
from cardamage.peers import failing_alike
from cardamage.results import TestResult, read_result, write_result
from cardamage.runs import open_run, resolve
from cardamage.stages import require, running
from cardamage.tables import Row, write_table
from cardamage.training.checkpoint import check_belongs, load_checkpoint, load_weights
from cardamage.training.determinism import deterministic_algorithms
from cardamage.training.losses import build_loss
from cardamage.training.watchdog import Watchdog, limit_from_environment


def main() -> None:
    """Parse the command line and test."""
    parser = experiment_parser(__doc__, example="test.split=valid")
    parser.add_argument(
        "--part",
        type=Part.parse,
        default=Part(),
        metavar="I/K",
        help="of K parts of the checkpoints test only part I, from 0, and write no table; "
        "several machines may do so at once, and the same command without it ends the stage",
    )
    arguments = parser.parse_intermixed_args()
    experiment, run = resolve(arguments.config, arguments.overrides, arguments.runs_dir)
    accelerator = start_accelerator(experiment.train.mixed_precision)
    start_logging(main_process=accelerator.is_main_process)
    check_placement(accelerator)
    part, split = arguments.part, experiment.test.split
    with (
        running(run, part.stage, main_process=accelerator.is_main_process) as output,
        failing_alike(accelerator),
        deterministic_algorithms(enabled=experiment.train.deterministic),
        naming_what_to_lower(
            f"lower test.batch_size, which is {experiment.evaluation_batch_size}; the scores "
            f"do not depend on it"
        ),
    ):
        if accelerator.is_main_process:
            open_run(run, experiment)
            run.test_table(split).parent.mkdir(exist_ok=True)
        accelerator.wait_for_everyone()
        require(run, "train", f"`accelerate launch jobs/train.py {run.root}`")
        checkpoints = dict(list(run.finished_checkpoints().items())[part.number :: part.parts])
        test(experiment, run, accelerator, checkpoints, part)
        output.update(split=split, checkpoints=len(checkpoints), config=sha256_of(run.config))
        if accelerator.is_main_process and part.is_all:
            rows = [table_row(run, split, epoch) for epoch in checkpoints]
            write_table(run.test_table(split), rows)
            print(run.test_table(split))
    accelerator.end_training()


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
            if not is_tested(run, reader, split, epoch, maps=len(map_samples))
        ]
    (todo,) = broadcast_object_list([todo])
    log.info(
        "%d of %d checkpoints are to be tested on %s, %d images",
        len(todo),
        len(checkpoints),
        split,
        len(reader),
    )
    model = accelerator.prepare_model(
        build_model(experiment.model, len(reader.class_names)), evaluation_mode=True
    )
    with (
        Watchdog(limit_from_environment()) as watchdog,
        Progress(
            "test",
            len(todo) * len(reader),
            "images",
            # Parts go on at once, and not one of them knows how far the stage is.
            events=EventLog(run.events, enabled=is_main and part.is_all),
            enabled=is_main,
        ) as progress,
    ):
        for epoch in todo:
            path = run.checkpoint(epoch)
            checkpoint = load_checkpoint(path)
            check_belongs(checkpoint, experiment.hash(), path)
            load_weights(model, checkpoint, path)
            outcome = evaluate(
                model,
                build_loss(experiment.loss),
                reader,
                accelerator,
                batch_size=experiment.evaluation_batch_size,
                workers=experiment.data.workers,
                map_samples=map_samples,
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
            )
            if is_main:
                write_result(run.test_counts(split, epoch), result)


def is_tested(run: RunPaths, reader: ShardReader, split: str, epoch: int, *, maps: int) -> bool:
    """Whether a result of these very weights on these very shards is there, with so many maps."""
    try:
        result = read_result(run.test_counts(split, epoch))
    except RunError:  # missing or damaged: both are mended by testing
        return False
    if len(result.map_samples) < maps:
        return False
    weights = sha256_of(run.checkpoint(epoch))
    return (result.weights_sha256, result.fingerprint) == (weights, reader.fingerprint)


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


if __name__ == "__main__":
    run_program(main)
