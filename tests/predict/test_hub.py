"""Models go to the Hub with their card and come back the same; what it refuses is one line."""

import contextlib
import shutil

import numpy as np
import pytest

import cardamage
from cardamage.errors import CardamageError, ConfigError
from cardamage.predict.hub import fetch, is_repository, push
from tests.helpers import hub
from tests.helpers.bright_network import half_bright, write_run

pytest.importorskip("huggingface_hub")
# Of how it hands bytes to the library that it sends them with.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def there(monkeypatch, tmp_path):
    """A Hub, whose token for writing is set, and a cache of its own."""
    with hub.served() as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", hub.TOKEN)
        yield server


@pytest.fixture
def checkpoint(tmp_path):
    write_run(tmp_path / "runs" / "bright")
    return tmp_path / "runs" / "bright" / "checkpoints" / "epoch-0001.safetensors"


def pushed(checkpoint, repository="jane/damage", **options):
    return push(repository, checkpoint, "# card", **{"private": False, "update": False, **options})


def test_what_was_pushed_is_loaded_by_name(there, checkpoint, tmp_path):
    address = pushed(checkpoint)
    assert address.endswith("/jane/damage")
    files = there.files["jane/damage"]
    assert files["README.md"] == b"# card"
    assert files["model.safetensors"] == checkpoint.read_bytes()
    photo = np.stack([half_bright(40, 60)] * 3, axis=-1)
    expected = cardamage.load_model(checkpoint).predict(photo).class_ids
    shutil.rmtree(tmp_path / "runs")
    with contextlib.chdir(tmp_path):
        found = cardamage.load_model("jane/damage").predict(photo).class_ids
    np.testing.assert_array_equal(found, expected)


def test_a_taken_name_is_refused_unless_it_is_an_update(there, checkpoint):
    pushed(checkpoint)
    there.files["jane/damage"].clear()
    with pytest.raises(ConfigError, match="--update"):
        pushed(checkpoint)
    assert not there.files["jane/damage"]
    pushed(checkpoint, update=True)
    assert there.files["jane/damage"].keys() == {"model.safetensors", "README.md"}


@pytest.mark.parametrize("token", ["hf_wrong", hub.READER])
def test_a_token_that_may_not_write_is_one_line(there, checkpoint, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError, match="HF_TOKEN") as raised:
        pushed(checkpoint)
    assert "\n" not in str(raised.value)
    assert not there.files


def test_what_is_not_there_and_no_network_are_one_line(there, checkpoint, monkeypatch):
    with pytest.raises(ConfigError, match="check the name"):
        fetch("jane/none")
    there.files["jane/other"] = {"README.md": b""}
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        fetch("jane/other")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for action in (lambda: fetch("jane/damage"), lambda: pushed(checkpoint)):
        with pytest.raises(CardamageError, match="cannot be reached"):
            action()


def test_which_words_name_a_repository(tmp_path):
    (tmp_path / "runs").mkdir()
    with contextlib.chdir(tmp_path):
        assert is_repository("jane/damage")
        assert is_repository("jane/damage-1.5")
        for word in (
            "models/a.onnx",
            "damage",
            "runs/damage",
            "a/b/c",
            "/jane/damage",
            "../damage",
            "jane/",
        ):
            assert not is_repository(word), word
    (tmp_path / "runs").rmdir()
    with contextlib.chdir(tmp_path):
        assert not is_repository("runs/damage")
    with pytest.raises(ConfigError, match="user/name"):
        push("damage", tmp_path / "x", "", private=False, update=False)
