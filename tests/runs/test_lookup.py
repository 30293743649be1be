"""What a word of a command line means."""

import json
from pathlib import Path

import pytest

from cardamage.config.shipped import CONFIGS
from cardamage.errors import ConfigError, RunError
from cardamage.runs.lookup import find_run, locate

CONFIG = "data: {source: synthetic, classes: [dent]}\n"
RUNS = Path("runs")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str) -> Path:
    folder = RUNS / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {name}\n{CONFIG}")
    return folder


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_name_means_the_file_here(suffix: str):
    Path(f"mine{suffix}").write_text(CONFIG)
    assert locate("mine") == Path(f"mine{suffix}")
    run("mine")
    assert locate("mine") == Path(f"mine{suffix}")  # the file of this very run
    assert find_run("mine").root == RUNS / "mine"
    assert find_run(f"mine{suffix}").root == RUNS / "mine"


def test_a_name_means_a_run_and_then_what_is_shipped():
    assert locate("smoke") == CONFIGS / "smoke.yaml"
    assert locate("smoke_rates").is_file()
    run("smoke")
    assert locate("smoke") == RUNS / "smoke"
    assert locate("runs/smoke") == RUNS / "smoke"


def test_a_folder_of_that_name_is_not_in_the_way():
    Path("smoke").mkdir()
    assert locate("smoke") == CONFIGS / "smoke.yaml"


def test_a_name_that_is_a_file_and_another_run_is_refused():
    Path("mine.yaml").write_text(f"name: other\n{CONFIG}")
    run("mine")
    with pytest.raises(ConfigError) as caught:
        locate("mine")
    assert "say mine.yaml or runs/mine" in str(caught.value)
    assert locate("mine.yaml") == Path("mine.yaml")
    assert locate("runs/mine") == RUNS / "mine"


def test_what_is_not_there_is_told_with_what_is(folder: Path):
    run("segnet_long")
    Path("cars.yml").write_text(CONFIG)
    with pytest.raises(ConfigError) as caught:
        locate("segnet_lon")
    assert 'did you mean "segnet_long"?' in str(caught.value)
    assert str(folder / "segnet_lon.yaml") in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        locate("cars.yaml")
    assert f"{folder / 'cars.yaml'} does not exist" in str(caught.value)
    assert 'did you mean "cars.yml"?' in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        locate("runs")
    assert str(folder / "runs.yaml") in str(caught.value)
    with pytest.raises(RunError) as caught:
        find_run("cars")
    assert "has not been run" in str(caught.value)
    assert "cardamage submit cars" in str(caught.value)
    with pytest.raises(RunError) as caught:
        find_run("segnet-long")
    assert f'(did you mean "segnet_long"?) in {folder / "runs"}' in str(caught.value)


def test_runs_of_a_study_go_by_either_name():
    for name, members in (("nets", ("nets-small", "old")), ("more", ("more-deep", "more-small"))):
        (RUNS / name).mkdir(parents=True, exist_ok=True)
        record = {"name": name, "source": "x.yaml", "runs": members}
        (RUNS / name / "study.json").write_text(json.dumps(record))
        for member in members:
            run(member)
    assert find_run("deep").root == RUNS / "more-deep"
    assert find_run("nets-old").root == RUNS / "old"
    assert locate("deep") == RUNS / "more-deep"
    with pytest.raises(RunError, match='studies have a run "small": more-small, nets-small; name'):
        find_run("small")
