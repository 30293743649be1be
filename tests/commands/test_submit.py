"""What submit answers before anything runs; what runs is in the end-to-end tests."""

import json
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord
from tests.helpers.markers import write_stage

CONFIG = """\
name: cars
data:
  source: export
  classes: [scratch, dent]
  image_size: [32, 32]
model: {name: segnet2}
optim: {name: adam}
train: {epochs: 4}
"""
SYNTHETIC = CONFIG.replace("source: export", "source: synthetic")
CATEGORIES = [
    {"id": 0, "name": "damage", "supercategory": "none"},
    {"id": 1, "name": "scratch", "supercategory": "damage"},
    {"id": 2, "name": "dent", "supercategory": "damage"},
]


@pytest.fixture
def folder(program) -> Path:
    """A config, and the export it names as far as submit looks at it."""
    (program.folder / "cars.yaml").write_text(CONFIG)
    (program.folder / "drawn.yaml").write_text(SYNTHETIC)
    for split in ("train", "valid", "test"):
        (program.folder / "export" / split).mkdir(parents=True)
        annotations(program.folder, split).write_text(json.dumps({"categories": CATEGORIES}))
    return program.folder


def annotations(folder: Path, split: str) -> Path:
    return folder / "export" / split / "_annotations.coco.json"


def files(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_dry_run_says_what_would_run_and_changes_nothing(program, folder: Path):
    before = files(folder)
    out = program.succeeds("launch/submit.py", "cars.yaml", "--dry-run", "optim.lr=3e-4")
    assert files(folder) == before
    assert "run directory: runs/cars (new)" in out
    lines = [line.strip() for line in out.splitlines()]
    assert "2. train (after pack): 0 of 4 epochs are done" in lines
    assert sys.executable not in out
    assert len(out.splitlines()) <= 25
    assert all(len(line) <= 80 for line in lines if str(folder) not in line)
    out = program.succeeds("launch/submit.py", "cars.yaml", "--dry-run", "--verbose")
    lines = [line.strip() for line in out.splitlines()]
    (pack,) = [line for line in lines if line.endswith("cardamage pack runs/cars")]
    assert pack.startswith(sys.executable)
    assert any(line.endswith("-m cardamage train runs/cars") for line in lines)
    assert files(folder) == before


def test_dry_run_forecasts_and_says_what_would_be_refused(program, folder: Path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for split, images in (("train", 12), ("valid", 3), ("test", 2)):
        content = {"categories": CATEGORIES, "images": [{}] * images}
        annotations(folder, split).write_text(json.dumps(content))
    options = ("--dry-run", "train.batch_size=4", "train.epochs=5")
    out = program.succeeds("launch/submit.py", "cars.yaml", *options)
    assert "train 12, valid 3, test 2 images" in out
    assert "5 epochs of 3 steps, 15 steps in all" in out
    assert "refused" not in out
    wrong = ("train.mixed_precision=fp16", "train.batch_size=16")
    out = program.succeeds("launch/submit.py", "cars.yaml", "--dry-run", *wrong)
    refused = [line for line in out.splitlines() if line.startswith("would be refused: ")]
    assert len(refused) == 2
    assert "fp16" in refused[0]
    assert "set train.batch_size to 12 or less" in refused[1]
    assert "fp16" in program.refuses("launch/submit.py", "cars.yaml", wrong[0])


def test_dry_run_names_what_lies_beside_a_dataset_that_is_not_there(program, folder: Path):
    out = program.succeeds("launch/submit.py", "cars.yaml", "--dry-run", "data.source=exprot")
    assert f"{folder / 'exprot'} does not exist" in out
    assert 'did you mean "export"?' in out


def test_dry_run_needs_neither_torch_nor_numpy(program, folder: Path):
    arguments = ("launch/submit.py", "cars.yaml", "--dry-run")
    imported = program(*arguments, PYTHONPROFILEIMPORTTIME="1").stderr
    names = {line.rpartition("|")[2].strip().partition(".")[0] for line in imported.splitlines()}
    assert "pydantic" in names
    assert not names & {"torch", "numpy", "accelerate", "PIL", "matplotlib"}


def test_dry_run_tells_what_is_done(program, folder: Path):
    run = RunPaths(folder / "runs" / "drawn")
    config = yaml.safe_load(SYNTHETIC.replace("name: cars", "name: drawn"))
    run.checkpoints.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump(config))
    for epoch in (1, 2):
        run.checkpoint(epoch).touch()
    run.test_counts("test", 1).parent.mkdir(parents=True)
    run.test_counts("test", 1).touch()
    write_stage(run, StageRecord("pack", state="done"))
    out = program.succeeds("launch/submit.py", "runs/drawn", "--dry-run")
    assert "run directory: runs/drawn (resumes)" in out
    assert "1. pack (needs nothing): done before; checked again" in out
    assert "2. train (after pack): 2 of 4 epochs are done" in out
    assert "3. test (after train): 1 of 4 checkpoints are tested on test" in out
    assert "4. report (after test): not done" in out


def test_options_stand_anywhere_and_stages_can_be_chosen(program, folder: Path):
    out = program.succeeds(
        "launch/submit.py", "--stages", "train,pack", "cars.yaml", "--dry-run", "--verbose",
        "--runs-dir", "else where", "--follow", "--cluster", "local", "train.epochs=9", "seed=1",
    )  # fmt: skip
    assert "run directory: else where/cars (new)" in out
    assert "0 of 9 epochs" in out
    assert "3. " not in out
    assert "cardamage pack 'else where/cars'" in out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["optim.lr=1"], "only optim.lr=1 is given; name a YAML file"),
        (["nowhere.yaml"], "nowhere.yaml does not exist"),
        (["cars.yaml", "optim.rl=1"], 'did you mean "lr"'),
        (["cars.yaml", "drawn.yaml"], "cars.yaml and drawn.yaml are both the run runs/cars"),
        (["cars.yaml", "--stages", "pack,trian"], '"trian" is unknown (did you mean "train"?)'),
        (["cars.yaml", "--cluster", "lokal"], 'did you mean "local"'),
        (["cars.yaml", "--stages", "test"], "stage test needs train, which is waiting; add train"),
        (["cars.yaml", "--runs-dir", "cars.yaml"], "since cars.yaml is not a folder; choose"),
        (["cars.yaml", "--runs-dir", "cars.yaml/deep"], "is not a folder; choose another place"),
        (["cars.yaml", "--runs-dir", "/proc/runs"], "--runs-dir"),
        (["drawn.yaml", "data.source=gone"], "gone does not exist; give a folder or a .zip"),
    ],
)
def test_mistakes_start_nothing(program, folder: Path, arguments: list[str], error: str):
    before = files(folder)
    assert error in program.refuses("launch/submit.py", *arguments)
    assert files(folder) == before


