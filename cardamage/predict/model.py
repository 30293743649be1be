"""A trained network by itself: from a checkpoint file to class maps of photos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from cardamage.config.experiment import Experiment
from cardamage.data.drawing import overlay
from cardamage.data.images import resize_image
from cardamage.errors import CheckpointError, DataError
from cardamage.evaluation.inference import Together, infer
from cardamage.models import model_of_section
from cardamage.models.inputs import normalise
from cardamage.predict.maps import enlarge
from cardamage.predict.photos import Photo, find_photos, read_photo
from cardamage.system.processes import count_cores
from cardamage.training.checkpoint import (
    CheckpointInfo,
    check_belongs,
    load_checkpoint,
    load_weights,
)

ImageLike = str | Path | Image.Image | NDArray[np.uint8]
"""A photo: its path, a PIL image, or RGB as uint8 (H, W, 3)."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo."""

    name: str
    """The photo's file name; empty for an image in memory."""
    class_ids: NDArray[np.uint8]
    """The likeliest class of each pixel, uint8 (H, W), at the photo's own size."""
    confidence: NDArray[np.uint8]
    """Its probability, in 255ths, uint8 (H, W)."""
    class_names: tuple[str, ...]
    """By class id, background first."""
    photo: Image.Image
    """The photo itself, RGB, upright."""

    def shares(self) -> dict[str, float]:
        """The share of the photo's pixels that each class has, from 0 to 1."""
        counts = np.bincount(self.class_ids.ravel(), minlength=len(self.class_names))
        shares = counts / self.class_ids.size
        return {name: float(share) for name, share in zip(self.class_names, shares, strict=True)}

    def overlay(self) -> Image.Image:
        """The photo with its classes drawn over it, RGB."""
        return Image.fromarray(overlay(np.asarray(self.photo), self.class_ids))


class TrainedModel:
    """A network with the weights of a checkpoint.

    Attributes:
        info: what the checkpoint says of itself: epoch, classes, image size, normalisation.
        network: gives logits (B, C, H, W) for normalised images (B, 3, H, W); in evaluation mode.
    """

    def __init__(self, info: CheckpointInfo, network: nn.Module) -> None:
        self.info, self.network = info, network.eval()

    @classmethod
    def load(
        cls, path: Path, device: str | None = None, *, of: Experiment | None = None
    ) -> TrainedModel:
        """The model of a checkpoint file, which is all that is needed.

        Args:
            device: where it computes, as in ``"cuda:1"``; the GPU where there is one when None.
            of: the run's experiment, which the checkpoint has to belong to.

        Raises:
            CheckpointError: the file is missing, damaged, no checkpoint of this software, or of
                another config than ``of``.
        """
        checkpoint = load_checkpoint(path)
        if of is not None:
            check_belongs(checkpoint, of, path)
        network = model_of_section(checkpoint.info.model, len(checkpoint.info.class_names), path)
        load_weights(network, checkpoint, path)
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(checkpoint.info, network.to(chosen))

    @staticmethod
    def together(models: Sequence[TrainedModel]) -> TrainedModel:
        """Several models as one, whose probabilities are the mean of theirs.

        Raises:
            CheckpointError: they have other classes, image sizes or normalisations, or only some of
                them are exported.
        """
        if len(models) == 1:
            return models[0]
        kinds, first = {type(model) for model in models}, models[0].info
        if len(kinds) > 1:
            raise CheckpointError(
                "an exported network and a checkpoint cannot be averaged; name files of one kind"
            )
        for each in (model.info for model in models[1:]):
            for what in ("class_names", "image_size", "tile", "mean", "deviation"):
                mine, theirs = getattr(first, what), getattr(each, what)
                if mine != theirs:
                    raise CheckpointError(
                        f"models cannot be averaged whose {what.replace('_', ' ')} differ: "
                        f"{mine} and {theirs}; name runs of the same kind"
                    )
        return kinds.pop()(first, Together([model.network for model in models]))

    @property
    def class_names(self) -> tuple[str, ...]:
        """By class id, background first."""
        return self.info.class_names

    @property
    def device_name(self) -> str:
        """Where it computes, in words."""
        device = next(self.network.parameters()).device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"

    @torch.no_grad()
    def logits(self, images: NDArray[np.uint8], *, flip: bool = False) -> Tensor:
        """The logits of a batch, on the CPU; their softmax is the probability of each class.

        Args:
            images: RGB of :attr:`info`'s size, uint8 (B, H, W, 3).
            flip: also predict on the images mirrored left to right, mirror the result back, and
                take the mean of the probabilities; what is returned is its logarithm.

        Returns:
            float32 (B, C, H, W).
        """
        device = next(self.network.parameters()).device
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(device)
        batch = normalise(pixels, self.info.mean, self.info.deviation)
        return infer(self.network, batch, flip=flip, tile=self.info.tile).cpu()

    def predict(
        self, images: ImageLike | Sequence[ImageLike], *, flip: bool = False, batch_size: int = 8
    ) -> Prediction | list[Prediction]:
        """Predict on a photo, on several, or on all photos of a folder.

        The maps are those of ``cardamage predict``, bit for bit.

        Args:
            images: a path, a PIL image, or RGB as uint8 (H, W, 3); a list of these; a folder.
            flip: predict on each photo mirrored as well, and take the mean of the probabilities.

        Returns:
            One prediction for one image, else a list, that of a folder in the order of the names.

        Raises:
            DataError: a photo cannot be read, or an array is no RGB image.
        """
        if isinstance(images, str | Path) and Path(images).is_dir():
            images = [photo.path for photo in find_photos(Path(images))]
        if isinstance(images, str | Path | Image.Image | np.ndarray):
            return next(self._predictions([images], flip=flip, batch_size=1))
        return list(self._predictions(images, flip=flip, batch_size=batch_size))

    def _predictions(
        self, images: Sequence[ImageLike], *, flip: bool, batch_size: int
    ) -> Iterator[Prediction]:
        def read(image: ImageLike) -> tuple[str, Image.Image, NDArray[np.uint8]]:
            name, photo = _photo(image)
            return name, photo, np.array(resize_image(photo, self.info.image_size))

        def finish(name: str, photo: Image.Image, logits: Tensor) -> Prediction:
            found = enlarge(logits, (photo.height, photo.width))
            return Prediction(name, found.ids, found.confidence, self.class_names, photo)

        with ThreadPoolExecutor(count_cores()) as pool:
            for start in range(0, len(images), batch_size):
                batch = pool.map(read, images[start : start + batch_size])
                names, photos, pixels = zip(*batch, strict=True)
                yield from pool.map(finish, names, photos, self.logits(np.stack(pixels), flip=flip))


def _photo(image: ImageLike) -> tuple[str, Image.Image]:
    match image:
        case Image.Image():
            return "", image.convert("RGB")
        case np.ndarray():
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise DataError(
                    f"an array of {image.dtype} {image.shape} is no RGB image; give uint8 (H, W, 3)"
                )
            return "", Image.fromarray(image)
        case _:
            path = Path(image)
            return path.name, read_photo(Photo(path, path.stem))
