"""Making one shard from images and annotations: the work of a packing process."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from PIL import Image

from cardamage.data.coco.masks import paint
from cardamage.data.coco.records import ImageRecord
from cardamage.data.coco.source import ImageSource
from cardamage.data.curation.copies import look_of
from cardamage.data.images import (
    LEAVE_OUT,
    decode_image,
    encoded,
    orientation,
    resize_image,
    resize_mask,
)
from cardamage.data.pool import stop_if_unwanted
from cardamage.data.shards.mask_file import encode_mask
from cardamage.data.shards.tar import Shard, read_shard, write_shard
from cardamage.errors import DataError

if TYPE_CHECKING:  # the classes of the config, which few packings need in their processes
    from cardamage.data.shards.storage import StoredTars

ImageFormat = Literal["jpg", "png"]

JPEG_QUALITY = 95


class Recipe(NamedTuple):
    """How every sample is made."""

    class_of: Mapping[int, int]
    """Class id of each category id."""
    classes: int
    """How many there are, the background included."""
    image_size: tuple[int, int]
    """Height and width as packed, in pixels."""
    image_format: ImageFormat
    large_first: bool = False
    """Annotations are painted from the largest to the smallest, not in the order of the file."""


class ShardTask(NamedTuple):
    """Which shard to make."""

    path: Path
    split: str
    number: int
    first: int
    """Number, in the split, of its first sample."""
    records: tuple[ImageRecord, ...]
    sha256: str | None
    """What a tar that is there must hash to; None when a whole one of these images is enough."""


def make_shard(
    task: ShardTask, source: ImageSource, recipe: Recipe, stored: "StoredTars | None" = None
) -> tuple[Shard, bool]:
    """Make one shard, or keep the whole one that an interrupted packing left; and whether it did.

    With ``stored`` it goes to object storage, and leaves the disk.

    Raises:
        DataError: an image is broken or not of the size its annotations say; no tar is left.
    """
    in_storage = stored is not None and not task.path.exists() and stored.download(task.path)
    if not (kept := _whole(task)):
        in_storage = False
    shard = kept or write_shard(
        task.path, task.first, _samples(task, source, recipe), shard=task.number
    )
    if stored:
        if not in_storage:
            stored.upload(task.path)
        task.path.unlink()
    return shard, kept is not None


def make_sample(
    content: bytes, record: ImageRecord, recipe: Recipe, *, name: str
) -> dict[str, bytes]:
    """The files of one sample by suffix, from its image file; ``name`` is for errors.

    Raises:
        DataError: the image is broken or not of the size its annotations say.
    """
    sides = record.width, record.height
    size = recipe.image_size
    image = decode_image(content, size=sides, shrink_to=size, name=name, remedy=LEAVE_OUT)
    look = look_of(packed := resize_image(image, size))
    painted = paint(record, recipe.class_of, size=size, large_first=recipe.large_first)
    mask = resize_mask(painted.mask, size)
    info = {
        "file_name": record.file_name,
        "width": record.width,
        "height": record.height,
        "pixels": np.bincount(mask.ravel(), minlength=recipe.classes).tolist(),
        "overlapped_pixels": painted.overlapped_pixels,
        "skipped_annotations": painted.skipped_annotations,
    }
    if look is not None:  # what tells copies of the photo
        info["look"] = f"{look:064x}"
    if painted.lost:  # by class id; what is zero is left out
        info["lost"] = {
            i: {k: n for k, n in vars(loss).items() if n} for i, loss in painted.lost.items()
        }
    return {
        recipe.image_format: _stored(content, packed, recipe, is_whole=sides == size[::-1]),
        "json": json.dumps(info, ensure_ascii=False, sort_keys=True).encode(),
        "seg.png": encode_mask(mask),
    }


def _samples(task: ShardTask, source: ImageSource, recipe: Recipe) -> Iterator[dict[str, bytes]]:
    for record in task.records:
        stop_if_unwanted()
        split = record.lies_in or task.split
        content = source.read(split, record.file_name)
        name = f"{source.source}: {split}/{record.file_name}"
        yield make_sample(content, record, recipe, name=name)


def _whole(task: ShardTask) -> Shard | None:
    """The task's shard when it is there, whole, and of these images."""
    if not task.path.is_file():
        return None
    try:
        shard = read_shard(
            task.path, shard=task.number, first=task.first, samples=len(task.records)
        )
    except (DataError, OSError):
        return None
    names = [info.get("file_name") for info in shard.infos]
    fits = task.sha256 in (None, shard.sha256)
    return shard if fits and names == [record.file_name for record in task.records] else None


def _stored(content: bytes, image: Image.Image, recipe: Recipe, *, is_whole: bool) -> bytes:
    """The image as it is packed; a JPEG's own bytes where they serve: coding again loses detail."""
    if recipe.image_format == "jpg" and is_whole:
        with Image.open(io.BytesIO(content)) as file:
            if file.format == "JPEG" and file.mode == "RGB" and orientation(file) == 1:
                with suppress(OSError):  # without its end marker other readers refuse it
                    file.load()
                    return content
    image.info = {}  # a camera's profile and comments are no part of the sample
    if recipe.image_format == "png":
        return encoded(image, "PNG")
    # Colour at full resolution: a scratch is a few pixels wide once the image is small.
    return encoded(image, "JPEG", quality=JPEG_QUALITY, subsampling=0)