def test_nothing_starts_when_the_last_of_several_configs_is_wrong(program, folder: Path):
    (folder / "wrong.yaml").write_text(SYNTHETIC.replace("epochs: 4", "epochs: 0"))
    before = files(folder)
    error = program.refuses("launch/submit.py", "cars.yaml", "wrong.yaml")
    assert "wrong.yaml: train.epochs" in error
    assert files(folder) == before


def test_split_without_a_folder(program, folder: Path):
    annotations(folder, "valid").unlink()
    annotations(folder, "valid").parent.rmdir()
    error = program.refuses("launch/submit.py", "cars.yaml")
    assert "valid_share: 0.15" in error


def test_split_without_annotations(program, folder: Path):
    annotations(folder, "test").rename(annotations(folder, "test").with_name("photo.jpg"))
    assert "test/_annotations.coco.json" in program.refuses("launch/submit.py", "cars.yaml")


def test_annotations_that_are_not_json(program, folder: Path):
    annotations(folder, "train").write_text("{")
    error = program.refuses("launch/submit.py", "cars.yaml")
    assert "train/_annotations.coco.json is not JSON" in error


@pytest.mark.parametrize(
    ("classes", "error"),
    [
        ("[scratch, dint]", 'data.classes names "dint", which the dataset does not have'),
        ("[scratch]", 'neither data.classes nor data.drop names: ["dent"]'),
    ],
)
def test_classes_and_categories_must_agree(program, folder: Path, classes: str, error: str):
    assert error in program.refuses("launch/submit.py", "cars.yaml", f"data.classes={classes}")


