"""Sweep and study files: what they stand for, and what is wrong with them."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from cardamage.config import yaml12
from cardamage.config.loading import is_study, parse
from cardamage.config.study import Study, expand
from cardamage.config.study_file import json_schema
from cardamage.errors import ConfigError

BASE = """\
name: base
seed: 7
data: {source: synthetic, classes: [scratch, dent], image_size: [32, 32]}
model: {name: segnet2}
optim: {name: adam, lr: 0.5}
train: {epochs: 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    return tmp_path


def expanded(folder: Path, text: str, *overrides: str) -> Study:
    path = folder / "file.yaml"
    path.write_text(text)
    return expand(path, yaml12.load(text), overrides)


def sweep(grid: str, more: str = "") -> str:
    return f"name: s\nsweep:\n  config: base.yaml\n  grid: {{{grid}}}\n{more}"


def names(study: Study) -> list[str]:
    return [experiment.name for experiment in study.experiments]


def test_a_sweep_is_every_combination(folder: Path):
    study = expanded(folder, sweep("optim.lr: [1e-3, 1e-4], seed: [0, 1, 2]"))
    assert names(study) == [
        "s-lr_0.001-seed_0",
        "s-lr_0.001-seed_1",
        "s-lr_0.001-seed_2",
        "s-lr_0.0001-seed_0",
        "s-lr_0.0001-seed_1",
        "s-lr_0.0001-seed_2",
    ]
    found = [(each.optim.lr, each.seed) for each in study.experiments]
    assert found == [(lr, seed) for lr in (0.001, 0.0001) for seed in (0, 1, 2)]
    assert {each.train.epochs for each in study.experiments} == {2}
    assert (study.name, dict(study.compare)) == ("s", {})


def test_overrides_go_grid_over_file_and_command_line_over_all(folder: Path):
    text = sweep("seed: [0, 1]", "  overrides: {train.epochs: 5, train.batch_size: 3}\n")
    study = expanded(folder, text, "train.epochs=9", "optim={name: sgd}")
    for each in study.experiments:
        assert (each.train.epochs, each.train.batch_size, each.optim.name) == (9, 3, "sgd")


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("model.name: [unet, unet2]", ["s-name_unet", "s-name_unet2"]),
        ("model: [{name: unet}, {name: unet2}]", ["s-model_unet", "s-model_unet2"]),
        (
            "model.name: [unet, unet2], optim.name: [adam]",
            ["s-model.name_unet-optim.name_adam", "s-model.name_unet2-optim.name_adam"],
        ),
        (
            "optim: [{name: adam, lr: 0.1}, {name: sgd, momentum: 0.9}]",
            ["s-optim_adam-0.1", "s-optim_sgd-0.9"],
        ),
        ("data.image_size: [[32, 32], [64, 32]]", ["s-image_size_32-32", "s-image_size_64-32"]),
        ('train.mixed_precision: ["no"], seed: [1]', ["s-mixed_precision_no-seed_1"]),
        ("optim.lr: [1e-30, 1e+30, 1]", ["s-lr_1e-30", "s-lr_1e30", "s-lr_1"]),
        ("test.batch_size: [null, 4]", ["s-batch_size_null", "s-batch_size_4"]),
    ],
)
def test_runs_are_named_after_their_values(folder: Path, grid: str, expected: list[str]):
    assert names(expanded(folder, sweep(grid))) == expected


def test_values_that_names_cannot_hold_get_a_hash(folder: Path):
    first, second = names(expanded(folder, sweep('data.source: ["a b/c", "a-b-c"]')))
    assert re.fullmatch(r"s-source_a-b-c-[0-9a-f]{8}", first)
    assert second == "s-source_a-b-c"
    (long,) = names(expanded(folder, sweep(f"data.source: [{'x' * 300}]")))
    assert re.fullmatch(r"s-source_x{24}-[0-9a-f]{8}", long)


def test_adding_values_renames_no_run(folder: Path):
    few = names(expanded(folder, sweep("seed: [0, 1], optim.lr: [0.1]")))
    many = names(expanded(folder, sweep("seed: [2, 1, 0], optim.lr: [0.2, 0.1]")))
    assert set(few) < set(many)


