"""Networks and pretrained weights, as a submission asks for them."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from cardamage.config import loading
from cardamage.errors import ConfigError, RunError
from cardamage.launch.planning.networks import prepare_networks
from cardamage.runs.paths import RunPaths


def plan(folder, stages=("train",), **model):
    experiment = loading.parse(
        {
            "data": {
                "source": "synthetic",
                "classes": ["scratch"],
                "image_size": [32, 32],
                "shards_dir": str(folder / "shards"),
            },
            "model": {"name": "smp", **model},
        }
    )
    return SimpleNamespace(experiment=experiment, run=RunPaths(folder / "run"), stages=stages)


@pytest.fixture
def no_process(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("another process was asked")

    return lambda: monkeypatch.setattr(subprocess, "run", refuse)


def test_weights_are_fetched_beside_the_shards_and_asked_for_once(tmp_path, no_process):
    prepare_networks([plan(tmp_path), plan(tmp_path)], fetch=True)
    (weights,) = (tmp_path / "weights").glob("*.safetensors")
    (marker,) = (tmp_path / "weights" / "checked").iterdir()
    assert json.loads(marker.read_text()) == {"weights": str(weights)}
    no_process()
    prepare_networks([plan(tmp_path)], fetch=True)
    weights.unlink()
    with pytest.raises(AssertionError, match="another process"):
        prepare_networks([plan(tmp_path)], fetch=True)


def test_a_dry_run_refuses_and_writes_nothing(tmp_path):
    with pytest.raises(ConfigError, match=r'^model.encoder: "resnet35" is unknown'):
        prepare_networks([plan(tmp_path, encoder="resnet35")], fetch=False)
    assert not (tmp_path / "weights").exists()


def test_nothing_is_asked_of_own_networks_or_other_stages(tmp_path, no_process):
    no_process()
    prepare_networks([plan(tmp_path, stages=("test",), encoder="resnet35")], fetch=True)
    own = loading.parse({"data": {"source": "synthetic", "classes": ["scratch"]}})
    of_own = SimpleNamespace(experiment=own, run=RunPaths(tmp_path / "run"), stages=("train",))
    prepare_networks([of_own], fetch=True)


def test_weights_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        prepare_networks([plan(tmp_path, weights=str(tmp_path / "w.pth"))], fetch=True)
    with pytest.raises(RunError, match="is no run directory"):
        prepare_networks([plan(tmp_path, weights="other")], fetch=True)
