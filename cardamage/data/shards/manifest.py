"""``manifest.json``: what a packed dataset holds, and whether it is whole."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cardamage.errors import DataError
from cardamage.runs.paths import ShardPaths
from cardamage.system.files import naming, write_text

VERSION = 1
"""Of the layout; part of every fingerprint, so another version never reads these shards."""

REPACK = "pack again: cardamage pack CONFIG"

MAX_SIDE = 8192
"""Most pixels of an image's height or width as packed; the config allows no more."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Count = Annotated[int, Field(ge=0, lt=1 << 63)]
_Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class ShardRecord(_Record):
    """One tar: how many samples and bytes it has, and its hash."""

    samples: _Count
    bytes: _Count
    sha256: str


class LostRecord(_Record):
    """What is lost of one class in a split: see :class:`~cardamage.data.coco.masks.Loss`."""

    images: _Count
    """Images that lose an annotation."""
    annotations: _Count
    """All that the class has."""
    no_outline: _Count = 0
    no_area: _Count = 0
    too_thin: _Count = 0
    hidden: _Count = 0
    pixels: _Count = 0


class SplitRecord(_Record):
    """One split: its tars by number, its index, and what its masks hold."""

    samples: _Count
    shards: list[ShardRecord]
    index_sha256: str
    pixels: list[_Count]
    """Pixels of each class id over all masks as packed."""
    overlapped_pixels: _Count
    """Pixels, at the images' original size, that two or more painted annotations cover."""
    lost: dict[str, LostRecord] = {}
    """By class, of those that lose annotations at the size that is packed; absent without any."""
    left_out: dict[str, str] = {}
    """Images that were not packed, and why, by file name; absent without any."""


class AgreementRecord(_Record):
    """See :class:`~cardamage.data.curation.agreement.Agreement`."""

    photos: _Count
    dice: float
    low: float
    high: float
    classes: dict[str, float]


class Manifest(_Record):
    """What a folder of shards holds and what it was made of."""

    version: int
    dataset: str
    fingerprint: str
    """Hex SHA-256 of what was packed and how; see :mod:`cardamage.data.shards.fingerprint`."""
    class_names: list[str]
    """By class id, background first."""
    options: dict[str, Any]
    """How it was packed: classes, drop, image_size, subset, image_format, samples_per_shard."""
    image_size: tuple[_Side, _Side] = Field(strict=False)
    """Height and width of every image and mask, in pixels."""
    rasteriser: str
    encoder: str
    splits: dict[str, SplitRecord]
    label_agreement: AgreementRecord | None = None
    """Of photos labelled more than once; absent without any."""
    sha256: str | None = None
    """Of all the rest, so that a flipped bit is noticed; older manifests have none."""


def write_manifest(paths: ShardPaths, manifest: Manifest) -> None:
    """Publish the manifest; from then on the shards count as complete."""
    signed = manifest.model_copy(update={"sha256": _hash_of(manifest)})
    write_text(paths.manifest, signed.model_dump_json(indent=2, exclude_unset=True) + "\n")


def _hash_of(manifest: Manifest) -> str:
    # Without what is not set, or a field that a later version adds would damage older manifests.
    content = manifest.model_dump(mode="json", exclude={"sha256"}, exclude_unset=True)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(paths: ShardPaths) -> Manifest:
    """The manifest of a shard folder.

    Raises:
        DataError: there is none, it is damaged, or another version of the layout wrote it.
    """
    try:
        with naming(paths.manifest):
            text = paths.manifest.read_text(encoding="utf-8")
        version = json.loads(text)["version"]
    except FileNotFoundError:
        raise DataError(
            f"{paths.root} holds no complete shards (it has no manifest.json); {REPACK}"
        ) from None
    except (IsADirectoryError, ValueError, TypeError, KeyError, RecursionError):
        raise _damaged_manifest(paths) from None
    if version != VERSION:
        raise DataError(
            f"{paths.manifest} has version {str(version)[:20]} of the layout, not {VERSION}; "
            f"delete {paths.root} and {REPACK}"
        )
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError:
        raise _damaged_manifest(paths) from None
    if manifest.sha256 not in (None, _hash_of(manifest)):
        raise _damaged_manifest(paths)
    return manifest


def fault_in_size(path: Path, expected: int) -> str | None:
    """What is wrong with a file that should have ``expected`` bytes; None when it has them."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        return "is missing"
    return None if found == expected else f"has {found} bytes, not {expected}"


def _damaged_manifest(paths: ShardPaths) -> DataError:
    return DataError(f"{paths.manifest} is damaged; {REPACK}")
