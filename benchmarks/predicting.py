"""Photos a second of prediction, beside the bare network and decoding.

    python -m benchmarks.predicting

Ours is what `cardamage predict` does for a folder, and `Model.predict` for a list: the first also
checks all photos before it begins, and writes maps, overlays, instances and summaries. Bare is the
same network on the same batches, photos decoded and resized by Pillow in as many threads, and the
likeliest class of each pixel at the size of the network.
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import drawn
from benchmarks.packing import DRAWN, large_export
from benchmarks.pairs import compare, seconds
from cardamage.config.recipe import Model
from cardamage.models import build_model
from cardamage.models.inputs import normalise
from cardamage.predict.folder import predict_folder
from cardamage.predict.model import TrainedModel
from cardamage.system.processes import count_cores
from cardamage.training.checkpoint import CheckpointInfo

BATCH = 8
SECTION = {"name": "smp", "weights": "none"}


def main() -> None:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--photo-px", type=int, default=640, help="default: %(default)s")
    parser.add_argument("--image-px", type=int, default=256, help="default: %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = drawn.export(folder / "drawn", images=DRAWN, size=arguments.photo_px)
        photos = sorted(large_export(folder / "large", few, arguments.images).glob("*/*.jpg"))
        images = folder / "photos"
        images.mkdir()
        for photo in photos:
            photo.rename(images / f"{photo.parent.name}-{photo.name}")
        photos = sorted(images.iterdir())
        model = untrained((arguments.image_px, arguments.image_px))
        facts = {"run": "benchmark", "epoch": 1, "checkpoint": "none"}
        whole = partial(
            predict_folder, model, facts, images=images, out=folder / "out", batch_size=BATCH
        )
        by_hand = partial(bare, model, photos)
        by_hand()
        what = f"{arguments.photo_px} px photos, network at {arguments.image_px}"
        tell = partial(
            compare,
            against="bare network and decoding",
            bar=">= 0.8",
            measured_in="photos/s",
            packages=("torch", "pillow"),
        )
        for claim, ours in (
            (f"Model.predict, {what}", partial(model.predict, photos, batch_size=BATCH)),
            (f"cardamage predict, {what}, with all that it writes", whole),
        ):
            tell(
                claim,
                ours=lambda ours=ours: len(photos) / seconds(ours),
                other=lambda: len(photos) / seconds(by_hand),
            )


class Smooth(nn.Module):
    """A network whose maps have a few large regions, as those of a trained one, and not specks."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C, H, W), without what is smaller than a quarter of a side."""
        logits = self.network(images)
        coarse = functional.adaptive_avg_pool2d(logits, 4)
        return functional.interpolate(coarse, logits.shape[2:], mode="bilinear")


def untrained(size: tuple[int, int]) -> TrainedModel:
    """A network with random weights, as if it had been trained."""
    torch.manual_seed(0)
    model = TypeAdapter(Model).validate_python(SECTION)
    names = ("background", *drawn.CLASSES)
    info = CheckpointInfo(
        epoch=1,
        model=model.model_dump(mode="json"),
        class_names=names,
        image_size=size,
        config_hash="",
    )
    return TrainedModel(info, Smooth(build_model(model, len(names))))


@torch.no_grad()
def bare(model: TrainedModel, photos: list[Path]) -> None:
    """The least that predicting takes."""
    height, width = model.info.image_size

    def pixels(photo: Path) -> np.ndarray:
        with Image.open(photo) as image:
            return np.asarray(image.convert("RGB").resize((width, height), Image.BILINEAR))

    with ThreadPoolExecutor(count_cores()) as threads:
        for start in range(0, len(photos), BATCH):
            batch = np.stack(list(threads.map(pixels, photos[start : start + BATCH])))
            images = torch.from_numpy(batch).permute(0, 3, 1, 2)
            model.network(normalise(images)).argmax(dim=1)


if __name__ == "__main__":
    main()
