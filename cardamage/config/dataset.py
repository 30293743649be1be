"""The section ``data`` of an experiment: where images come from, and how they are packed."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, field_validator, model_validator

from cardamage.config.recipe import Section
from cardamage.errors import ConfigError
from cardamage.labels import BACKGROUND, MAX_CLASSES

SYNTHETIC = "synthetic"
"""The ``data.source`` that is drawn instead of read."""

SubsetBy = Literal["name", "stratified"]
Boxes = Literal["refuse", "paint", "drop_image"]
PaintOrder = Literal["file", "large_first"]


def may_lack(*, deals_all: bool, deals_valid: bool) -> tuple[str, ...]:
    """The splits that a source need not have where all, or valid, are dealt from what it has."""
    if deals_all:
        return ("train", "valid", "test")
    return ("valid", "test") if deals_valid else ("test",)


class Synthetic(Section):
    """What is drawn when `data.source` is "synthetic"."""

    images: Annotated[int, Field(ge=8, le=100_000)] = 60
    """Images over the three splits together."""
    size: Annotated[int, Field(ge=32, le=4096)] = 96
    """Height and width of each image, in pixels."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the drawing."""


class Split(Section):
    """How all images are dealt to train, valid and test; copies of a photo stay together."""

    shares: Annotated[tuple[float, float, float], Field(strict=False)] = (0.7, 0.15, 0.15)
    """Of train, valid and test: each above 0, together 1."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Another seed makes another split."""

    @field_validator("shares")
    @classmethod
    def _shares_are_whole(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not (min(value) > 0 and abs(sum(value) - 1) <= 1e-6):
            raise ValueError(f"{list(value)}: give three shares above 0 that make 1 together")
        return value


class Folds(Section):
    """Cross-validation: train and valid together, dealt to folds, one of which is validated on."""

    of: Annotated[int, Field(ge=2, le=100)] = 5
    """How many folds; copies of a photo are in the same."""
    fold: Annotated[int, Field(ge=0)] = 0
    """The fold that is valid, from 0; the others are train."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Another seed makes other folds."""

    @model_validator(mode="after")
    def _fold_is_there(self) -> Self:
        if self.fold >= self.of:
            raise ValueError(f"fold: must be less than of, which is {self.of}; it is {self.fold}")
        return self


class Storage(Section):
    """Where packed shards lie when they are not on a disk of their own."""

    url: Annotated[str, Field(pattern=r"^[a-z0-9+.-]+://.+")]
    """A folder in object storage, as fsspec names it, such as s3://bucket/shards."""
    cache_gb: Annotated[float, Field(ge=0)] = 50.0
    """Gigabytes of shards that are kept on a disk; the others are read each time."""
    cache_dir: Annotated[str, Field(min_length=1)] | None = None
    """The folder on a node's disk that they are kept in; left out, one in `data.shards_dir`."""

    def require_package(self) -> None:
        """Raise ConfigError where fsspec does not know the address, or lacks a package for it."""
        import fsspec  # noqa: PLC0415 - few datasets lie in a storage

        try:
            fsspec.get_filesystem_class(self.url.partition("://")[0])
        except ValueError:
            raise ConfigError(
                f"data.storage.url: {self.url} is unknown to fsspec; give an address such as "
                f"s3://bucket/folder, gs://bucket/folder or file:///folder"
            ) from None
        except ImportError as error:
            raise ConfigError(
                f"data.storage.url: {self.url} needs a package ({error}); for S3 run: "
                f"pip install 'cardamage-runner[s3]'"
            ) from None


class Data(Section):
    """Where the images come from and how they are packed."""

    source: Annotated[str, Field(min_length=1)]
    """A COCO export, folder or .zip, in any tool's layout; or "synthetic"."""
    annotations: dict[str, str] = Field(default={})
    """Annotation files by split, from the top of the source, where several could be meant."""
    split: Split | None = None
    """Deal all images to splits anew; left out, the source's splits are kept."""
    valid_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of train that becomes the valid split, by photo, where the source has none."""
    folds: Folds | None = None
    """Train on all folds of train and valid but one, which is valid; test stays as it is."""
    classes: (
        Annotated[list[str], Field(min_length=1)]
        | Annotated[dict[str, list[str]], Field(min_length=1)]
    )
    """Classes 1, 2, ... in this order: category names, or {class: [categories]} to group."""
    drop: list[str] = Field(default=[])
    """Categories that are left as background."""
    healthy: Annotated[str, Field(min_length=1)] | None = None
    """A folder of photos without damage, dealt to train, valid and test (0.7, 0.15, 0.15)."""
    image_size: Annotated[tuple[StrictInt, StrictInt], Field(strict=False)] = (240, 240)
    """Height and width the images are packed at, in pixels."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of every split that is used; a larger share holds the images of a smaller one."""
    subset_by: SubsetBy = "stratified"
    """Which: a stratified sample of the categories shown, or the first by sorted file name."""
    skip_broken: bool = False
    """Leave out images that cannot be read, or whose annotations cannot; the report lists them."""
    image_format: Literal["jpg", "png"] = "jpg"
    """How images are stored in the shards: jpg (quality 95) or png (lossless)."""
    boxes: Boxes = "refuse"
    """Annotations with a box and no outline: refuse, paint the box, or leave out their images."""
    paint_order: PaintOrder = "file"
    """Which annotation is painted last where several overlap: the file's last, or the smallest."""
    shards_dir: Annotated[str, Field(min_length=1)] = "shards"
    """The folder of the packed datasets; runs that pack alike share one."""
    storage: Storage | None = None
    """Object storage that holds the shards, for a dataset that is larger than the disk."""
    balance: Literal["none", "classes"] = "none"
    """Whether training draws images that show rarer classes more often, and others less."""
    workers: Annotated[int, Field(ge=0, le=64)] = 2
    """Threads of each process that decode samples ahead; 0 decodes in step with training."""
    synthetic: Synthetic = Synthetic()
    """What is drawn when `source` is "synthetic"."""

    @field_validator("image_size")
    @classmethod
    def _size_is_sane(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(8 <= side <= 8192 for side in value):
            raise ValueError(
                f"height and width must lie between 8 and 8192 pixels; it is {list(value)}"
            )
        return value

    @model_validator(mode="after")
    def _classes_are_distinct(self) -> Self:
        groups = self.class_groups
        if len(groups) > MAX_CLASSES:
            raise ValueError(f"there are {len(groups)} classes; at most {MAX_CLASSES} fit a mask")
        if isinstance(self.classes, list) and len(groups) < len(self.classes):
            twice = next(name for name in self.classes if self.classes.count(name) > 1)
            raise ValueError(f'classes names "{twice}" twice; keep one')
        seen: dict[str, str] = dict.fromkeys(self.drop, "drop")
        for class_name, categories in groups.items():
            if class_name in ("", BACKGROUND):
                raise ValueError(f'a class cannot be called "{class_name}"; id 0 is the background')
            if not categories:
                raise ValueError(f'class "{class_name}" has no categories; name at least one')
            for category in categories:
                if seen.get(category) == class_name:
                    raise ValueError(
                        f'class "{class_name}" names category "{category}" twice; keep one'
                    )
                if category in seen:
                    raise ValueError(
                        f'category "{category}" is in both "{seen[category]}" and '
                        f'"{class_name}"; keep one'
                    )
                seen[category] = class_name
        return self

    @model_validator(mode="after")
    def _splits_come_one_way(self) -> Self:
        if other := self.annotations.keys() - {"train", "valid", "test"}:
            raise ValueError(f'annotations names "{min(other)}"; allowed: train, valid, test')
        if self.split and self.valid_share:
            raise ValueError("split makes a valid split too; leave valid_share out")
        if self.folds and (self.split or self.valid_share):
            other_key = "split" if self.split else "valid_share"
            raise ValueError(f"folds makes a valid split too; leave {other_key} out")
        return self

    @property
    def may_lack(self) -> tuple[str, ...]:
        """The splits that the source need not have."""
        return may_lack(
            deals_all=bool(self.split), deals_valid=bool(self.valid_share or self.folds)
        )

    @property
    def class_groups(self) -> dict[str, tuple[str, ...]]:
        """The categories of each class, in the order of the class ids 1, 2, ..."""
        if isinstance(self.classes, dict):
            return {name: tuple(group) for name, group in self.classes.items()}
        return {name: (name,) for name in self.classes}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class name by id; id 0 is the background."""
        return (BACKGROUND, *self.class_groups)

    def packing(self) -> dict[str, Any]:
        """What packing depends on: runs in which it is equal share one packed dataset."""
        left_out = {"classes", "workers", "balance"}
        if self.source != SYNTHETIC:
            left_out.add("synthetic")
        if self.subset == 1:
            left_out.add("subset_by")
        # At their defaults they are left out, so that what was packed before is found.
        added = ("boxes", "paint_order", "skip_broken", "healthy", "storage")
        left_out |= {
            key for key in added if getattr(self, key) == type(self).model_fields[key].default
        }
        # A list, for the order of the classes is that of their ids, and mappings have none.
        classes = [[name, list(group)] for name, group in self.class_groups.items()]
        found = {**self.model_dump(mode="json", exclude=left_out), "classes": classes}
        if self.storage:  # how much of it is kept where is another matter
            found["storage"] = self.storage.url
        return found
