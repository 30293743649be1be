"""Repeats of one setting: one line, one lead, and as sure as their number allows."""

import dataclasses

import numpy as np
import pytest

from cardamage.config import loading
from cardamage.report import comparison
from cardamage.report.lead import alike, leading, rivals_of
from cardamage.report.load import load_run
from cardamage.report.notices import comparison_notices
from cardamage.report.repeats import differing, flat_configs, grid_of, group_runs, sweep_of
from tests.helpers.finished_runs import make_run

VALIDATION = {"0.01": (0.80, 0.60, 0.595), "0.001": (0.74, 0.735, 0.739)}
"""A sweep whose best single score is a lucky seed of the worse rate: 0.665 against 0.738."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    run = make_run(tmp_path_factory.mktemp("runs") / "base", epochs=2)
    return load_run(run, loading.load(run.config))


def variant(base, name, *, valid=None, **changes):
    """A run with other settings, as in ``optim__lr``, and another best validation score."""
    experiment = base.experiment.model_dump(mode="json")
    for key, value in changes.items():
        *path, last = key.split("__")
        section = experiment
        for part in path:
            section = section[part]
        section[last] = value
    run = dataclasses.replace(base.run, root=base.run.root.parent / name)
    metrics = base.metrics
    if valid is not None:
        values = np.full(len(base.epochs), valid - 0.1)
        values[base.epochs.index(base.best)] = valid
        metrics = metrics | {"val_dice_fg": values}
    return dataclasses.replace(
        base,
        run=run,
        metrics=metrics,
        experiment=type(base.experiment).model_validate(experiment),
    )


@pytest.fixture(scope="module")
def sweep(base):
    return [
        variant(base, f"lr={lr}-seed={seed}", valid=value, optim__lr=float(lr), seed=seed)
        for lr, values in VALIDATION.items()
        for seed, value in enumerate(values)
    ]


@pytest.fixture(scope="module")
def report(sweep):
    return comparison.comparison_report(sweep)


def groups_of(runs):
    return group_runs(runs, comparison.labels_of(runs))


def test_runs_that_differ_in_the_seed_alone_are_one_setting(sweep):
    groups = groups_of(sweep)

    assert [group.label for group in groups] == ["optim.lr=0.01", "optim.lr=0.001"]
    assert [group.numbers for group in groups] == [(0, 1, 2), (3, 4, 5)]
    assert groups[0].validation("dice_fg") == pytest.approx(0.665)
    assert groups[1].validation("dice_fg") == pytest.approx(0.738)
    assert groups[0].spread("dice_fg") == pytest.approx(np.std(VALIDATION["0.01"], ddof=1))


def test_the_better_rate_leads_and_not_the_lucky_seed(sweep, report):
    assert leading(groups_of(sweep), "dice_fg") == 1
    assert "Checkpoint to use: lr=0.001-seed=0, epoch" in report.page
    assert f"cardamage predict {sweep[3].run.root} " in report.summary
    assert "lr=0.01-seed=0 has the best single score" in report.page  # and is told apart
    assert "| optim.lr=0.001 | 3 | 0.738 ± 0.003 |" in report.summary


def test_settings_that_test_alike_are_not_said_to_differ(sweep, report):
    groups = groups_of(sweep)
    rivals, unpaired = rivals_of(groups, 1)

    assert unpaired == []
    assert alike(rivals, "dice_fg") == ["optim.lr=0.01"]  # their test counts are equal
    assert "cannot be told from optim.lr=0.01" in report.page


def test_a_lead_on_every_image_is_certain(base):
    worse = dataclasses.replace(
        base.sampled,
        values={name: value - 0.2 for name, value in base.sampled.values.items()},
        drawn={name: drawn - 0.2 for name, drawn in base.sampled.drawn.items()},
    )
    runs = [base, dataclasses.replace(variant(base, "worse", optim__lr=0.5), sampled=worse)]

    (rival,), _ = rivals_of(groups_of(runs), 0)

    assert rival.is_certain("dice_fg")
    assert rival.differences["dice_fg"].low == pytest.approx(0.2)


def test_folds_are_repeats_although_they_are_packed_apart(base):
    folds = [
        dataclasses.replace(
            variant(base, f"fold-{k}", data__folds={"of": 3, "fold": k}),
            result=dataclasses.replace(base.result, fingerprint=f"{k}" * 64),
        )
        for k in range(3)
    ]
    (group,) = groups_of(folds)

    assert group.sampled() is not None
    assert comparison_notices(folds, ["a", "b", "c"]) == []


def test_seeds_of_other_images_have_no_common_scores(base):
    other = dataclasses.replace(base.result, counts=base.result.counts[:, ::-1])
    (group,) = groups_of([base, dataclasses.replace(variant(base, "b", seed=1), result=other)])

    assert group.sampled() is None


def test_named_checkpoints_stand_for_themselves(base):
    assert len(groups_of([base.at(1), base.at(2)])) == 2


def test_the_same_seed_again_is_no_repeat(base):
    runs = [base, variant(base, "copy"), variant(base, "b", seed=1)]

    assert [group.numbers for group in groups_of(runs)] == [(0, 2), (1,)]


def test_a_sweep_over_two_keys_is_a_grid_in_the_order_of_its_values(base):
    runs = [
        variant(base, f"{lr}-{size}-{seed}", optim__lr=lr, train__batch_size=size, seed=seed)
        for lr in (0.1, 0.01)
        for size in (16, 4, 128)
        for seed in (0, 1)
    ]
    groups = groups_of(runs)

    grid = grid_of(groups)

    assert (grid.row_key, grid.column_key) == ("optim.lr", "train.batch_size")
    assert grid.rows == ["0.01", "0.1"]
    assert grid.columns == ["4", "16", "128"]
    assert groups[grid.cells[0][2]].settings == {"optim.lr": "0.01", "train.batch_size": "128"}
    drawn = comparison._grid(groups, "dice_fg", leading(groups, "dice_fg"))
    cells = [cell for _, row in drawn["rows"] for cell in row]
    assert [cell["runs"] for cell in cells] == [2] * 6
    assert sum(cell["is_leader"] for cell in cells) == 1


def test_one_key_or_unrelated_runs_are_no_grid(sweep, base):
    assert grid_of(groups_of(sweep)) is None
    pair = [base, variant(base, "b", optim__lr=0.5, train__batch_size=64)]
    assert grid_of(groups_of(pair)) is None


@pytest.mark.parametrize(
    ("rates", "is_log"),
    [((1e-4, 1e-3, 1e-2), True), ((0.01, 0.02, 0.03), False), ((0.01, 0.2, 0.3), False)],
)
def test_a_sweep_over_numbers_of_one_key_is_in_their_order(base, rates, is_log):
    runs = [variant(base, f"run {rate}", optim__lr=rate) for rate in reversed(rates)]

    found = sweep_of(groups_of(runs))

    assert (found.key, found.values, found.is_log) == ("optim.lr", list(rates), is_log)
    assert [group.label for group in found.groups] == [f"run {rate}" for rate in rates]


def test_texts_and_two_keys_are_no_sweep_over_numbers(base):
    for changes in ({"loss": [{"name": "dice"}]}, {"optim__lr": 0.1, "train__batch_size": 2}):
        assert sweep_of(groups_of([base, variant(base, "b", **changes)])) is None


def test_lists_of_sections_are_written_as_in_yaml_without_defaults(base):
    losses = [{"name": "cross_entropy", "class_weights": 3}, {"name": "dice"}]
    other = variant(base, "b", loss=losses, augment=[{"name": "blur", "probability": 0.5}])

    assert differing(flat_configs([base.experiment, other.experiment])) == {
        "loss": [
            "[{name: cross_entropy}]",
            "[{name: cross_entropy, class_weights: 3.0}, {name: dice}]",
        ],
        "augment": ["[]", "[{name: blur}]"],
    }


def test_named_checkpoints_are_no_sweep(base):
    runs = [variant(base, f"lr={lr}", optim__lr=lr) for lr in (0.1, 0.01)]
    picked = [dataclasses.replace(run, is_picked=True) for run in runs]

    assert "sweep" in comparison.comparison_report(runs).figures
    assert "sweep" not in comparison.comparison_report(picked).figures
