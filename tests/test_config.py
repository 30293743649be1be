"""The experiment file: what is accepted, what is refused and with which words."""

import time
from pathlib import Path
from typing import Any

import pytest

from cardamage import config, yaml12
from cardamage.errors import ConfigError

MINIMAL = """\
name: x
data: {source: data/cars, classes: [scratch, dent]}
model: {name: unet2}
optim: {name: adam}
"""


@pytest.fixture
def experiment() -> config.Experiment:
    return parsed()


def parsed(*overrides: str) -> config.Experiment:
    return config.parse(yaml12.load(MINIMAL), overrides)


def refused_file(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "e.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_minimal_file_gets_the_defaults(tmp_path: Path):
    path = tmp_path / "e.yaml"
    path.write_text(MINIMAL)
    loaded = config.load(path)
    assert loaded.seed == 0
    assert loaded.data.image_size == (240, 240)
    assert loaded.data.class_names == ("background", "scratch", "dent")
    assert loaded.loss == config.CrossEntropy()
    assert loaded.optim == config.Adam(name="adam", lr=0.001)
    assert loaded.train.batch_size == 16
    assert loaded.test.split == "test"


def test_overrides_are_laid_over_by_dotted_key():
    changed = parsed(
        "optim.lr=3e-4",
        "train.mixed_precision=no",  # false in YAML 1.1
        "data.image_size=[64, 96]",
        "data.synthetic.size=32",
        "name=y",
    )
    assert changed.optim.lr == 0.0003
    assert changed.train.mixed_precision == "no"
    assert changed.data.image_size == (64, 96)
    assert changed.data.synthetic.size == 32
    assert changed.name == "y"


def test_last_override_of_a_key_wins():
    assert parsed("seed=1", "seed=2").seed == 2


def test_overrides_leave_the_given_values_alone():
    values = yaml12.load(MINIMAL)
    config.parse(values, ["data.source=elsewhere"])
    assert values == yaml12.load(MINIMAL)


def test_override_may_hold_an_equals_sign():
    assert parsed("data.source=a=b").data.source == "a=b"


def test_classes_may_group_and_rename_categories():
    changed = parsed("data.classes={damage: [scratch, dent], lamp: [far_hasar]}")
    assert changed.data.class_groups == {"damage": ("scratch", "dent"), "lamp": ("far_hasar",)}
    assert changed.data.class_names == ("background", "damage", "lamp")


def test_any_size_suits_torchvision_models():
    assert parsed("model.name=fcn_resnet50", "data.image_size=[100, 101]").data.image_size == (
        100,
        101,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; a config is a mapping of keys to values"),
        (
            "name: x\ndata:\n\tsource: x",
            "line 3: a tab stands where YAML allows none; indent with spaces",
        ),
        (
            "name: x\n---\nname: y",
            "line 2: a second document begins; a config is one, so remove the line ---",
        ),
        ("- a\n", "is a list; a config is a mapping of keys to values"),
        (MINIMAL + "seed: 1\nseed: 2\n", 'line 6: the key "seed" is given twice; keep one of them'),
        (MINIMAL + "3: 1\n", "line 5: the key 3 is not a string; put it in quotes"),
        (MINIMAL + "seed: [1\n", None),
        (MINIMAL + "---\n" + MINIMAL, None),
        (MINIMAL + "test: !!python/name:os.system x\n", None),
        (MINIMAL + "test: \0\n", None),
        ("name: \xff\n".encode("latin1"), None),
        (MINIMAL.replace("model: {name: unet2}\n", ""), "model: this key is required"),
        (
            MINIMAL.replace("model: {", "modle: {"),
            (
                'modle: unknown key (did you mean "model"?); allowed here: name, seed, data, '
                "model, continue_from, loss, optim, train, test (and 1 more)"
            ),
        ),
        (MINIMAL + "train: {epochs: 1_0}\n", 'train.epochs: must be a valid integer; it is "1_0"'),
        (MINIMAL + f"seed: {'9' * 5000}\n", None),
        (MINIMAL + "seed: " + "[" * 3000, None),
        (MINIMAL + "train: &a {epochs: *a}\n", None),
    ],
)
def test_refused_file(tmp_path: Path, content: str | bytes, message: str | None):
    told = refused_file(tmp_path, content)
    assert message is None or told == message


def test_aliases_cannot_blow_a_file_up(tmp_path: Path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    started = time.monotonic()
    refused_file(tmp_path, MINIMAL + bomb)
    assert time.monotonic() - started < 2


def test_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no such config file"):
        config.load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path)


