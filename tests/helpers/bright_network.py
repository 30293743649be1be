"""A run whose network says "dent" where a photo is bright, and photos and masks for it.

Its weights are set by hand, so that every map is known.
"""

import numpy as np
from PIL import Image
from torch import nn

from cardamage.config import loading
from cardamage.models import build_model
from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import write_table
from cardamage.training.checkpoint import CheckpointInfo, save_checkpoint

EXPERIMENT = loading.parse(
    {
        "name": "bright",
        "data": {
            "source": "nowhere",
            "classes": {"dent": ["dent", "ding"], "scratch": ["scratch"]},
            "image_size": [32, 32],
        },
        "model": {"name": "segnet2"},
        "optim": {"name": "adam"},
    }
)


def bright_is_dent(*, inverted=False):
    """Weights of a segnet2 that carry the red channel through to the logit of class 1."""
    model = build_model(EXPERIMENT.model, 3)
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    for layer in convolutions:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    first, *middle, last = convolutions
    for layer in (first, *middle):
        layer.weight.data[0, 0, 1, 1] = 1.0
    first.bias.data[0] = 3.0  # normalised red lies in -2.2 .. 2.3, and ReLU cuts below 0
    last.weight.data[1, 0, 1, 1] = -1.0 if inverted else 1.0
    last.bias.data[1] = 3.0 if inverted else -3.0
    last.bias.data[2] = -9.0
    return model.state_dict()


def write_run(folder):
    """Epoch 1 is right and best, epoch 2 says the opposite."""
    run = RunPaths(folder)
    run.root.mkdir(parents=True)
    for epoch in (1, 2):
        info = CheckpointInfo(
            epoch=epoch,
            model=EXPERIMENT.model.model_dump(mode="json"),
            class_names=EXPERIMENT.data.class_names,
            image_size=EXPERIMENT.data.image_size,
            config_hash=EXPERIMENT.hash(),
        )
        save_checkpoint(run.checkpoint(epoch), bright_is_dent(inverted=epoch == 2), info)
    run.config.write_text(EXPERIMENT.to_yaml())
    write_table(run.metrics, [{"epoch": e, "val_miou": d} for e, d in ((1, 0.9), (2, 0.1))])


def save(path, values, **options):
    Image.fromarray(np.array(values, np.uint8)).convert("RGB").save(path, **options)


def half_bright(height, width):
    """A photo whose right half is bright."""
    values = np.zeros((height, width), np.uint8)
    values[:, width // 2 :] = 255
    return values