def test_long_names_and_equal_ones_are_told_apart(folder: Path):
    text = sweep("data.source: ['1', 1, synthetic]").replace("name: s", f"name: {'s' * 97}")
    with pytest.raises(ConfigError, match=r"run s{91}-[0-9a-f]{8}: .*data.source: must be"):
        expanded(folder, text)  # 1 is no string, but its run has another name than '1'


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (sweep("optim.rl: [1]"), "run s-rl_1: .*base.yaml: optim.rl: unknown key .*lr"),
        (sweep("optim.lr: [1, -1]"), "run s-lr_-1: .*optim.lr: must be greater than 0"),
        (sweep("optim.lr: []"), r"sweep.grid.optim.lr: has too few values.*it is \[\]"),
        (sweep(""), "sweep: needs a grid"),
        (sweep("seed: [1, 2, 1]"), "sweep: grid lists 1 twice for seed; keep one"),
        (sweep("seed: 1"), "sweep.grid.seed: must be a list"),
        (sweep("name: [a, b]"), "run s-name_a: .* the key name cannot be given; drop it"),
        (sweep("seed: [1]", "  overrides: {seed: 2}\n"), "sweep: seed is in overrides and in grid"),
        (sweep("seed: [1]", "  overide: {}\n"), r'sweep.overide: unknown key.*"overrides"'),
        (sweep("seed: [1]", "epochs: 3\n"), "epochs: unknown key.*name, sweep"),
        (sweep("seed: [1]").replace("name: s", "name: a/b"), "name: has characters"),
        (sweep("seed: [1]").replace("base", "gone"), ".*gone.yaml: there is no such config file"),
        (sweep("seed: [1]").replace("base", "file"), ".*file.yaml is no experiment but a study"),
        (sweep("a b: [1]"), 'run s-.*: "a b=1" is no override'),
        (sweep("seed: [1]", "experiments: {}\n"), "has both sweep and experiments"),
        ("name: s\nsweep: {grid: {seed: [1]}}", "sweep.config: this key is required"),
        ("name: s\nsweep: 3", "sweep: must hold keys and values"),
        ("sweep: {config: base.yaml, grid: {seed: [1]}}", "name: this key is required"),
    ],
)
def test_wrong_sweeps(folder: Path, text: str, error: str):
    with pytest.raises(ConfigError, match=f"file.yaml: {error}"):
        expanded(folder, text)


def test_too_many_runs(folder: Path):
    grid = f"seed: {list(range(40))}, train.epochs: {list(range(1, 41))}"
    with pytest.raises(ConfigError, match=r"sweep.grid: makes 1600 runs; at most 1000"):
        expanded(folder, sweep(grid))


@pytest.mark.parametrize("override", ["seed=3", "seed.x=3"])
def test_what_is_swept_over_cannot_be_overridden(folder: Path, override: str):
    with pytest.raises(ConfigError, match=f"{override} cannot be laid over .* sweeps over seed"):
        expanded(folder, sweep("seed: [0, 1]"), override)


def test_section_that_is_swept_over_cannot_be_overridden(folder: Path):
    with pytest.raises(ConfigError, match=r"sweeps over optim.lr"):
        expanded(folder, sweep("optim.lr: [0, 1]"), "optim={name: sgd}")


def test_name_is_not_for_all(folder: Path):
    with pytest.raises(ConfigError, match=r"name=x would give all runs of .* one name"):
        expanded(folder, sweep("seed: [0, 1]"), "name=x")


STUDY = """\
name: study
experiments:
  e1: {config: base.yaml}
  e2: {config: base.yaml, overrides: {optim.lr: 0.25, train: {epochs: 4}}}
  e3: {config: more/other.yaml}
compare:
  - {name: rates, runs: [e2, e1]}
"""


def test_a_study_lists_experiments(folder: Path):
    (folder / "more").mkdir()
    (folder / "more/other.yaml").write_text(BASE.replace("name: base", "name: its own"))
    study = expanded(folder, STUDY, "seed=4")
    assert names(study) == ["study-e1", "study-e2", "study-e3"]
    assert [each.optim.lr for each in study.experiments] == [0.5, 0.25, 0.5]
    assert [each.train.epochs for each in study.experiments] == [2, 4, 2]
    assert {each.seed for each in study.experiments} == {4}
    assert dict(study.compare) == {"rates": ("study-e2", "study-e1")}


def test_a_study_whose_runs_are_named_by_the_key_alone_keeps_them(folder: Path):
    (folder / "more").mkdir()
    (folder / "more/other.yaml").write_text(BASE)
    text = STUDY.replace(
        "e3: {config: more/other.yaml}",
        "e3: {config: more/other.yaml, overrides:"
        " {continue_from: {run: e1}}}\n"
        "  e4: {config: base.yaml, overrides: {continue_from.run: e3}}",
    )
    (folder / "file.yaml").write_text(text)
    study = expand(folder / "file.yaml", yaml12.load(text), unprefixed=("e1", "e2", "e3"))
    assert names(study) == ["e1", "e2", "e3", "study-e4"]
    sources = [each.continue_from and each.continue_from.run for each in study.experiments]
    assert sources == [None, None, "e1", "e3"]
    assert dict(study.compare) == {"rates": ("e2", "e1")}
    sources = [
        each.continue_from and each.continue_from.run for each in expanded(folder, text).experiments
    ]
    assert sources == [None, None, "study-e1", "study-e3"]


