"""The arguments that all programs have in common."""

from pathlib import Path

import pytest

from cardamage.command_line import experiment_parser, split_overrides
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
    arguments = experiment_parser("Train.", example="seed=1").parse_intermixed_args(words)
    assert arguments.config == Path("cars.yaml")
    assert arguments.overrides == ["seed=1", "train.epochs=2"]
    assert arguments.runs_dir == Path("else where")


def test_the_help_is_the_first_line_of_the_program():
    text = experiment_parser("Train it.\n\nMore.", example="optim.lr=3e-4").format_help()
    assert "Train it." in text
    assert "More" not in text
    assert "as in optim.lr=3e-4" in text
    assert "default: runs" in text


def test_a_file_with_an_equals_sign_is_a_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=1.yaml").touch()
    words = ["lr=1.yaml", "optim.lr=2", "other.yaml"]
    assert split_overrides(words) == ([Path("lr=1.yaml"), Path("other.yaml")], ["optim.lr=2"])


def test_overrides_alone_are_refused():
    with pytest.raises(ConfigError, match=r"only seed=1 is given; name a YAML file"):
        split_overrides(["seed=1"])
