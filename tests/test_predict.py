"""Photos to maps: sizes, order and batches; and which checkpoint."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cardamage.errors import CheckpointError, ConfigError, RunError
from cardamage.paths import RunPaths
from cardamage.predict import choose_checkpoint, predict
from cardamage.tables import write_table


class Brightness(nn.Module):
    """Class 2 where the red channel is bright, class 1 where it is middling, 0 where dark."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.batches = []

    def forward(self, images):
        assert images.dtype == torch.float32
        self.batches.append(tuple(images.shape))
        red = self.scale * (images[:, 0] * 0.229 + 0.485)  # ImageNet's normalisation undone
        return torch.stack([-(red**2), -((red - 0.5) ** 2), -((red - 1) ** 2)], dim=1)


def photo(values):
    """An RGB photo whose red channel holds ``values`` and whose other channels mislead."""
    red = np.array(values, np.uint8)
    return Image.fromarray(np.stack([red, 255 - red, np.full_like(red, 77)], axis=-1))


@pytest.fixture
def run(tmp_path):
    """A run with checkpoints of epochs 1, 2, 3, 5, the second being best by dice_fg."""
    run = RunPaths(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    for epoch in (1, 2, 3, 5):
        run.checkpoint(epoch).touch()
    rows = [
        {"epoch": epoch, "val_loss": 1 / epoch, "val_dice_fg": dice, "val_miou": math.nan}
        for epoch, dice in ((1, 0.1), (2, 0.7), (3, 0.7), (4, 0.3), (5, 0.6))
    ]
    write_table(run.metrics, rows)
    return run


def test_maps_have_the_photos_size_and_follow_their_pixels():
    values = np.zeros((48, 80), int)
    values[:24, 40:] = 255
    values[24:, :40] = 128
    (found,) = predict(Brightness(), [photo(values)], image_size=(24, 40), batch_size=4)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.where(values == 255, 2, np.where(values == 128, 1, 0)))


def test_photos_of_all_sizes_share_batches_and_keep_their_order():
    sizes = [(5, 9), (64, 48), (8, 8), (1, 1), (200, 3)]
    levels = [0, 128, 255, 128, 0]
    photos = [photo(np.full(size, level)) for size, level in zip(sizes, levels, strict=True)]
    model = Brightness()
    maps = list(predict(model, photos, image_size=(16, 24), batch_size=2))
    assert [m.shape for m in maps] == sizes
    assert [np.unique(m).tolist() for m in maps] == [[0], [1], [2], [1], [0]]
    assert model.batches == [(2, 3, 16, 24), (2, 3, 16, 24), (1, 3, 16, 24)]


def test_photos_are_taken_only_as_far_as_needed():
    taken = []

    def photos():
        for number in range(6):
            taken.append(number)
            yield photo(np.zeros((4, 4)))

    maps = predict(Brightness(), photos(), image_size=(8, 8), batch_size=2)
    next(maps)
    assert taken == [0, 1]


def test_no_photos_give_no_maps():
    assert list(predict(Brightness(), [], image_size=(8, 8), batch_size=2)) == []


def test_the_model_predicts_in_evaluation_mode():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    before = model[1].running_mean.clone()
    list(predict(model.train(), [photo(np.full((4, 4), 9))], image_size=(8, 8), batch_size=1))
    assert torch.equal(model[1].running_mean, before)


def test_best_last_and_epochs_are_found(run):
    assert choose_checkpoint(run, "best", "dice_fg") == (2, run.checkpoint(2))
    assert choose_checkpoint(run, "best", "loss") == (5, run.checkpoint(5))
    assert choose_checkpoint(run, "last", "dice_fg") == (5, run.checkpoint(5))
    assert choose_checkpoint(run, "3", "dice_fg") == (3, run.checkpoint(3))


@pytest.mark.parametrize("choice", ["bets", "0", "-1", "1.5", ""])
def test_an_unknown_choice_is_refused(run, choice):
    with pytest.raises(ConfigError, match="allowed: best, last, or an epoch from 1"):
        choose_checkpoint(run, choice, "dice_fg")


def test_a_missing_epoch_lists_what_there_is(run):
    with pytest.raises(CheckpointError, match="no checkpoint of epoch 4; choose one of 1-3, 5"):
        choose_checkpoint(run, "4", "dice_fg")


def test_a_best_epoch_whose_checkpoint_is_gone_is_refused(run):
    run.checkpoint(2).unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of epoch 2; choose one of 1, 3, 5"):
        choose_checkpoint(run, "best", "dice_fg")


def test_no_best_epoch_is_refused(run):
    with pytest.raises(CheckpointError, match=r"no epoch of .* has a validation miou"):
        choose_checkpoint(run, "best", "miou")


def test_a_run_without_checkpoints_says_to_train(tmp_path):
    with pytest.raises(CheckpointError, match="has no checkpoints; train it first"):
        choose_checkpoint(RunPaths(tmp_path), "last", "dice_fg")


def test_best_needs_the_metrics(run):
    run.metrics.unlink()
    with pytest.raises(RunError, match=r"metrics\.csv does not exist"):
        choose_checkpoint(run, "best", "dice_fg")
    assert choose_checkpoint(run, "last", "dice_fg")[0] == 5