def changed(**parts: Any) -> str:
    return json.dumps({"name": "study", "experiments": {"e1": {"config": "base.yaml"}}, **parts})


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (changed(experiments={}), "experiments: has too few values"),
        (
            changed(experiments={"e 1": {"config": "base.yaml"}}),
            'experiments: "e 1" names the run directory study-e 1',
        ),
        (
            changed(experiments={"e1": {"config": "x", "overide": {}}}),
            'experiments.e1.overide: unknown.*"overrides"',
        ),
        (changed(experiments={"e1": {}}), "experiments.e1.config: this key is required"),
        (changed(experiments={"e1": 3}), "experiments.e1: must hold keys and values"),
        (
            changed(experiments={"e1": {"config": "base.yaml", "overrides": {"name": "x"}}}),
            "run study-e1: .* the key name cannot be given; drop it",
        ),
        (
            changed(experiments={"e1": {"config": "base.yaml", "overrides": {"sed": 1}}}),
            'run study-e1: .*base.yaml: sed: unknown key .*"seed"',
        ),
        (changed(compare=[{"name": "a", "runs": ["e1"]}]), r"compare\[0\].runs: has too few"),
        (changed(compare=[{"runs": ["e1", "e1"]}]), r"compare\[0\].name: this key is required"),
        (changed(compare=[3]), r"compare\[0\]: must hold keys and values"),
        (
            changed(compare=[{"name": "a", "runs": ["e1", "e9"]}]),
            'compare: "a" compares "e9", which is none',
        ),
        (changed(compare=[{"name": "a", "runs": ["e1", "e1"]}]), 'compare: "a" has "e1" twice'),
        (
            changed(compare=[{"name": "a", "runs": ["e1@1", "e1@x"]}]),
            'compare: "a": "e1@x": "x" is no checkpoint; write e1@best',
        ),
        (changed(compare=[{"name": "a", "runs": ["e1", "e9@1"]}]), 'compare: "a" compares "e9"'),
    ],
)
def test_wrong_studies(folder: Path, text: str, error: str):
    with pytest.raises(ConfigError, match=f"file.yaml: {error}"):
        expanded(folder, text)


CHECKPOINTS = STUDY + "  - {name: single, runs: [e2@4, e2@best, e1@2, e3]}\n"


def test_single_checkpoints_are_compared(folder: Path):
    (folder / "more").mkdir()
    (folder / "more/other.yaml").write_text(BASE)
    study = expanded(folder, CHECKPOINTS)
    assert study.compare["single"] == ("study-e2@4", "study-e2@best", "study-e1@2", "study-e3")
    with pytest.raises(ConfigError, match=r'"single" has e1@3, but e1 is trained for 2 epochs; na'):
        expanded(folder, CHECKPOINTS.replace("e1@2", "e1@3"))
    # Where the command line makes runs shorter, the last epoch there is takes its place.
    expanded(folder, CHECKPOINTS, "train.epochs=1")
    expanded(folder, CHECKPOINTS, "train={epochs: 1}")
    with pytest.raises(ConfigError, match="e1 is trained for 2 epochs"):
        expanded(folder, CHECKPOINTS.replace("e1@2", "e1@3"), "seed=3")


def test_two_comparisons_of_one_name(folder: Path):
    text = STUDY + "  - {name: rates, runs: [e1, e3]}\n"
    with pytest.raises(ConfigError, match='compare has two of the name "rates"'):
        expanded(folder, text)


def test_files_are_told_apart_by_their_keys():
    assert is_study(yaml12.load(STUDY))
    assert is_study({"sweep": "wrong"})
    assert not is_study(yaml12.load(BASE))
    with pytest.raises(ConfigError, match=r"is a sweep or study, not an exp.*cardamage submit"):
        parse(yaml12.load(STUDY))


def test_schema_describes_every_field():
    schema = json.loads(json_schema())
    assert [option["$ref"] for option in schema["anyOf"]] == [
        "#/$defs/SweepFile",
        "#/$defs/StudyFile",
    ]
    for name, found in schema["$defs"].items():
        section = found.get("anyOf", [found])[0]  # a range or a list
        assert section["additionalProperties"] is False
        for key, field in section["properties"].items():
            assert "\n" not in (field.get("description") or "a reference"), f"{name}.{key}"


def test_two_hundred_runs_are_quick(folder: Path):
    started = time.process_time()
    study = expanded(folder, sweep(f"seed: {list(range(20))}, optim.lr: {list(range(1, 11))}"))
    assert len(set(names(study))) == 200
    assert time.process_time() - started < 0.5
