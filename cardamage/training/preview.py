"""What the network sees: training images as augmentation has them, beside the originals."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cardamage.config.experiment import Experiment
from cardamage.data.curation.preview import Choice, pick, save
from cardamage.data.drawing import contact_sheet, heading, legend, overlay, stacked
from cardamage.data.images import resize_image, resize_mask
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import ConfigError
from cardamage.system.console import Progress
from cardamage.system.files import new_folder
from cardamage.training.augment import augment

_LONGER_PX = 320
_EPOCHS, _ROWS = 5, 5


def preview_augmented(
    experiment: Experiment,
    reader: ShardReader,
    out: Path,
    *,
    images: int,
    choice: Choice = "spread",
    seed: int = 0,
) -> int:
    """Write ``augmented-<n>.jpg``: a row per image, as packed and as in the first five epochs.

    The masks are outlined. What is drawn is to the bit what training on a CPU is given.

    Args:
        reader: of the training split.
        out: a new or empty folder; it appears whole or not at all.
        images: how many at most.
        seed: of the random choice of images.

    Returns:
        How many images were drawn.

    Raises:
        ConfigError: nothing is augmented; or ``out`` is not empty, or cannot be written.
    """
    if not experiment.augment:
        raise ConfigError(
            f"{experiment.name} augments nothing; add a step to it, as in "
            f"augment: [{{name: horizontal_flip}}]"
        )

    def damage(number: int) -> float:
        pixels = reader.info(number)["pixels"]
        return 1 - float(pixels[0] / sum(pixels))

    chosen = pick(len(reader), images, choice, damage, seed)
    words = f"{len(chosen)} of {len(reader)} training images, in the first {_EPOCHS} epochs"
    with new_folder(out) as folder, Progress("draw", len(chosen), "images") as progress:
        for page, first in enumerate(range(0, len(chosen), _ROWS), start=1):
            rows = []
            for number in chosen[first : first + _ROWS]:
                rows.append(_row(experiment, reader, number))
                progress.advance()
            sheet, names = contact_sheet(rows, title_px=20), experiment.data.class_names
            title = heading(experiment.name, words, width_px=sheet.width)
            whole = stacked(title, sheet, legend(names, width_px=sheet.width))
            save(whole, folder / f"augmented-{page:03d}.jpg")
    return len(chosen)


def _row(experiment: Experiment, reader: ShardReader, number: int) -> list[tuple[str, Image.Image]]:
    _, image, mask = reader.read(number)
    images, masks = augment(
        torch.from_numpy(image.transpose(2, 0, 1).copy()).expand(_EPOCHS, -1, -1, -1),
        torch.from_numpy(mask.copy()).expand(_EPOCHS, -1, -1),
        experiment.augment,
        seed=experiment.seed,
        epochs=np.arange(1, _EPOCHS + 1),
        samples=np.full(_EPOCHS, number),
    )
    cells = [(str(reader.info(number)["file_name"]), _outlined(image, mask))]
    seen = zip(images.permute(0, 2, 3, 1).numpy(), masks.numpy(), strict=True)
    return cells + [(f"epoch {n}", _outlined(*pair)) for n, pair in enumerate(seen, start=1)]


def _outlined(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Image.Image:
    factor = _LONGER_PX / max(mask.shape)
    size = max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor))
    photo = np.asarray(resize_image(Image.fromarray(image), size))
    return Image.fromarray(overlay(photo, resize_mask(mask, size), opacity=0))
