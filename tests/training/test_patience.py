"""When training ends early, and what the rate does before."""

import pytest

from cardamage.config import loading
from cardamage.config.recipe import ConstantSchedule
from cardamage.runs.checkpoints import kept_epochs
from cardamage.runs.paths import RunPaths
from cardamage.training.outputs import publish_epoch
from cardamage.training.patience import cool_down
from tests.training.test_schedule import schedule


def experiment(**train):
    return loading.parse(
        {
            "data": {"source": "synthetic", "classes": ["scratch"]},
            "train": {"epochs": 40, **train},
            "test": {"select_by": "dice_fg"},
        }
    )


def rows(*scores):
    return [{"epoch": epoch, "val_dice_fg": s} for epoch, s in enumerate(scores, start=1)]


def test_training_ends_when_the_score_has_not_improved_for_so_many_epochs():
    asked = experiment(patience=3)
    assert cool_down(rows(0.1, 0.5, 0.4, 0.4), asked) is None
    ending = cool_down(rows(0.1, 0.5, 0.4, 0.4, 0.4), asked)
    assert (ending.after, ending.last) == (5, 6)
    assert "epoch 2" in ending.why


def test_a_better_score_in_the_cool_down_changes_nothing():
    ending = cool_down(rows(0.1, 0.5, 0.4, 0.4, 0.4, 0.9), experiment(patience=3))
    assert (ending.after, ending.last) == (5, 6)


def test_the_cool_down_is_a_tenth_of_the_epochs_and_ends_within_them():
    assert cool_down(rows(0.5, *[0.4] * 30), experiment(patience=30))[:2] == (31, 34)
    assert cool_down(rows(0.5, *[0.4] * 38), experiment(patience=38))[:2] == (39, 40)


def test_no_score_at_all_is_no_improvement():
    nan = float("nan")
    assert cool_down(rows(nan, nan, nan), experiment(patience=2))[:2] == (3, 4)


def test_without_patience_training_never_ends_early():
    assert cool_down(rows(0.5, *[0.1] * 30), experiment()) is None


def test_the_rate_comes_down_along_a_line_whatever_ran_before():
    found, _ = schedule(ConstantSchedule(), epochs=10)
    found.cool_down(8, 12)
    assert [found.factor(step) for step in (7, 8, 10, 11)] == pytest.approx([1, 1, 0.5, 0.25])


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("all", {1, 2, 3, 4, 5}), ("best_and_last", {2, 5}), ({"every": 3}, {2, 3, 5})],
)
def test_checkpoints_that_are_kept(keep, expected, tmp_path):
    asked, run = experiment(keep=keep), RunPaths(tmp_path)
    run.checkpoints.mkdir()
    scores = rows(0.1, 0.5, 0.4, 0.4, 0.3)
    for epochs in range(1, 6):
        publish_epoch(run, asked, scores[:epochs], {})
    assert set(run.finished_checkpoints()) == expected == kept_epochs(asked, scores)
