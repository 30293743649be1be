"""The public Python API, and the example in the docs."""

import contextlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import cardamage
from cardamage.errors import CardamageError, CheckpointError, ConfigError, DataError, RunError
from tests.helpers.bright_network import write_run
from tests.helpers.programs import ROOT

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def bright(program):
    """A folder with ``runs/bright``, whose network is known, and one for photos."""
    write_run(program.folder / "runs" / "bright")
    (program.folder / "photos").mkdir()
    return program


@pytest.fixture
def folder(bright):
    with contextlib.chdir(bright.folder):
        yield bright.folder


def test_importing_is_light():
    program = "import cardamage, sys; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["False", "False"]


def test_a_run_tells_what_is_in_its_directory(folder):
    run = cardamage.load_run("bright")
    assert run == cardamage.load_run("runs/bright")
    assert run.config == cardamage.load_run(folder / "runs/bright").config
    assert run.config.name == "bright"
    assert list(run.checkpoints) == sorted(run.checkpoints)
    assert run.best_epoch in run.checkpoints
    assert [row["epoch"] for row in run.metrics] == list(run.checkpoints)
    with pytest.raises(RunError, match='no run "dark"'):
        cardamage.load_run("dark")


def test_predictions_are_those_of_the_command(bright, folder):
    Image.fromarray(PHOTO).save(folder / "photos" / "car.png")
    bright.succeeds("jobs/predict.py", "bright", "--images", "photos", "--out", "out")
    written = np.asarray(Image.open(folder / "out" / "car.png"))
    model = cardamage.load_model("bright")
    one = model.predict(folder / "photos" / "car.png")
    assert one.name == "car.png"
    assert one.class_ids.dtype == np.uint8
    assert np.array_equal(one.class_ids, written)
    assert sum(one.shares().values()) == pytest.approx(1)
    assert one.overlay().size == (60, 40)
    for images in ([PHOTO], [Image.fromarray(PHOTO)], folder / "photos", ["photos/car.png"]):
        (again,) = model.predict(images)
        assert np.array_equal(again.class_ids, written)


def test_a_checkpoint_file_alone_loads_and_predicts(bright, folder, tmp_path):
    run = cardamage.load_run("bright")
    expected = run.model().predict(PHOTO)
    alone = tmp_path / "elsewhere" / "mine.safetensors"
    alone.parent.mkdir()
    shutil.copy(run.checkpoints[run.best_epoch], alone)
    shutil.rmtree(folder / "runs")
    model = cardamage.load_model(alone)
    assert model.class_names == run.config.data.class_names
    assert np.array_equal(model.predict(PHOTO).class_ids, expected.class_ids)
    Image.fromarray(PHOTO).save(folder / "photos" / "car.png")
    bright.succeeds("jobs/predict.py", alone, "--images", "photos", "--out", "out")
    assert np.array_equal(np.asarray(Image.open(folder / "out" / "car.png")), expected.class_ids)


def test_what_cannot_be_loaded_or_predicted_on(folder, tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        cardamage.load_model(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint of epoch 99"):
        cardamage.load_model("bright", 99)
    with pytest.raises(DataError, match=r"uint8 \(H, W, 3\)"):
        cardamage.load_model("bright").predict(PHOTO[..., 0])


def test_submitting_refuses_what_the_command_refuses(folder):
    with pytest.raises(ConfigError, match="did you mean"):
        cardamage.submit("smoke", {"train.epoch": 1}, cluster="local")
    with pytest.raises(ConfigError, match='"nowhere"'):
        cardamage.submit("smoke", cluster="nowhere")
    assert not (folder / "runs" / "smoke").exists()


@pytest.mark.slow
def test_the_notebook_of_the_docs_runs(folder, monkeypatch):
    """Its cells as they stand, on a photo of the drawn dataset; the page has the same lines."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cells = json.loads((ROOT / "docs" / "api.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    Image.fromarray(PHOTO).save("photo.jpg")
    names: dict[str, object] = {}
    for cell in code:
        exec(cell, names)
    assert names["run"].best_epoch == 1
    assert names["submitted"].status() == dict.fromkeys(("pack", "train", "test", "report"), "done")
    with Image.open("overlay.png") as overlay:
        assert overlay.size == (60, 40)
    assert "\n\n".join(code) in (ROOT / "docs" / "api.md").read_text()


@pytest.mark.slow
def test_a_submitted_run_can_be_cancelled(folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (submitted,) = cardamage.submit("smoke", {"train.epochs": 500}, cluster="local")
    submitted.cancel()
    with pytest.raises(CardamageError):
        submitted.wait(timeout_s=60)
