"""Pretrained weights: where they come from, what of them fits, and what is refused."""

import re
import socket

import pytest
import torch
from safetensors.torch import save_file

from cardamage.config.recipe import SmpModel
from cardamage.errors import CheckpointError, ConfigError, of_storage
from cardamage.models import build_model, encoder_of
from cardamage.models.pretrained import cached, checked, fetch, load_pretrained

LITE = SmpModel(name="smp")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    return fetch(LITE, tmp_path_factory.mktemp("weights"))


def plain(network):
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}


def test_imagenet_weights_fill_the_encoder_and_nothing_else(imagenet):
    network = build_model(LITE, 3)
    before = plain(network)
    found = load_pretrained(network, imagenet)
    assert (found.tensors, found.left_out) == (len(encoder_of(network).state_dict()), 0)
    changed = {n for n, t in network.state_dict().items() if not torch.equal(before[n], t)}
    assert changed
    assert all(name.startswith("model.encoder.") for name in changed)
    # Trained on photos: the first filters are far from how they are drawn at random.
    assert network.state_dict()["model.encoder.model.conv_stem.weight"].std() > 0.2


def test_they_are_fetched_once(imagenet):
    written = imagenet.stat().st_mtime_ns
    assert fetch(LITE, imagenet.parent) == imagenet == cached(LITE, imagenet.parent)
    assert imagenet.stat().st_mtime_ns == written
    assert fetch(SmpModel(name="smp", weights="none"), imagenet.parent) is None


def test_a_file_in_place_of_their_folder_is_told_of(tmp_path):
    (tmp_path / "weights").touch()
    with pytest.raises(FileExistsError) as error:
        fetch(LITE, tmp_path / "weights")
    assert re.search(r"weights: File exists; .*remove it", str(of_storage(error.value)))


@pytest.mark.parametrize("kind", ["whole", "encoder", "order", "wrapped"])
def test_files_by_other_names(tmp_path, kind):
    source, network = build_model(LITE, 3), build_model(LITE, 2)  # another count of classes
    encoder = plain(encoder_of(source))
    match kind:
        case "whole":
            save_file(plain(source), file := tmp_path / "w.safetensors")
        case "encoder":
            save_file(encoder, file := tmp_path / "w.safetensors")
        case "order":
            other = {f"_layer.{n}": tensor for n, tensor in enumerate(encoder.values())}
            torch.save(other, file := tmp_path / "w.pth")
        case _:
            inside = {f"module.{name}": tensor for name, tensor in plain(source).items()}
            torch.save({"state_dict": inside, "epoch": 3}, file := tmp_path / "w.pt")
    found = load_pretrained(network, file)
    loaded = encoder_of(network).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in encoder.items())
    assert found.left_out == (2 if kind in ("whole", "wrapped") else 0)  # the last layer


def test_weights_of_another_encoder_are_refused(tmp_path):
    other = build_model(SmpModel(name="smp", encoder="resnet18", weights="none"), 2)
    save_file(plain(encoder_of(other)), tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="of the 288 tensors of this network's encoder"):
        load_pretrained(build_model(LITE, 2), tmp_path / "w.safetensors")


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": print}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no weights that can be read safely"):
        load_pretrained(build_model(LITE, 2), tmp_path / "w.pth")


def test_without_a_network_it_is_said_where_to_fetch(tmp_path, monkeypatch):
    def unreachable(*_):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    for name in ("HTTPS_PROXY", "https_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="submit once from a machine with a network"):
        fetch(SmpModel(name="smp", encoder="resnet18"), tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnet35"}, r'"resnet35" is unknown \(did you mean "resnet'),
        ({"encoder": "tu-no_such_network"}, '"tu-no_such_network" is unknown'),
        ({"architecture": "dpt", "encoder": "tu-vit_tiny_patch16_224"}, "does not suit"),
    ],
)
def test_networks_that_cannot_be_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        checked(SmpModel(name="smp", weights="none", **options), 2, (64, 64))
