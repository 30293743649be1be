import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from cardamage.config.loading import parse
from cardamage.config.recipe import SegNet, UNet
from cardamage.errors import CheckpointError
from cardamage.models import build_model
from cardamage.training.checkpoint import (
    CheckpointInfo,
    check_belongs,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)

INFO = CheckpointInfo(
    epoch=3,
    model={"name": "segnet2", "softmax_output": False},
    class_names=("background", "a dent", "<b>"),
    image_size=(64, 48),
    config_hash="0123456789abcdef",
)

EXPERIMENT = {
    "data": {"source": "cars", "classes": ["a dent", "<b>"], "image_size": [64, 48]},
    "model": {"name": "segnet2"},
}


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = build_model(SegNet(name="segnet2"), 3)
    path = tmp_path / "checkpoints" / "epoch-0003.safetensors"
    save_checkpoint(path, model.state_dict(), INFO)
    return path, model


def test_a_checkpoint_gives_back_every_weight_and_what_it_says_of_itself(saved):
    path, model = saved
    checkpoint = load_checkpoint(path)
    assert checkpoint.info == INFO
    assert checkpoint.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    other = build_model(SegNet(name="segnet2"), 3)
    load_weights(other, checkpoint, path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_equal_weights_make_equal_files(saved):
    path, model = saved
    for number in range(5):  # the order of chance would differ at one of these
        again = path.with_name(f"epoch-{number + 10:04d}.safetensors")
        save_checkpoint(again, model.state_dict(), INFO)
        assert again.read_bytes() == path.read_bytes()


def test_a_checkpoint_is_published_whole_with_nothing_left_beside_it(saved):
    path, _ = saved
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"epoch-0009\.safetensors does not exist"):
        load_checkpoint(tmp_path / "epoch-0009.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_cut_checkpoint_is_refused(saved, keep):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("where", [0.0, 0.3, 0.9, 1.0])
def test_a_flipped_bit_is_noticed(saved, where):
    path, _ = saved
    content = bytearray(path.read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    content[header + int(where * (len(content) - header - 1))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"0003\.safetensors is damaged .*restore it, or"):
        load_checkpoint(path)


def test_no_flipped_bit_of_the_header_goes_unnoticed(saved):
    path, _ = saved
    whole = path.read_bytes()
    for position in range(0, 8 + int.from_bytes(whole[:8], "little"), 7):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def of_the_first_version(path, model, *, hashed):
    """Rewrite ``path`` as the first version wrote it: a key for each fact, hash of the bytes."""
    metadata = {
        "epoch": "3",
        "model": json.dumps(INFO.model),
        "class_names": json.dumps(INFO.class_names),
        "image_size": json.dumps(INFO.image_size),
        "config_hash": INFO.config_hash,
    }
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, path, metadata)
    if hashed:
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header, data = json.loads(content[8:end]), content[end:]
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        digest = hashlib.sha256(compact(header) + data).hexdigest()
        header["__metadata__"]["sha256"] = digest
        text = compact(header)
        text += b" " * (-len(text) % 8)
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def compact(header):
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("hashed", [False, True])
def test_a_checkpoint_of_the_first_version_is_read(saved, hashed):
    path, model = saved
    of_the_first_version(path, model, hashed=hashed)
    assert load_checkpoint(path).info == replace(INFO, version=None)


def test_a_flipped_bit_of_a_checkpoint_of_the_first_version_is_noticed(saved):
    path, model = saved
    of_the_first_version(path, model, hashed=True)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for position in (*range(0, header, 7), header, (header + len(whole)) // 2, len(whole) - 1):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path)


def test_safetensors_of_another_program_are_refused(tmp_path):
    path = tmp_path / "epoch-0001.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of cardamage"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("model", "classes"), [(UNet(name="unet"), 3), (SegNet(name="segnet2"), 4)]
)
def test_the_weights_of_another_model_are_refused(saved, model, classes):
    path, _ = saved
    with pytest.raises(CheckpointError, match="weights of segnet2 for 3 classes, which do not fit"):
        load_weights(build_model(model, classes), load_checkpoint(path), path)


def test_a_checkpoint_of_another_config_is_refused(saved):
    path, _ = saved
    experiment = parse({**EXPERIMENT, "seed": 1})
    with pytest.raises(CheckpointError, match=f"hash 0123456789abcdef, not {experiment.hash()}"):
        check_belongs(load_checkpoint(path), experiment, path)


def test_a_checkpoint_of_the_first_version_belongs_by_its_model_classes_and_size(saved):
    path, _ = saved
    checkpoint = load_checkpoint(path)
    old = replace(checkpoint, info=replace(checkpoint.info, version=None))
    check_belongs(old, parse(EXPERIMENT), path)
    for other in (
        {"model": {"name": "segnet3"}},
        {"data": {**EXPERIMENT["data"], "classes": ["a"]}},
    ):
        with pytest.raises(CheckpointError, match="another config"):
            check_belongs(old, parse({**EXPERIMENT, **other}), path)
