"""How far a run has come, in words: what each stage would still have to do."""

from __future__ import annotations

from cardamage.config import Experiment
from cardamage.paths import RunPaths
from cardamage.stages import read_stage


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
