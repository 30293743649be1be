"""Photos to maps, at any size and flipped too; and which checkpoint."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from cardamage.errors import CheckpointError, ConfigError, RunError
from cardamage.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from cardamage.predict.maps import enlarge
from cardamage.predict.model import TrainedModel
from cardamage.runs.checkpoints import choose_checkpoint
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import write_table


def predict(network, images, **options):
    info = SimpleNamespace(mean=IMAGENET_MEAN, deviation=IMAGENET_STD, tile=None)
    return TrainedModel(info, network).logits(images, **options)


class Brightness(nn.Module):
    """Class 2 where the red channel is bright, class 1 where it is middling, 0 where dark."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        assert images.dtype == torch.float32
        red = self.scale * (images[:, 0] * 0.229 + 0.485)  # ImageNet's normalisation undone
        return torch.stack([-(red**2), -((red - 0.5) ** 2), -((red - 1) ** 2)], dim=1)


def photos(*values):
    """A batch of photos whose red channel holds ``values`` and whose other channels mislead."""
    red = np.array(values, np.uint8)
    return np.stack([red, 255 - red, np.full_like(red, 77)], axis=-1)


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


def test_the_likeliest_class_of_each_pixel():
    values = np.array([[0, 0, 128], [255, 128, 0]])
    logits = predict(Brightness(), photos(values, 255 - values))
    assert logits.dtype == torch.float32
    assert logits.argmax(dim=1).tolist() == [[[0, 0, 1], [2, 1, 0]], [[2, 2, 1], [0, 1, 2]]]


def test_the_model_predicts_in_evaluation_mode():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    before = model[1].running_mean.clone()
    predict(model.train(), photos(np.full((4, 4), 9)))
    assert torch.equal(model[1].running_mean, before)


class Sided(nn.Module):
    """Is sure of class 1 with 0.9 in the left column and of class 0 with 0.8 in the others."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        probability = torch.full((len(images), 2, *images.shape[2:]), 0.8)
        probability[:, 1] = 0.2
        probability[:, 0, :, 0], probability[:, 1, :, 0] = 0.1, 0.9
        return probability.log() + 7  # logits are logarithms up to a constant


def test_flipping_takes_the_mean_of_both_probabilities():
    pixels = photos(np.zeros((1, 3)))
    plain = predict(Sided(), pixels).softmax(dim=1)[0, 1, 0]
    flipped = predict(Sided(), pixels, flip=True).softmax(dim=1)[0, 1, 0]
    assert plain.tolist() == pytest.approx([0.9, 0.2, 0.2])
    assert flipped.tolist() == pytest.approx([0.55, 0.2, 0.55])  # (0.9 + 0.2) / 2 at both ends


def test_flipping_changes_nothing_for_a_model_that_sees_pixels_alone():
    pixels = photos(np.arange(12).reshape(3, 4) * 20)
    both = predict(Brightness(), pixels, flip=True).softmax(dim=1)
    torch.testing.assert_close(both, predict(Brightness(), pixels).softmax(dim=1))


def test_logits_are_resized_before_the_class_is_chosen():
    """From 2 pixels to 4 the centres lie at 0, 1/4, 3/4, 1 of the way from one to the other."""
    logits = torch.tensor([[[0.0, 0.0]], [[-1.0, 4.0]]])
    found = enlarge(logits, (1, 4))  # class 1 less class 0: -1, 0.25, 2.75, 4
    assert found.ids.tolist() == [[0, 1, 1, 1]]
    probabilities = [1 / (1 + math.exp(-abs(x))) for x in (-1, 0.25, 2.75, 4)]
    assert found.confidence.tolist() == [[round(255 * p) for p in probabilities]]


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 24), (41, 97), (2, 300), (300, 2)])
def test_resizing_is_that_of_torch(monkeypatch, size):
    monkeypatch.setattr("cardamage.predict.maps._STRIP_NUMBERS", 3 * 97 * 4)  # several strips
    logits = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))
    whole = nn.functional.interpolate(logits[None], size, mode="bilinear", align_corners=False)[0]
    found = enlarge(logits, size)
    assert found.ids.shape == found.confidence.shape == size
    assert (found.ids == whole.argmax(dim=0).numpy()).mean() > 0.999  # but for ties in rounding
    expected = 255 * whole.softmax(dim=0).amax(dim=0).numpy()
    np.testing.assert_allclose(found.confidence, expected, atol=0.51)


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
