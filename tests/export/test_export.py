"""Exported networks answer as the one they were made from, and say what they are."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cardamage.data.shards.reader import packed_splits
from cardamage.errors import CardamageError, CheckpointError, ConfigError
from cardamage.export.check import SCORES, compare
from cardamage.export.export import export
from cardamage.export.formats import FORMATS, runner, write
from cardamage.export.graph import Exported, side_multiple
from cardamage.models import build_model
from cardamage.predict.chosen import choose_model
from cardamage.predict.model import TrainedModel
from cardamage.predict.onnx_model import OnnxModel
from cardamage.runs.directory import resolve
from cardamage.runs.paths import RunPaths
from cardamage.training.checkpoint import CheckpointInfo, save_checkpoint
from tests.helpers.bright_network import EXPERIMENT, bright_is_dent, half_bright

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

INFO = CheckpointInfo(
    epoch=1,
    model=EXPERIMENT.model.model_dump(mode="json"),
    class_names=EXPERIMENT.data.class_names,
    image_size=EXPERIMENT.data.image_size,
    config_hash=EXPERIMENT.hash(),
)


def model(*, inverted=False):
    network = build_model(EXPERIMENT.model, 3)
    network.load_state_dict(bright_is_dent(inverted=inverted))
    return TrainedModel(INFO, network)


@pytest.fixture(scope="module")
def onnx_bytes():
    content, multiple = write(Exported(model()), INFO, "onnx")
    assert multiple == 8
    return content


def images(count, height, width):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def expected(pixels):
    with torch.no_grad():
        return tuple(each.numpy() for each in Exported(model())(torch.from_numpy(pixels)))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("size", [(1, 32, 32), (3, 40, 56)])
def test_answers_are_the_networks_for_any_number_and_size(form, size, onnx_bytes):
    content = onnx_bytes if form == "onnx" else write(Exported(model()), INFO, form)[0]
    pixels = images(*size)
    classes, probabilities = runner(content, form)(pixels)
    wanted = expected(pixels)
    assert (classes.dtype, classes.shape) == (np.uint8, size)
    np.testing.assert_array_equal(classes, wanted[0])
    np.testing.assert_allclose(probabilities, wanted[1], atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_an_exported_file_is_a_model_by_itself(onnx_bytes, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx_bytes)
    exported = OnnxModel.open(path)
    assert exported.info == INFO
    photo = Image.fromarray(half_bright(70, 90)).convert("RGB")
    for options in ({}, {"flip": True}):
        wanted, found = (m.predict(photo, **options) for m in (model(), exported))
        np.testing.assert_array_equal(found.class_ids, wanted.class_ids)
        assert abs(found.confidence.astype(int) - wanted.confidence).max() <= 1
    import onnx

    properties = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props if p.value}
    assert properties["class_names"] == ["background", "dent", "scratch"]
    assert properties["cardamage"]["multiple_of"] == 8
    path.write_bytes(onnx_bytes[:1000])
    with pytest.raises(CheckpointError, match="cardamage export"):
        OnnxModel.open(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        OnnxModel.open(tmp_path / "none.onnx")


def test_comparing_counts_what_differs():
    pixels = np.stack([np.stack([half_bright(32, 32)] * 3, -1)] * 2)
    masks = np.zeros((2, 32, 32), np.uint8)
    masks[..., 16:] = 1
    other = Exported(model(inverted=True))

    def inverted(batch):
        with torch.no_grad():
            return tuple(each.numpy() for each in other(torch.from_numpy(batch)))

    same = compare(Exported(model()), expected, [(pixels, masks)], INFO.class_names)
    assert (same.images, same.difference, same.other_classes) == (2, 0, 0)
    here, there = same.scores["accuracy"]
    assert here == there == pytest.approx(1, abs=0.15)  # the network blurs the edge
    found = compare(Exported(model()), inverted, [(pixels, masks)], INFO.class_names)
    assert found.difference > 0.5
    assert found.other_classes > 0.7
    assert found.scores["dice_fg"][0] > 0.8
    assert found.scores["dice_fg"][1] < 0.2


def test_half_is_half_as_large_and_nearly_the_same(onnx_bytes):
    graph = Exported(model(), half=True)
    content, _ = write(graph, INFO, "onnx")
    assert len(content) < 0.6 * len(onnx_bytes)
    pixels = images(2, 32, 32)
    _, probabilities = runner(content, "onnx")(pixels)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected(pixels)[1], atol=0.02)


class Branching(torch.nn.Module):
    def forward(self, pixels):
        return pixels if pixels.sum() > 0 else -pixels


def test_what_cannot_be_expressed_is_one_line_that_names_other_formats():
    graph = Exported(TrainedModel(INFO, Branching()))
    for form, instead in (("onnx", "torch.export or torchscript"), ("torch.export", "torchscript")):
        with pytest.raises(CardamageError, match=f"try --to {instead}$") as raised:
            write(graph, INFO, form)
        assert "\n" not in str(raised.value)


def test_encoders_that_pad_by_the_size_are_of_one_size():
    class Conv2dSame(torch.nn.Conv2d):
        pass

    assert side_multiple(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1))) == 32
    assert side_multiple(torch.nn.Sequential(Conv2dSame(3, 3, 1))) == 0


def test_the_command_writes_what_it_checked(bright, onnx_bytes, monkeypatch):
    printed = bright.succeeds("jobs/export.py", "bright", "--to", "torchscript")
    path = bright.folder / "runs" / "bright" / "export" / "epoch-0001.ts"
    assert printed.startswith("runs/bright/export/epoch-0001.ts\n")
    assert "4 images of noise" in printed
    content = path.read_bytes()
    monkeypatch.chdir(bright.folder)
    monkeypatch.setattr("cardamage.export.export.runner", lambda *_: wrong)
    with pytest.raises(CardamageError, match="nothing is written"):
        export(chosen("bright"), "torchscript", out=None, half=False, most=None)
    assert path.read_bytes() == content
    assert "--check 0" in bright.refuses("jobs/export.py", "bright", "--check", "0")
    (bright.folder / "bright.onnx").write_bytes(onnx_bytes)
    assert "exported already" in bright.refuses("jobs/export.py", "bright.onnx")


def wrong(pixels):
    classes, probabilities = expected(pixels)
    return classes, probabilities[:, ::-1]


def chosen(word):
    return choose_model(word, "best", Path("runs"), device="cpu")


def test_a_missing_package_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr("cardamage.errors.find_spec", lambda _: None)
    for action in (
        lambda: write(Exported(model()), INFO, "onnx"),
        lambda: OnnxModel.open(tmp_path / "model.onnx"),
    ):
        with pytest.raises(ConfigError, match=r"cardamage-runner\[export\]"):
            action()


def test_the_test_split_of_a_run_is_what_it_is_checked_on(toy):
    run = RunPaths(toy.folder / "runs" / "toy")
    experiment, _ = resolve(run.root)
    info = replace(
        INFO,
        model=experiment.model.model_dump(mode="json"),
        class_names=experiment.data.class_names,
        image_size=experiment.data.image_size,
        config_hash=experiment.hash(),
    )
    torch.manual_seed(0)
    weights = build_model(experiment.model, len(info.class_names)).state_dict()
    save_checkpoint(run.checkpoint(1), weights, info)
    (reader,) = packed_splits(run, experiment, "test")
    words = ("toy", "--checkpoint", "last", "--to", "torchscript")
    printed = toy.succeeds("jobs/export.py", *words)
    assert f"on {len(reader)} images of test:" in printed
    scores = {line.split()[0]: line.split()[1:] for line in printed.splitlines()[4:]}
    assert scores.keys() == set(SCORES)
    for here, there in scores.values():
        assert here == there
    assert 0 <= float(scores["accuracy"][0]) <= 1
    assert "on 2 images of test:" in toy.succeeds("jobs/export.py", *words, "--check", 2)