def test_zip_is_looked_into(program, folder: Path):
    with zipfile.ZipFile(folder / "export.zip", "w") as archive:
        for split in ("train", "valid", "test"):
            archive.write(annotations(folder, split), f"v5/{split}/_annotations.coco.json")
    arguments = ("launch/submit.py", "cars.yaml", "--dry-run", "data.source=export.zip")
    program.succeeds(*arguments)
    (folder / "export.zip").write_bytes(b"PK")
    assert "export.zip" in program.refuses(*arguments)


def test_run_that_is_at_work_is_refused(program, folder: Path, fake):
    fake.start(pack="waits")
    fake.await_log("pack", "at work")
    error = program.refuses("launch/submit.py", fake.run.root)
    assert f"is being run already, by process {fake.launcher.pid}" in error
    assert "cardamage cancel" in error


SWEEP = """\
name: rates
sweep:
  config: drawn.yaml
  grid: {optim.lr: [1e-3, 1e-4], seed: [0, 1]}
"""
STUDY = """\
name: kinds
experiments:
  one: {config: cars.yaml}
  two: {config: drawn.yaml, overrides: {model.name: unet2}}
"""


def test_dry_run_of_a_sweep_shows_its_graph(program, folder: Path):
    (folder / "sweep.yaml").write_text(SWEEP)
    before = files(folder)
    out = program.succeeds("launch/submit.py", "sweep.yaml", "--dry-run", "train.epochs=7")
    assert files(folder) == before
    assert out.startswith("rates: 4 runs\n")
    lines = [line.strip() for line in out.splitlines()]
    assert "run directory: runs/rates-lr_0.0001-seed_1 (new)" in lines
    assert lines.count("1. pack (needs nothing): not done") == 1
    assert lines.count("1. pack (after pack of runs/rates-lr_0.001-seed_0): not done") == 3
    assert lines.count("2. train (after pack): 0 of 7 epochs are done") == 4
    assert lines[-1].startswith("1. report (after test of runs/rates-lr_0.001-seed_0, test of ")
    assert lines[-1].endswith("... and test of runs/rates-lr_0.0001-seed_1, 4 in all): not done")
    assert lines[-1].startswith("1. report")


def test_studies_stand_beside_experiments(program, folder: Path):
    (folder / "study.yaml").write_text(STUDY)
    out = program.succeeds("launch/submit.py", "cars.yaml", "study.yaml", "--dry-run", "seed=2")
    runs = [line.split()[2] for line in out.splitlines() if "run directory:" in line]
    assert runs == ["runs/cars", "runs/kinds-one", "runs/kinds-two", "runs/kinds"]
    assert "pack (after pack of runs/cars)" in out  # of runs/kinds-one, from the same export
    assert "report (after test of runs/kinds-one, test of runs/kinds-two): not done" in out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["sweep.yaml", "name=x"], "name=x would give all runs of sweep.yaml one name"),
        (["sweep.yaml", "seed=1"], "seed=1 cannot be laid over sweep.yaml, which sweeps over seed"),
        (["sweep.yaml", "drawn.yaml", "name=rates"], "name=rates would give all runs"),
        (["study.yaml", "data.source=gone"], "gone does not exist"),
        (["study.yaml", "data.classes=[scratch]"], 'data.drop names: ["dent"]'),
        (
            ["study.yaml", "sweep.yaml", "optim.rl=1"],
            "study.yaml: run kinds-one: cars.yaml: optim.rl",
        ),
        (["sweep.yaml", "--stages", "train"], "stage train needs pack, which is waiting; add pack"),
    ],
)
def test_mistakes_in_studies_start_nothing(program, folder: Path, arguments: list[str], error: str):
    (folder / "sweep.yaml").write_text(SWEEP)
    (folder / "study.yaml").write_text(STUDY)
    before = files(folder)
    assert error in program.refuses("launch/submit.py", *arguments)
    assert files(folder) == before


def test_two_hundred_runs_are_one_submission(program, folder: Path):
    seeds = ", ".join(map(str, range(200)))
    (folder / "sweep.yaml").write_text(
        f"name: s\nsweep: {{config: cars.yaml, grid: {{seed: [{seeds}]}}}}\n"
    )
    arguments = ("launch/submit.py", "sweep.yaml", "--dry-run")
    shown = program.succeeds(*arguments)
    assert all(f"runs/s-seed_{seed}" in shown for seed in range(200))
