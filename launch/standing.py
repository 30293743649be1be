"""How far a run has come: what each stage would still have to do, in words and as a list."""

from __future__ import annotations

from pathlib import Path

from cardamage import config
from cardamage.config import Experiment
from cardamage.files import sha256_of
from cardamage.paths import RunPaths, ShardPaths
from cardamage.stages import StageRecord, read_stage


def standing(run: RunPaths, experiment: Experiment, stage: str) -> str:
    """What a stage would find done, were it started now."""
    record = read_stage(run, stage)
    trained = run.finished_checkpoints()
    match stage:
        case "train":
            epochs = experiment.train.epochs
            if len(trained) >= epochs:
                return f"done, all {epochs} epochs"
            return f"{len(trained)} of {epochs} epochs are done"
        case "test":
            split = experiment.test.split
            tested = sum(run.test_counts(split, epoch).is_file() for epoch in trained)
            of = max(len(trained), experiment.train.epochs)
            return f"{tested} of {of} checkpoints are tested on {split}"
        case _:
            return "done before; checked again" if record.state == "done" else "not done"


def missing_stages(run: RunPaths, experiment: Experiment) -> tuple[str, ...]:
    """The stages that would have something to do, in order; none for a run that is complete.

    What the markers say counts, as long as the config says the same as when they were written.

    Raises:
        UserError: a marker or the run's config is damaged.
    """
    if not run.config.is_file():
        return ("pack", "train", "test", "report")
    epochs, test = experiment.train.epochs, experiment.test
    pack, trained, tested, reported = (
        read_stage(run, stage) for stage in ("pack", "train", "test", "report")
    )
    is_trained = (
        trained.state == "done"
        and trained.output.get("epochs", 0) >= epochs
        and len(run.finished_checkpoints()) >= epochs
    )
    is_same = run.config.read_text(encoding="utf-8") == experiment.to_yaml() or (
        config.load(run.config).test == test
    )
    is_tested = (
        is_trained
        and is_same
        and _is_done_with(run.config, "config", tested)
        and tested.output.get("split") == test.split
        and tested.output.get("checkpoints", 0) >= epochs
    )
    is_reported = (
        is_tested
        and _is_done_with(run.config, "config", reported)
        and _is_done_with(run.test_table(test.split), "tested", reported)
    )
    is_packed = is_tested or (
        pack.state == "done" and ShardPaths(Path(pack.output["shards"])).manifest.is_file()
    )
    found = {"pack": is_packed, "train": is_trained, "test": is_tested, "report": is_reported}
    return tuple(stage for stage, is_there in found.items() if not is_there)


def _is_done_with(path: Path, name: str, record: StageRecord) -> bool:
    """Whether a stage was done with a file as it is now: by its hash, for clocks jump."""
    if record.state != "done" or not path.is_file():
        return False
    return record.output.get(name) == sha256_of(path)
