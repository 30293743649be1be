"""What the tests of faults share: an experiment undisturbed, and the means to disturb it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import failing_disk
from tests.helpers.children import Nursery
from tests.helpers.stage_results import STAGES, run_stages, write_experiment


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Programs that start at once, on disks that can be told to fail where there is a compiler."""
    nursery = Nursery(failing_disk.build(tmp_path_factory.mktemp("library")))
    yield nursery
    nursery.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``cars.yaml``, of which nothing has run yet."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_experiment(folder)
    return folder


@pytest.fixture(scope="session")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all four stages ran without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_experiment(folder)
    run_stages(nursery, folder, *STAGES)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(where)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield where
    subprocess.run(["umount", "--lazy", where], check=True)


@pytest.fixture
def at(undisturbed: Path, tmp_path: Path):
    """A copy of the undisturbed folder as it was before a stage."""

    def before(stage: str) -> Path:
        folder = tmp_path / "a folder"
        shutil.copytree(undisturbed, folder)
        shutil.rmtree(folder / "runs/cars/report")
        made = {
            "pack": ["runs", "shards"],
            "train": ["checkpoints", "resume", "metrics.csv", "test"],
            "test": ["test"],
            "report": [],
        }[stage]
        for name in made:
            path = folder / name if stage == "pack" else folder / "runs/cars" / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for later in STAGES[STAGES.index(stage) :]:
            (folder / f"runs/cars/stages/{later}.json").unlink(missing_ok=True)
        if stage != "pack":
            marker = folder / "runs/cars/stages/pack.json"
            marker.write_text(marker.read_text().replace(str(undisturbed), str(folder)))
        return folder

    return before
