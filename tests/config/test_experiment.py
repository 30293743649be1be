"""The experiment file: what is accepted, what is refused and with which words."""

import time
from pathlib import Path
from typing import Any

import pytest

from cardamage.config import experiment as config
from cardamage.config import loading, recipe, yaml12
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
    return loading.parse(yaml12.load(MINIMAL), overrides)


def refused_file(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "e.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        loading.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


def test_minimal_file_gets_the_defaults(tmp_path: Path):
    path = tmp_path / "e.yaml"
    path.write_text(MINIMAL)
    loaded = loading.load(path)
    assert loaded.seed == 0
    assert loaded.data.image_size == (240, 240)
    assert loaded.data.class_names == ("background", "scratch", "dent")
    assert loaded.loss == recipe.CrossEntropy()
    assert loaded.optim == recipe.Adam(name="adam", lr=0.001)
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
    loading.parse(values, ["data.source=elsewhere"])
    assert values == yaml12.load(MINIMAL)


def test_override_may_hold_an_equals_sign():
    assert Path(parsed("data.source=a=b").data.source).name == "a=b"


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
        (
            MINIMAL.replace("model: {", "modle: {"),
            (
                'modle: unknown key (did you mean "model"?); allowed here: name, seed, data, '
                "model, continue_from, loss, optim, schedule, ema, augment, train, test, track, "
                "notify"
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
        loading.load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        loading.load(tmp_path)


def test_resolved_config_is_read_back_as_it_was(tmp_path: Path):
    path = tmp_path / "config.yaml"
    first = parsed("data.classes={on: ['3e-4'], b: [dent]}", "optim.lr=3e-4", "name=1e3x")
    path.write_text(first.to_yaml())
    assert loading.load(path) == first
    assert loading.load(path).hash() == first.hash()
    assert loading.load(path).to_yaml() == first.to_yaml()


@pytest.mark.parametrize(
    "override",
    [
        "name=y",
        "train.epochs=99",
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
    assert loading.differences(experiment, changed) == []


@pytest.mark.parametrize(
    ("override", "difference"),
    [
        ("seed=1", "seed: 0, not 1"),
        ("optim.lr=0.01", "optim.lr: 0.001, not 0.01"),
        ("train.batch_size=8", "train.batch_size: 16, not 8"),
        ("train.mixed_precision=bf16", "train.mixed_precision: no, not bf16"),
        ("train.deterministic=true", "train.deterministic: False, not True"),
        ("train.sync_batchnorm=true", "train.sync_batchnorm: False, not True"),
        ("model.name=unet", "model.name: unet2, not unet"),
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
    assert loading.differences(experiment, changed) == [difference]


def test_another_dataset_makes_another_run_wherever_the_hash_is_the_same(experiment):
    """A dataset may move: what is in it counts, by the fingerprint of its shards."""
    moved = parsed("data.source=other")
    assert loading.differences(experiment, moved)[0].startswith("data.source: ")
    assert moved.hash() == experiment.hash()


def test_a_project_may_be_moved_as_a_whole():
    one = parsed("data.source=/home/data/cars", "data.shards_dir=/home/shards")
    moved = parsed("data.source=/work/data/cars", "data.shards_dir=/work/shards")
    assert loading.differences(one, moved) == []
    other = parsed("data.source=/work/data/vans", "data.shards_dir=/work/shards")
    assert loading.differences(one, other) == ["data.source: /home/data/cars, not /work/data/vans"]


def test_how_a_subset_is_taken_makes_another_run(experiment: config.Experiment):
    one, other = parsed("data.subset=0.5"), parsed("data.subset=0.5", "data.subset_by=name")
    assert loading.differences(one, other) == ["data.subset_by: stratified, not name"]
    assert one.data.packing() != other.data.packing()
    assert loading.differences(experiment, one)[0] == "data.subset: 1.0, not 0.5"


def test_balance_makes_another_run_of_the_same_shards():
    plain, balanced = parsed(), parsed("data.balance=classes")
    assert balanced.data.packing() == plain.data.packing()
    assert loading.differences(plain, balanced) == ["data.balance: none, not classes"]
    assert parsed("data.balance=none").hash() == plain.hash() != balanced.hash()


def test_a_setting_at_its_default_is_no_part_of_the_identity():
    """So a setting that a later version adds leaves older runs what they are."""
    assert parsed("train.batch_size=16").identity() == parsed().identity()
    assert "train" not in parsed().identity()


def test_only_the_dataset_and_its_classes_are_required(tmp_path: Path):
    path = tmp_path / "cars.yaml"
    path.write_text("data: {source: cars.zip, classes: [dent]}\noptim: {lr: 3e-4}\n")
    found = loading.load(path)
    assert found.name == "cars"
    assert found.data.source == str(tmp_path / "cars.zip")  # paths count from the file
    assert (found.optim.name, found.optim.lr) == ("adamw", 3e-4)
    assert found.model.name == "unet2"


def test_a_path_on_the_command_line_counts_from_where_one_stands(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "configs" / "cars.yaml"
    path.parent.mkdir()
    path.write_text("data: {source: cars.zip, classes: [dent]}\n")
    assert loading.load(path).data.source == str(tmp_path / "configs" / "cars.zip")
    assert loading.load(path, ["data.source=cars.zip"]).data.source == str(tmp_path / "cars.zip")
    assert loading.load(path).data.shards_dir == str(tmp_path / "shards")


def test_a_config_that_the_first_version_resolved_is_read(tmp_path: Path, monkeypatch):
    """Its paths counted from where one stood, and it has keys that are no more."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "cars" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(MINIMAL + "train: {horizontal_flip: 0.0, record_samples: false, epochs: 3}\n")
    assert loading.load(path).data.source == str(tmp_path / "data" / "cars")
    path.write_text(path.read_text().replace("record_samples: false", "record_samples: true"))
    with pytest.raises(ConfigError, match="record_samples"):
        loading.load(path)


def test_epochs_belong_to_the_identity_where_the_schedule_spans_them():
    assert parsed("train.epochs=3").hash() == parsed("train.epochs=4").hash()
    one, other = (parsed("schedule.name=cosine", f"train.epochs={epochs}") for epochs in (3, 4))
    assert one.hash() != other.hash()
    assert loading.differences(one, other) == ["train.epochs: 3, not 4"]
    assert parsed("schedule.warmup_epochs=1").hash() != parsed().hash()
    assert parsed("track=[tensorboard]").hash() == parsed().hash()


def test_a_warm_up_as_long_as_training_is_refused():
    parsed("schedule.warmup_epochs=2.5", "train.epochs=3")
    with pytest.raises(ConfigError, match="which is 3; it is 3"):
        parsed("schedule.warmup_epochs=3", "train.epochs=3")


def test_order_of_grouped_classes_makes_another_run():
    one, other = parsed("data.classes={a: [x], b: [y]}"), parsed("data.classes={b: [y], a: [x]}")
    assert one.data.class_names != other.data.class_names
    assert one.hash() != other.hash()
    assert len(loading.differences(one, other)) == 1


def test_keys_of_another_optimiser_are_told_as_absent():
    told = loading.differences(parsed(), parsed("optim={name: sgd, lr: 0.001}"))
    assert "optim.name: adam, not sgd" in told
    assert "optim.momentum: absent, not 0.0" in told


def test_experiment_is_frozen(experiment: config.Experiment):
    with pytest.raises(ValueError, match="frozen"):
        experiment.seed = 1


def test_hash_is_fixed_for_all_time(experiment: config.Experiment):
    """Checkpoints carry it: a change of it makes every earlier run another run."""
    identity: dict[str, Any] = experiment.identity()
    assert list(identity) == ["data", "optim"]
    assert experiment.hash() == "ce1a502239bd00b5"


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
    assert loading.differences(experiment, last) == [
        "continue_from.run: absent, not e2",
        "continue_from.checkpoint: absent, not last",
    ]


@pytest.mark.parametrize(
    ("flip", "augment"),
    [(0.0, []), (0.25, [{"name": "horizontal_flip", "probability": 0.25}])],
)
def test_the_flip_of_earlier_versions_becomes_an_augmentation(flip, augment):
    values = {
        "name": "old",
        "data": {"source": "synthetic", "classes": ["dent"]},
        "model": {"name": "unet2"},
        "optim": {"name": "adam"},
        "train": {"epochs": 2, "horizontal_flip": flip},
    }
    experiment = loading.parse(values)
    assert experiment.model_dump(mode="json")["augment"] == augment
    assert experiment.train.epochs == 2
    again = loading.parse({**values, "train": {"epochs": 2}, "augment": augment})
    assert again.hash() == experiment.hash()
