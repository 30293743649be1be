"""The best epoch: by the named validation score, the earliest of equals."""

import math

from cardamage.runs.checkpoints import best_epoch, rule

METRICS = [
    {"epoch": 1, "val_loss": 0.9, "val_dice_fg": 0.1, "train_dice_fg": 0.9},
    {"epoch": 2, "val_loss": 0.5, "val_dice_fg": 0.4, "train_dice_fg": 0.1},
    {"epoch": 3, "val_loss": 0.4, "val_dice_fg": 0.4, "train_dice_fg": 0.2},
    {"epoch": 4, "val_loss": 0.6, "val_dice_fg": math.nan, "train_dice_fg": 1.0},
]


def test_scores_are_best_when_highest_and_the_earliest_wins():
    assert best_epoch(METRICS, "dice_fg") == 2


def test_loss_is_best_when_lowest():
    assert best_epoch(METRICS, "loss") == 3


def test_equal_losses_go_to_the_earliest_in_any_order_of_rows():
    rows = [{"epoch": e, "val_loss": 0.5} for e in (7, 3, 5)]
    assert best_epoch(rows, "loss") == 3


def test_an_undefined_score_is_never_best():
    assert best_epoch([METRICS[3], METRICS[0]], "dice_fg") == 1
    assert best_epoch([METRICS[3]], "dice_fg") is None


def test_no_rows_have_no_best_epoch():
    assert best_epoch([], "loss") is None


def test_the_rule_in_words():
    assert rule("loss") == "lowest validation loss"
    assert rule("dice_fg") == "highest validation dice_fg"
