"""The arguments that all programs have in common."""

from pathlib import Path

import pytest

from cardamage.cli import Parser
from cardamage.commands.arguments import add_experiment, split_overrides
from cardamage.errors import ConfigError


@pytest.mark.parametrize(
    "words",
    [
        ["cars.yaml", "seed=1", "train.epochs=2", "--runs-dir", "else where"],
        ["cars.yaml", "--runs-dir", "else where", "seed=1", "train.epochs=2"],
        ["--runs-dir", "else where", "cars.yaml", "seed=1", "train.epochs=2"],
        ["cars.yaml", "seed=1", "--runs-dir", "else where", "train.epochs=2"],
    ],
)
def test_options_may_stand_anywhere(words):
    parser = Parser()
    add_experiment(parser, example="seed=1")
    arguments = parser.parse_intermixed_args(words)
    assert arguments.config == "cars.yaml"
    assert arguments.overrides == ["seed=1", "train.epochs=2"]
    assert arguments.runs_dir == Path("else where")


def test_the_help_gives_an_example():
    parser = Parser()
    add_experiment(parser, example="optim.lr=3e-4")
    text = parser.format_help()
    assert "as in optim.lr=3e-4" in text
    assert "default: runs" in text


def test_a_file_with_an_equals_sign_is_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=1.yaml").touch()
    words = ["lr=1.yaml", "optim.lr=2", "other.yaml"]
    assert split_overrides(words) == (["lr=1.yaml", "other.yaml"], ["optim.lr=2"])


def test_overrides_alone_are_refused():
    with pytest.raises(ConfigError, match=r"only seed=1 is given; name a YAML file"):
        split_overrides(["seed=1"])
