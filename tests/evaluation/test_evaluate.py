import io

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from cardamage.data.shards.reader import ShardReader
from cardamage.evaluation.damages import count_damages
from cardamage.evaluation.evaluate import evaluate
from cardamage.models.inputs import IMAGENET_MEAN, IMAGENET_STD, normalise
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from cardamage.training.losses import cross_entropy


class ByBrightness(nn.Module):
    """Calls a pixel class 1 where its normalised red is above zero; BatchNorm rides along."""

    def __init__(self, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.classes = classes

    def forward(self, images):
        self.norm(images)
        logits = torch.zeros(len(images), self.classes, *images.shape[2:])
        logits[:, 1] = images[:, 0]
        return logits


@pytest.fixture(scope="module")
def split(toy_shards):
    # Other tests pack variants of the dataset into the same folder.
    packed = read_stage(RunPaths(toy_shards.parent / "runs" / "toy"), "pack")
    with ShardReader(toy_shards.parent / packed.output["shards"], "train") as reader:
        yield reader


def test_normalising_is_imagenets_arithmetic_on_bytes():
    images = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = [
        (value / 255 - mean) / deviation
        for value, mean, deviation in zip((0, 128, 255), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    assert normalise(images).flatten().tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_sample_is_seen_once_whatever_the_batch(split, batch_size, workers):
    classes = len(split.class_names)
    model = ByBrightness(classes).train()
    outcome = evaluate(
        model,
        cross_entropy,
        split,
        Accelerator(cpu=True),
        batch_size=batch_size,
        workers=workers,
        map_samples=[0, len(split) - 1],
        damages=True,
    )
    assert model.training
    assert model.norm.num_batches_tracked.item() == 0  # evaluated in evaluation mode
    maps = [np.asarray(Image.open(io.BytesIO(png))) for png in outcome.maps]
    assert [each.shape for each in maps] == [split.image_size] * 2
    for number in range(len(split)):
        sample = split.read(number)
        red = (sample.image[..., 0] / 255 - IMAGENET_MEAN[0]) / IMAGENET_STD[0]
        predicted = (red > 0).astype(np.int64)
        expected = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(expected, (sample.mask, predicted), 1)
        assert np.array_equal(outcome.counts[number], expected)
        damages = count_damages(sample.mask, predicted.astype(np.uint8), classes)
        assert np.array_equal(outcome.damages.counts[number], damages)
        foreground = (np.exp(red) + classes - 2) / (np.exp(red) + classes - 1)
        assert outcome.damages.presence[number] == pytest.approx(foreground.max(), rel=1e-5)
    last = split.read(len(split) - 1)
    red = (last.image[..., 0] / 255 - IMAGENET_MEAN[0]) / IMAGENET_STD[0]
    assert np.array_equal(maps[1], red > 0)
    assert outcome.damages.reliability[:, 0].sum() == len(split) * red.size
