"""Which checkpoint ``continue_from`` means, and which other runs cannot serve."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cardamage.config import experiment as config
from cardamage.config import loading
from cardamage.config.experiment import Experiment
from cardamage.errors import ConfigError, RunError
from cardamage.runs.continued import (
    Source,
    find_source,
    has_begun,
    read_origin,
    source_run,
    write_origin,
)
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.runs.tables import write_table
from tests.helpers.markers import write_stage

VALUES: dict[str, Any] = {
    "name": "first",
    "data": {"source": "synthetic", "classes": ["scratch", "dent"]},
    "model": {"name": "segnet2"},
    "optim": {"name": "adam"},
    "train": {"epochs": 3},
    "test": {"select_by": "dice_fg"},
}


def continuing(run: str = "first", checkpoint: object = "last", **parts: Any) -> Experiment:
    values = {**VALUES, "name": "second", "continue_from": {"run": run, "checkpoint": checkpoint}}
    return loading.parse({**values, **parts})


@pytest.fixture
def first(tmp_path: Path) -> RunPaths:
    """A run of 3 epochs that is trained; its second epoch is the best."""
    run = RunPaths(tmp_path / "runs" / "first")
    run.checkpoints.mkdir(parents=True)
    run.config.write_text(loading.parse(VALUES).to_yaml())
    for epoch in (1, 2, 3):
        run.checkpoint(epoch).touch()
    write_table(run.metrics, [{"epoch": e, "val_dice_fg": s} for e, s in ((1, 0), (2, 9), (3, 4))])
    write_stage(run, StageRecord("train", "done", output={"epochs": 3}))
    return run


def find(first: RunPaths, experiment: Experiment) -> Source:
    assert experiment.continue_from is not None
    second = RunPaths(first.root.with_name("second"))
    return find_source(second, experiment, experiment.continue_from)


@pytest.mark.parametrize(("checkpoint", "epoch"), [("last", 3), ("best", 2), (1, 1)])
def test_the_checkpoint_is_found(first: RunPaths, checkpoint: object, epoch: int):
    found = find(first, continuing(checkpoint=checkpoint))
    assert (found.run, found.epoch, found.path) == (first, epoch, first.checkpoint(epoch))


def test_a_name_is_a_run_beside_this_one_and_a_path_is_a_path():
    run = RunPaths(Path("elsewhere/second"))
    names = {"first": "elsewhere/first", "runs/first": "runs/first", "./first": "first"}
    for name, path in names.items():
        continued = config.ContinueFrom(run=name)
        assert source_run(run, continued).root == Path(path)


def test_an_epoch_needs_no_finished_training(first: RunPaths):
    write_stage(first, replace(read_stage(first, "train"), state="running"))
    assert find(first, continuing(checkpoint=2)).epoch == 2
    for checkpoint in ("last", "best"):
        with pytest.raises(RunError, match=r"whose stage train is running with 3 of 3 epochs; .*"):
            find(first, continuing(checkpoint=checkpoint))


def test_a_run_that_is_to_be_trained_further_has_no_last_checkpoint_yet(first: RunPaths):
    first.config.write_text(loading.parse({**VALUES, "train": {"epochs": 5}}).to_yaml())
    with pytest.raises(RunError, match="is done with 3 of 5 epochs; train it to its end"):
        find(first, continuing())


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        (
            {"run": "gone"},
            r"continues .*gone, which is no run directory; run that experiment first",
        ),
        ({"checkpoint": 4}, r"4 lies behind the last epoch of .*first, which is 3; name an epoch"),
        ({"model": {"name": "unet"}}, r"whose model is segnet2, not unet; weights fit no other"),
        (
            {"model": {"name": "segnet2", "softmax_output": True}},
            r"whose model is segnet2, not segnet2 with softmax output",
        ),
        (
            {"data": {"source": "synthetic", "classes": ["dent", "scratch"]}},
            r"whose classes are scratch, dent, not dent, scratch; .* in the same order",
        ),
    ],
)
def test_what_does_not_fit_is_refused(first: RunPaths, parts: dict[str, Any], error: str):
    with pytest.raises((RunError, ConfigError), match=error) as refused:
        find(first, continuing(**parts))
    assert "\n" not in str(refused.value)


def test_a_checkpoint_that_is_gone_is_refused(first: RunPaths):
    first.checkpoint(2).unlink()
    with pytest.raises(RunError, match="no checkpoint of epoch 2; choose one of 1, 3;"):
        find(first, continuing(checkpoint=2))


def test_no_epoch_is_best_where_no_score_is_defined(first: RunPaths):
    write_table(first.metrics, [{"epoch": e, "val_dice_fg": float("nan")} for e in (1, 2, 3)])
    with pytest.raises(RunError, match="has a validation dice_fg, so none is best"):
        find(first, continuing(checkpoint="best"))


def test_grouped_classes_of_the_same_names_fit(first: RunPaths):
    grouped = {"source": "synthetic", "classes": {"scratch": ["a"], "dent": ["b"]}}
    assert find(first, continuing(data=grouped)).epoch == 3


def test_a_run_has_begun_once_it_has_a_state(tmp_path: Path):
    run = RunPaths(tmp_path)
    assert not has_begun(run)
    run.resume.mkdir()
    assert has_begun(run)


def test_the_origin_is_written_and_read(first: RunPaths, tmp_path: Path):
    run = RunPaths(tmp_path / "second")
    assert read_origin(run) is None
    write_origin(run, Source(first, loading.load(first.config), 2), "ab" * 32)
    origin = read_origin(run)
    assert origin is not None
    assert (origin.run, origin.epoch, origin.weights_sha256) == (str(first.root), 2, "ab" * 32)
    assert origin.config_hash == loading.load(first.config).hash()
    run.continued_from.write_text("{}")
    with pytest.raises(RunError, match=r"continued_from.json is damaged; delete it"):
        read_origin(run)
