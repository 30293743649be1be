"""Opening run directories: what CONFIG means, and a folder that stays with its config."""

import os
from pathlib import Path

import pytest

from cardamage.config.loading import load
from cardamage.errors import ConfigError, RunError
from cardamage.runs.directory import open_run, resolve
from cardamage.runs.missing import missing_stages
from cardamage.runs.stages import StageRecord, read_stage, running
from tests.helpers.markers import write_stage

CONFIG = """\
name: one
data: {source: synthetic, classes: [scratch], image_size: [32, 32]}
model: {name: segnet2}
optim: {name: adam, lr: 3e-4}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "one.yaml"
    path.write_text(CONFIG)
    return path


def test_file_means_a_run_of_its_name_and_nothing_is_written(config: Path, tmp_path: Path):
    experiment, run = resolve(config, ["seed=4"], tmp_path / "runs")
    assert run.root == tmp_path / "runs" / "one"
    assert experiment.seed == 4
    assert not run.root.exists()


def test_open_run_writes_the_resolved_config_and_keeps_it(config: Path, tmp_path: Path):
    experiment, run = resolve(config, [], tmp_path / "runs")
    open_run(run, experiment)
    assert load(run.config) == experiment
    assert "batch_size: 16" in run.config.read_text()  # the defaults are written out
    before = run.config.stat().st_ino
    open_run(run, experiment)
    assert run.config.stat().st_ino == before  # not written again


def test_run_directory_means_its_own_config(config: Path, tmp_path: Path):
    experiment, run = resolve(config, [], tmp_path / "runs")
    open_run(run, experiment)
    again, same = resolve(run.root, [], Path("ignored"))
    assert (again, same) == (experiment, run)


def test_more_epochs_are_the_same_run(config: Path, tmp_path: Path):
    experiment, run = resolve(config, [], tmp_path / "runs")
    open_run(run, experiment)
    longer, _ = resolve(config, ["train.epochs=99"], tmp_path / "runs")
    open_run(run, longer)
    assert load(run.config).train.epochs == 99


def test_name_used_by_another_config_is_refused(config: Path, tmp_path: Path):
    experiment, run = resolve(config, [], tmp_path / "runs")
    open_run(run, experiment)
    run.resume.mkdir()
    run.state(3).touch()
    with pytest.raises(
        RunError,
        match=r"runs/one holds a run of another config \(seed: 0, not 1 \(and 1 more\)\); "
        r"choose another name=\.\.\., or delete that folder",
    ) as caught:
        resolve(config, ["seed=1", "optim.lr=0.1"], tmp_path / "runs")
    assert caught.value.exit_status == 2
    other = load(config, ["seed=1"])
    with pytest.raises(RunError):
        open_run(run, other)
    assert load(run.config) == experiment


def test_what_is_no_run_directory(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"is no run directory: it has no config\.yaml"):
        resolve(tmp_path)
    with pytest.raises(ConfigError, match="there is no such config file"):
        resolve(tmp_path / "gone.yaml")


def test_place_that_cannot_be_written(config: Path, tmp_path: Path):
    (tmp_path / "runs").write_text("a file, not a folder")
    experiment, run = resolve(config, [], tmp_path / "runs")
    with pytest.raises(RunError, match=r"runs/one cannot be written .* --runs-dir"):
        open_run(run, experiment)


def test_folder_inside_the_run_that_takes_no_files(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    experiment, run = resolve(config, [], tmp_path / "runs")
    open_run(run, experiment)
    run.checkpoints.mkdir()
    # A test may run as root, whom no mode bits keep out: only the system's answer is set.
    monkeypatch.setattr(os, "access", lambda folder, _mode: folder != run.checkpoints)
    with pytest.raises(RunError, match=r"cannot be written \(checkpoints: Permission denied\)"):
        open_run(run, experiment)


def test_run_that_failed_while_packing_makes_way_for_a_mended_config(config: Path, tmp_path: Path):
    experiment, run = resolve(config, [], tmp_path / "runs")
    open_run(run, experiment)
    with pytest.raises(ConfigError), running(run, "pack"):
        raise ConfigError("train.batch_size is 16, but the train split has 7 images")
    mended, same = resolve(config, ["train.batch_size=7"], tmp_path / "runs")
    open_run(same, mended)
    assert load(run.config).train.batch_size == 7
    run.checkpoints.mkdir()
    run.checkpoint(1).touch()  # what was trained is never given up
    with pytest.raises(RunError, match="another config"):
        resolve(config, [], tmp_path / "runs")


def test_run_that_was_never_trained_makes_way_for_any_config(config: Path, tmp_path: Path):
    experiment, run = resolve(config, ["continue_from.run=nowhere"], tmp_path / "runs")
    open_run(run, experiment)
    write_stage(run, StageRecord("pack", "done", output={"shards": "x"}))
    run.launch.touch()
    with pytest.raises(RunError, match="another config"):  # it may be waiting in a queue
        resolve(config, [], tmp_path / "runs")
    with pytest.raises(RunError), running(run, "train"):
        raise RunError("continues runs/nowhere, which is no run directory")
    run.continued_from.touch()
    run.resume.mkdir()
    run.state(0).touch()  # asked to stop before the first step
    mended, same = resolve(config, [], tmp_path / "runs")
    open_run(same, mended)
    assert load(run.config).continue_from is None
    assert read_stage(run, "pack").state == "done"  # what is packed serves
    assert not run.continued_from.exists()
    assert run.states() == {}
    smaller, same = resolve(config, ["data.image_size=[64, 64]"], tmp_path / "runs")
    assert "pack" in missing_stages(same, smaller)
    open_run(same, smaller)
    assert read_stage(run, "pack").state == "waiting"
    write_stage(run, StageRecord("train", "running"))
    with pytest.raises(RunError, match="another config"):
        resolve(config, [], tmp_path / "runs")


def test_another_name_over_a_run_is_another_run_beside_it(tmp_path: Path):
    (tmp_path / "one").mkdir()
    config = "name: one\ndata: {source: synthetic, classes: [dent]}\nseed: 3\n"
    (tmp_path / "one" / "config.yaml").write_text(config)
    experiment, run = resolve(tmp_path / "one", ["name=two", "optim.lr=0.1"])
    assert (run.root, experiment.name, experiment.seed) == (tmp_path / "two", "two", 3)
    assert resolve(tmp_path / "one")[1].root == tmp_path / "one"
