"""One shard of a packed dataset, made from images and annotations: what a packing process does."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardamage.data.coco import ImageRecord
from cardamage.data.images import decode_image, orientation, resize_image, resize_mask
from cardamage.data.masks import paint
from cardamage.data.shards import ShardRecord
from cardamage.data.source import ImageSource
from cardamage.data.tar import PackedSample, ShardContents, read_shard, write_shard
from cardamage.errors import DataError
from cardamage.files import sha256_of

ImageFormat = Literal["jpg", "png"]

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Recipe:
    """How every sample is made.

    Attributes:
        class_of: class id of each category id.
        classes: how many classes there are, the background included.
        image_size: height and width as packed, in pixels.
        image_format: how images are stored.
    """

    class_of: Mapping[int, int]
    classes: int
    image_size: tuple[int, int]
    image_format: ImageFormat


@dataclass(frozen=True)
class ShardTask:
    """Which shard to make.

    Attributes:
        path: the tar.
        split: the split its images come from.
        number: its number in the split.
        first: number, in the split, of its first sample.
        records: its images.
        sha256: what its bytes must hash to for a tar that is there to be kept; None when a whole
            one of these images is enough.
    """

    path: Path
    split: str
    number: int
    first: int
    records: tuple[ImageRecord, ...]
    sha256: str | None = None


@dataclass(frozen=True)
class MadeShard:
    """A shard as it lies on disk.

    Attributes:
        record: for the manifest.
        index: of :data:`~cardamage.data.shard_index.INDEX_DTYPE`, one row a sample.
        pixels: int64 of shape (classes,), pixels of each class id over its masks.
        overlapped_pixels: over its images, at their original size.
        skipped_annotations: annotations that paint nothing, over its images.
        kept: it was there and was not made again.
    """

    record: ShardRecord
    index: NDArray[Any]
    pixels: NDArray[np.int64]
    overlapped_pixels: int
    skipped_annotations: int
    kept: bool


def make_shard(
    task: ShardTask, source: ImageSource, recipe: Recipe, on_sample: Callable[[], None]
) -> MadeShard:
    """Make one shard, or keep the whole one that an interrupted packing left.

    Args:
        task: which one.
        source: where the images are.
        recipe: how samples are made.
        on_sample: called once a sample, when it is done; what it raises ends the work, and no tar
            is left behind.

    Raises:
        DataError: an image is broken or not of the size its annotations say.
    """
    contents = _whole(task)
    kept = contents is not None
    if contents is None:
        samples = _samples(task, source, recipe, on_sample)
        write_shard(task.path, task.first, samples)
        contents = _read(task)
    else:
        for _ in task.records:
            on_sample()
    infos = contents.infos
    return MadeShard(
        record=ShardRecord(
            samples=len(task.records),
            bytes=task.path.stat().st_size,
            sha256=sha256_of(task.path),
        ),
        index=contents.index,
        pixels=np.sum([info["pixels"] for info in infos], axis=0, dtype=np.int64),
        overlapped_pixels=sum(info["overlapped_pixels"] for info in infos),
        skipped_annotations=sum(info["skipped_annotations"] for info in infos),
        kept=kept,
    )


def make_sample(content: bytes, record: ImageRecord, recipe: Recipe, *, name: str) -> PackedSample:
    """The members of one sample.

    Args:
        content: the image file.
        record: the image and its annotations.
        recipe: how samples are made.
        name: what to call the image in complaints.

    Raises:
        DataError: the image is broken or not of the size its annotations say.
    """
    image = decode_image(content, size=(record.width, record.height), name=name)
    painted = paint(record, recipe.class_of)
    mask = resize_mask(painted.mask, recipe.image_size)
    if recipe.image_format == "jpg" and _stored_as_is(content, image, recipe):
        stored = content
    else:
        stored = _encode(resize_image(image, recipe.image_size), recipe.image_format)
    pixels = np.bincount(mask.ravel(), minlength=recipe.classes)
    return PackedSample(
        image=stored,
        image_format=recipe.image_format,
        info={
            "file_name": record.file_name,
            "width": record.width,
            "height": record.height,
            "pixels": pixels.tolist(),
            "overlapped_pixels": painted.overlapped_pixels,
            "skipped_annotations": painted.skipped_annotations,
        },
        mask=_encode(Image.fromarray(mask), "png"),
    )


def _samples(
    task: ShardTask, source: ImageSource, recipe: Recipe, on_sample: Callable[[], None]
) -> Iterator[PackedSample]:
    for record in task.records:
        content = source.read(task.split, record.file_name)
        name = f"{source.source}: {task.split}/{record.file_name}"
        yield make_sample(content, record, recipe, name=name)
        on_sample()


def _whole(task: ShardTask) -> ShardContents | None:
    """The contents of the task's shard when it is there, whole, and of these images."""
    if not task.path.is_file():
        return None
    if task.sha256 is not None and sha256_of(task.path) != task.sha256:
        return None
    try:
        contents = _read(task)
    except DataError:
        return None
    names = [info.get("file_name") for info in contents.infos]
    return contents if names == [record.file_name for record in task.records] else None


def _read(task: ShardTask) -> ShardContents:
    return read_shard(task.path, shard=task.number, first=task.first, samples=len(task.records))


def _stored_as_is(content: bytes, decoded: Image.Image, recipe: Recipe) -> bool:
    """Whether a file's own bytes serve: coding a JPEG once more would only lose detail."""
    height, width = recipe.image_size
    if decoded.size != (width, height):
        return False
    with Image.open(io.BytesIO(content)) as image:
        return image.format == "JPEG" and image.mode == "RGB" and orientation(image) == 1


def _encode(image: Image.Image, image_format: ImageFormat) -> bytes:
    image.info = {}  # a camera's profile and comments are no part of the sample
    stream = io.BytesIO()
    if image_format == "jpg":
        # Colour at full resolution: a scratch is a few pixels wide once the image is small.
        image.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()
