"""What is missing of a run, told from its files alone, so that a start with nothing to do ends."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cardamage.config import loading
from cardamage.config.experiment import Experiment
from cardamage.runs.checkpoints import kept_epochs
from cardamage.runs.directory import as_tested
from cardamage.runs.paths import STAGES, RunPaths, ShardPaths
from cardamage.runs.rung import last_epoch
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.runs.tables import read_table
from cardamage.system.files import sha256_of


def missing_stages(
    run: RunPaths, experiment: Experiment, until: int | None = None
) -> tuple[str, ...]:
    """The stages that would have something to do, in order; none for a run that is complete.

    What the markers say counts, as long as the config says the same as when they were written and
    the files that a stage can make again are there. Training is to end with the epoch ``until``, by
    default where the run's rung says.
    """
    if not run.config.is_file():
        return STAGES
    split, checkpoints = as_tested(run, experiment).test.split, run.finished_checkpoints()
    pack, trained, tested, reported = (read_stage(run, stage) for stage in STAGES)
    is_trained = (
        trained.state == "done"
        and trained.output.get("epochs", 0) >= (until or last_epoch(run, experiment))
        and run.metrics.is_file()
        and bool(checkpoints)
        and not (run.states() and max(checkpoints) < saved_progress(run)[0])
    )
    is_same = packs_alike = run.config.read_text(encoding="utf-8") == experiment.to_yaml()
    if not is_same:
        there = loading.load(run.config)
        is_same = there.test == experiment.test
        packs_alike = there.data.packing() == experiment.data.packing()
    is_tested = (
        is_trained
        and is_same
        and _is_done_with(run.config, "config", tested)
        and tested.output.get("split") == split
        and run.test_table(split).is_file()
        and all(run.test_counts(split, epoch).is_file() for epoch in checkpoints)
    )
    is_reported = (
        is_tested
        and _is_done_with(run.config, "config", reported)
        and _is_done_with(run.test_table(split), "tested", reported)
        and (run.report / "index.html").is_file()
    )
    shards = ShardPaths(Path(pack.output.get("shards", "")))
    is_packed = is_tested or (packs_alike and pack.state == "done" and shards.manifest.is_file())
    found = zip(STAGES, (is_packed, is_trained, is_tested, is_reported), strict=True)
    return tuple(stage for stage, is_there in found if not is_there)


def saved_progress(run: RunPaths) -> tuple[int, int]:
    """Epochs and optimiser steps of training that are saved; zeros where nobody can tell."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        told = json.loads(run.progress.read_text(encoding="utf-8"))
        return int(told["epoch"]), int(told["step"])
    return 0, 0


def lost_epochs(run: RunPaths, experiment: Experiment) -> Sequence[int]:
    """Finished epochs whose checkpoint somebody deleted: training does not make one again.

    Raises:
        RunError: ``metrics.csv`` is damaged.
    """
    if read_stage(run, "train").state != "done" or not run.metrics.is_file():
        return ()
    kept = kept_epochs(experiment, read_table(run.metrics))
    return sorted(kept - run.finished_checkpoints().keys())


def _is_done_with(path: Path, name: str, record: StageRecord) -> bool:
    """Whether a stage was done with a file as it is now: by its hash, for clocks jump."""
    is_there = record.state == "done" and path.is_file()
    return is_there and record.output.get(name) == sha256_of(path)