def test_resolved_config_is_read_back_as_it_was(tmp_path: Path):
    path = tmp_path / "config.yaml"
    first = parsed("data.classes={on: ['3e-4'], b: [dent]}", "optim.lr=3e-4", "name=1e3x")
    path.write_text(first.to_yaml())
    assert config.load(path) == first
    assert config.load(path).hash() == first.hash()
    assert config.load(path).to_yaml() == first.to_yaml()


@pytest.mark.parametrize(
    "override",
    [
        "name=y",
        "train.epochs=99",
        "train.record_samples=true",
        "train.save_minutes=null",
        "train.save_steps=7",
        "train.deterministic=false",
        "test.split=valid",
        "test.overlays=0",
        "data.workers=0",
        "data.shards_dir=elsewhere",
        "data.subset_by=stratified",  # of everything
        "data.classes={scratch: [scratch], dent: [dent]}",  # the same, spelled out
    ],
)
def test_what_leaves_it_the_same_run(experiment: config.Experiment, override: str):
    changed = parsed(override)
    assert changed.hash() == experiment.hash()
    assert config.differences(experiment, changed) == []


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed: 0, not 1"),
        ("optim.lr=0.01", "optim.lr: 0.001, not 0.01"),
        ("data.subset=0.5", "data.subset: 1.0, not 0.5"),
        ("train.batch_size=8", "train.batch_size: 16, not 8"),
        ("train.mixed_precision=bf16", "train.mixed_precision: no, not bf16"),
        ("train.deterministic=true", "train.deterministic: absent, not True"),
        ("train.sync_batchnorm=true", "train.sync_batchnorm: absent, not True"),
        ("model.name=unet", "model.name: unet2, not unet"),
        ("data.source=other", "data.source: data/cars, not other"),
        (
            "data.classes=[dent, scratch]",
            (
                "data.classes: [{'scratch': ['scratch']}, {'dent': ['dent']}], "
                "not [{'dent': ['dent']}, {'scratch': ['scratch']}]"
            ),
        ),
    ],
)
def test_what_makes_it_another_run(experiment: config.Experiment, override: str, difference: str):
    changed = parsed(override)
    assert changed.hash() != experiment.hash()
    assert config.differences(experiment, changed) == [difference]


def test_how_a_subset_is_taken_makes_another_run():
    one, other = parsed("data.subset=0.5"), parsed("data.subset=0.5", "data.subset_by=stratified")
    assert config.differences(one, other) == ["data.subset_by: absent, not stratified"]
    assert one.data.packing() != other.data.packing()


def test_order_of_grouped_classes_makes_another_run():
    one, other = parsed("data.classes={a: [x], b: [y]}"), parsed("data.classes={b: [y], a: [x]}")
    assert one.data.class_names != other.data.class_names
    assert one.hash() != other.hash()
    assert len(config.differences(one, other)) == 1


def test_keys_of_another_optimiser_are_told_as_absent():
    told = config.differences(parsed(), parsed("optim={name: sgd, lr: 0.001}"))
    assert "optim.name: adam, not sgd" in told
    assert "optim.momentum: absent, not 0.0" in told


def test_experiment_is_frozen(experiment: config.Experiment):
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 1


def test_hash_is_fixed_for_all_time(experiment: config.Experiment):
    """Checkpoints carry it: a change of it makes every earlier run another run."""
    identity: dict[str, Any] = experiment.identity()
    assert list(identity) == ["seed", "data", "model", "loss", "optim", "train"]
    assert experiment.hash() == "9920f9fa7ce49d83"


@pytest.mark.parametrize(
    ("continued", "error"),
    [
        ("{run: e2, checkpoint: first}", '"first" is no checkpoint; allowed: best, last, or an'),
        ("{run: e2, checkpoint: 0}", "0 is no checkpoint; allowed: best, last, or an epoch from 1"),
        ("{run: e2, checkpoint: true}", "true is no checkpoint"),
        ("{run: e2, epoch: 3}", "continue_from.epoch: unknown key; allowed here: run, checkpoint"),
        ("{checkpoint: 3}", "continue_from.run: this key is required"),
        ("{run: x}", '"x" is this run itself; name another, or raise train.epochs'),
    ],
)
def test_what_cannot_be_continued(continued: str, error: str):
    with pytest.raises(ConfigError) as caught:
        parsed(f"continue_from={continued}")
    assert error in str(caught.value)


def test_what_is_continued_is_part_of_a_run(experiment: config.Experiment):
    last, other = (parsed(f"continue_from={{run: e2, checkpoint: {c}}}") for c in ("last", 3))
    assert len({experiment.hash(), last.hash(), other.hash()}) == 3
    assert config.differences(experiment, last) == [
        "continue_from.run: absent, not e2",
        "continue_from.checkpoint: absent, not last",
    ]
