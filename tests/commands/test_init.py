"""``cardamage init`` as a newcomer uses it: what it writes runs as it stands."""

import json
from pathlib import Path

import pytest

from cardamage.config import loading
from tests.helpers.laid_out import Tree, coco, laid, photos
from tests.helpers.small_export import write_export

NAMES = ("kirik-kayip", "gölge: hasar", "no", 'say "dent"')


@pytest.fixture
def export(program) -> Path:
    """An export whose categories have names that YAML reads as something else."""
    folder = program.folder / "my cars"
    write_export(folder)
    for path in folder.rglob("_annotations.coco.json"):
        content = json.loads(path.read_text())
        for category, name in zip(content["categories"], NAMES, strict=False):
            if category["supercategory"] != "none":
                category["name"] = name
        path.write_text(json.dumps(content))
    return folder


def test_what_it_writes_is_an_experiment_of_the_dataset(program, export: Path):
    out = program.succeeds("jobs/init.py", "my cars")
    assert "cardamage submit my-cars" in out
    path = program.folder / "my-cars.yaml"
    found = loading.load(path)
    assert found.data.source == str(export)
    categories = json.loads((export / "train" / "_annotations.coco.json").read_text())["categories"]
    assert set(found.data.class_groups) <= {category["name"] for category in categories}
    assert Path(path.read_text().splitlines()[0].partition("file://")[2]).is_file()  # the schema
    out = program.succeeds("launch/submit.py", "my-cars", "--dry-run")
    assert "refused" not in out


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"result.json": coco(range(9)), **photos("images/", range(9))}, "split"),
        (
            {
                "train/_annotations.coco.json": coco(range(9)),
                "test/_annotations.coco.json": coco([9]),
                **photos("train/", range(9)),
                **photos("test/", [9]),
            },
            "valid_share",
        ),
    ],
)
def test_splits_that_are_missing_are_made(program, tree: Tree, key: str):
    laid(program.folder / "cars", tree)
    program.succeeds("jobs/init.py", "cars")
    assert getattr(loading.load(program.folder / "cars.yaml").data, key)
    program.succeeds("jobs/pack.py", "cars")


def test_it_replaces_nothing(program, export: Path):
    path = program.folder / "mine.yaml"
    path.write_text("mine")
    error = program.refuses("jobs/init.py", "my cars", "--out", "mine.yaml")
    assert f"{path} is there already" in error
    assert path.read_text() == "mine"


def test_a_dataset_that_is_not_there(program):
    error = program.refuses("jobs/init.py", "nowhere.zip")
    assert "nowhere.zip does not exist" in error


def test_what_cannot_be_used_is_left_out_and_counted(program, export: Path):
    lost = min((export / "train").glob("*.jpg"))
    lost.unlink()
    program.succeeds("jobs/init.py", "my cars")
    text = (program.folder / "my-cars.yaml").read_text()
    assert loading.load(program.folder / "my-cars.yaml").data.skip_broken
    assert "leaves out 1 image" in text
    program.succeeds("jobs/pack.py", "my-cars")
