"""What the tests of faults share: an experiment undisturbed, and the means to disturb it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import failing_disk
import pytest
from children import Nursery
from small_export import write_export

CONFIG = """\
name: cars
data: {source: cars, classes: [scratch, dent], image_size: [16, 24]}
model: {name: segnet2}
optim: {name: adam}
train: {epochs: 2, batch_size: 4}
test: {overlays: 2}
"""
STAGES = ("pack", "train", "test", "report")


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Programs that start at once, on disks that can be told to fail where there is a compiler."""
    nursery = Nursery(failing_disk.build(tmp_path_factory.mktemp("library")))
    yield nursery
    nursery.close()


def write_experiment(folder: Path) -> None:
    """A dataset and a config, in a folder of their own."""
    write_export(folder / "cars")
    (folder / "cars.yaml").write_text(CONFIG)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``cars.yaml``, of which nothing has run yet."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_experiment(folder)
    return folder


def run_stages(nursery: Nursery, folder: Path, *stages: str) -> None:
    """Run stages that must succeed."""
    for stage in stages:
        child = nursery.run(folder, f"jobs/{stage}.py", target(stage))
        assert child.wait() == 0, child.printed


def target(stage: str) -> str:
    """What a stage's program is given."""
    return "runs/cars" if stage == "report" else "cars.yaml"


@pytest.fixture(scope="session")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all four stages ran without a fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_experiment(folder)
    run_stages(nursery, folder, *STAGES)
    return folder


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


def results(folder: Path) -> dict[str, bytes]:
    """Everything that counts of an experiment's files: what no time and no place is written in."""
    run = folder / "runs/cars"
    patterns = ["shards/*/manifest.json", "shards/*/*/*", "runs/cars/config.yaml"]
    patterns += ["runs/cars/metrics.csv", "runs/cars/checkpoints/*", "runs/cars/test/**/*"]
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    whole = [path for path in paths if path.suffix != ".part"]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in whole}
    for png in (run / "report").glob("*.png"):
        found[png.name] = png.read_bytes()
    return found


MADE = {"pack": "shards/", "train": "checkpoints/", "test": "test/", "report": ".png"}
"""What the names of a stage's results have in them."""


def ends_the_same(nursery: Nursery, folder: Path, undisturbed: Path, stage: str) -> bool:
    """Run a stage, which must succeed, and compare its results, leaving nothing else behind."""
    run_stages(nursery, folder, stage)
    found, expected = results(folder), results(undisturbed)
    assert found == {name: expected[name] for name in found}
    assert set(found) >= {name for name in expected if MADE[stage] in name}
    assert leftovers(folder) == []
    return True


def leftovers(folder: Path) -> list[Path]:
    """What is written aside and locks: neither may stay."""
    return [path for pattern in ("*.part", "*.lock") for path in folder.rglob(f"{pattern}")]
