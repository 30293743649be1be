"""Folders that vanish or turn read-only under a stage: one clear line, and nothing begun anew."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.children import Nursery
from tests.helpers.stage_results import ends_the_same, results, run_stages, target


@pytest.mark.parametrize(
    ("stage", "moment"),
    [
        ("train", "checkpoints/epoch-0001.safetensors"),
        ("test", "test/test/epoch-0001.npz"),
        ("report", "stages/report.json"),
    ],
)
def test_a_run_directory_that_vanishes(
    nursery: Nursery, at, undisturbed: Path, stage: str, moment: str, tmp_path: Path
) -> None:
    folder = at(stage)
    run, elsewhere = folder / "runs/cars", tmp_path / "elsewhere"
    child = nursery.start(folder, f"jobs/{stage}.py", target(stage))
    child.wait_until((run / moment).exists)
    shutil.move(run, elsewhere)
    assert child.wait() == 2, child.printed
    assert "runs/cars" in child.error
    assert not run.exists()
    shutil.move(elsewhere, run)  # as when a file server is back
    assert ends_the_same(nursery, folder, undisturbed, stage)


@pytest.mark.parametrize("stage", ["pack", "train", "test", "report"])
def test_a_run_directory_on_a_read_only_disk(
    nursery: Nursery, at, undisturbed: Path, disk: Path, stage: str
) -> None:
    before = at(stage)
    (disk / "runs").mkdir()
    if (before / "runs").exists():
        shutil.copytree(before / "runs", disk / "runs", dirs_exist_ok=True)
    shutil.rmtree(before / "runs", ignore_errors=True)
    (before / "runs").symlink_to(disk / "runs")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    child = nursery.run(before, f"jobs/{stage}.py", target(stage))
    assert child.wait() == 2, child.printed
    assert "Read-only file system" in child.error
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert ends_the_same(nursery, before, undisturbed, stage)


def test_shards_that_vanish_while_training(nursery: Nursery, at, undisturbed: Path) -> None:
    folder = at("train")
    config = folder / "cars.yaml"
    child = nursery.start(folder, "jobs/train.py", target("train"))
    child.wait_until((folder / "runs/cars/stages/train.json").exists)
    shutil.rmtree(folder / "shards")
    if child.wait() == 0:  # every file was open already
        assert results(folder).keys()
    else:
        assert child.wait() == 2, child.printed
        assert "pack again: cardamage pack" in child.error
    assert config.exists()
    run_stages(nursery, folder, "pack")
    assert ends_the_same(nursery, folder, undisturbed, "train")
