"""An experiment whose stages tests of faults run, and what the stages leave behind."""

import re
from pathlib import Path

from tests.helpers.children import Nursery
from tests.helpers.small_export import write_export

CONFIG = """\
name: cars
data: {source: cars, classes: [scratch, dent], image_size: [16, 24]}
model: {name: segnet2}
optim: {name: adam}
train: {epochs: 2, batch_size: 4}
test: {overlays: 2}
"""
STAGES = ("pack", "train", "test", "report")


def write_experiment(folder: Path) -> None:
    """A dataset and a config, in a folder of their own."""
    write_export(folder / "cars")
    (folder / "cars.yaml").write_text(CONFIG)


def run_stages(nursery: Nursery, folder: Path, *stages: str) -> None:
    """Run stages that must succeed."""
    for stage in stages:
        child = nursery.run(folder, f"jobs/{stage}.py", target(stage))
        assert child.wait() == 0, child.printed


def target(stage: str) -> str:
    """What a stage's program is given."""
    return "runs/cars" if stage == "report" else "cars.yaml"


def results(folder: Path) -> dict[str, bytes]:
    """Everything that counts of an experiment's files: what no time and no place is written in."""
    run = folder / "runs/cars"
    patterns = ["shards/*/manifest.json", "shards/*/*/*", "runs/cars/config.yaml"]
    patterns += ["runs/cars/metrics.csv", "runs/cars/checkpoints/epoch-*", "runs/cars/test/**/*"]
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    whole = [path for path in paths if path.suffix != ".part"]
    found = {str(path.relative_to(folder)): path.read_bytes() for path in whole}
    if config := found.get("runs/cars/config.yaml"):  # its paths are absolute
        found["runs/cars/config.yaml"] = re.sub(rb"(?m)^  (source|shards_dir): .*$", b"", config)
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
