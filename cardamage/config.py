"""The experiment file: its schema, its loading and its overrides.

Reading a config imports neither torch nor numpy, so a launcher stays quick. Every complaint is one
line that names the file, the key's path, what is allowed and the nearest valid name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from cardamage import yaml12
from cardamage.complaints import explain
from cardamage.errors import ConfigError
from cardamage.labels import BACKGROUND, MAX_CLASSES

SYNTHETIC = "synthetic"
"""The ``data.source`` that is drawn instead of read."""

SelectBy = Literal[
    "loss", "dice", "iou", "accuracy", "dice_fg", "iou_fg", "mdice", "miou"
]  # "loss" is best when lowest, the others when highest


SubsetBy = Literal["name", "stratified"]


class Section(BaseModel):
    """A part of the config: unknown keys refused, types not converted, values frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Synthetic(Section):
    """What is drawn when `data.source` is "synthetic"."""

    images: Annotated[int, Field(ge=8, le=100_000)] = 60
    """Images over the three splits together."""
    size: Annotated[int, Field(ge=32, le=4096)] = 96
    """Height and width of each image, in pixels."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the drawing."""


class Data(Section):
    """Where the images come from and how they are packed."""

    source: Annotated[str, Field(min_length=1)]
    """A COCO export, folder or .zip, with train/, valid/ and test/; or "synthetic"."""
    classes: (
        Annotated[list[str], Field(min_length=1)]
        | Annotated[dict[str, list[str]], Field(min_length=1)]
    )
    """Classes 1, 2, ... in this order: category names, or {class: [categories]} to group."""
    drop: list[str] = []
    """Categories that are left as background."""
    image_size: Annotated[tuple[StrictInt, StrictInt], Field(strict=False)] = (240, 240)
    """Height and width the images are packed at, in pixels."""
    subset: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of every split that is used; a larger share holds the images of a smaller one."""
    subset_by: SubsetBy = "name"
    """Which: the first by sorted file name, or a stratified sample of the categories shown."""
    image_format: Literal["jpg", "png"] = "jpg"
    """How images are stored in the shards: jpg (quality 95) or png (lossless)."""
    shards_dir: Annotated[str, Field(min_length=1)] = "shards"
    """The folder of the packed datasets; runs that pack alike share one."""
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
        left_out = {"classes", "workers"}
        if self.source != SYNTHETIC:
            left_out.add("synthetic")
        if self.subset == 1:
            left_out.add("subset_by")
        # A list, for the order of the classes is that of their ids, and mappings have none.
        classes = [[name, list(group)] for name, group in self.class_groups.items()]
        return {**self.model_dump(mode="json", exclude=left_out), "classes": classes}


class SegNet(Section):
    """The study's SegNets: encoder and decoder without skips."""

    name: Literal["segnet1", "segnet2", "segnet3"]
    """segnet1 is large (47 M parameters), segnet2 and segnet3 are small (0.7 M, 1.5 M)."""
    softmax_output: bool = False
    """End in a softmax before cross-entropy, as the study did by mistake."""


class UNet(Section):
    """The study's U-Nets."""

    name: Literal["unet", "unet2"]
    """unet has no skip connections, unet2 has them."""


class TorchvisionModel(Section):
    """A torchvision segmentation model, from random weights and without auxiliary head."""

    name: Literal["fcn_resnet50", "deeplabv3_resnet50"]
    """Which of torchvision's models."""


Model = Annotated[SegNet | UNet | TorchvisionModel, Field(discriminator="name")]


class CrossEntropy(Section):
    """Per-pixel cross-entropy on logits."""

    name: Literal["cross_entropy"] = "cross_entropy"
    """The loss."""


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Betas = Annotated[tuple[Fraction, Fraction], Field(strict=False)]


class Adam(Section):
    """Adam."""

    name: Literal["adam"]
    """The optimiser."""
    lr: Rate = 0.001
    """Learning rate, constant."""
    betas: Betas = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: Decay = 0.0
    """L2 penalty."""


class AdamW(Section):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]
    """The optimiser."""
    lr: Rate = 0.001
    """Learning rate, constant."""
    betas: Betas = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: Decay = 0.01
    """Decoupled weight decay."""


class SGD(Section):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    """The optimiser."""
    lr: Rate = 0.01
    """Learning rate, constant."""
    momentum: Fraction = 0.0
    """Momentum."""
    weight_decay: Decay = 0.0
    """L2 penalty."""


Optim = Annotated[Adam | AdamW | SGD, Field(discriminator="name")]


class Train(Section):
    """How long and in which portions the model is trained."""

    epochs: Annotated[int, Field(ge=1, le=9999)] = 10
    """Epochs in all; raise it to train a finished run further."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images per optimiser step over all processes together."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Most images one process handles at a time; the rest of its share is accumulated."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Arithmetic of the forward pass; the weights stay float32."""
    horizontal_flip: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Chance that a training image is mirrored left to right."""
    save_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 10.0
    """Minutes between saves of the state within an epoch; null saves when epochs end only."""
    save_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between saves of the state within an epoch."""
    sync_batchnorm: bool = False
    """Normalise by the statistics of all processes' images together; several need GPUs for it."""
    deterministic: bool = False
    """Use only algorithms that give the same bits every time; slower on a GPU."""
    record_samples: bool = False
    """Write the samples every step really consumed to logs/samples-rank<rank>.jsonl."""


class Test(Section):
    """How every epoch's checkpoint is tested, and which one is called best."""

    __test__ = False  # not a pytest class

    split: Literal["train", "valid", "test"] = "test"
    """The split the checkpoints are tested on."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images per forward pass of one process; the training batch size when left out."""
    select_by: SelectBy = "dice_fg"
    """Score on the validation split by which the best epoch is chosen."""
    overlays: Annotated[int, Field(ge=0, le=64)] = 6
    """Test images whose predicted maps are kept for the report."""


class ContinueFrom(Section):
    """Start from the weights of another run's checkpoint; the optimiser and the epochs begin anew.

    Model and classes have to be those of the other run.
    """

    run: Annotated[str, Field(min_length=1)]
    """The other run: the name of a run directory beside this one, or a path, which has a slash."""
    checkpoint: Literal["best", "last"] | Annotated[int, Field(ge=1)] = "last"
    """last or best by its own rule, either once it is trained to its end; or that of an epoch."""

    @field_validator("checkpoint", mode="before")
    @classmethod
    def _checkpoint_is_known(cls, value: object) -> object:
        is_epoch = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_epoch and value not in ("best", "last"):
            shown = json.dumps(value, default=str)
            raise ValueError(f"{shown} is no checkpoint; allowed: best, last, or an epoch from 1")
        return value


class Experiment(Section):
    """One experiment: what a YAML file describes."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """The run directory's name: letters, digits, dot, dash and underscore."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the weights, of the order of samples and of augmentation."""
    data: Data
    """Where the images come from and how they are packed."""
    model: Model
    """The network."""
    continue_from: ContinueFrom | None = None
    """Start from the weights of another run's checkpoint; left out, from random ones."""
    loss: CrossEntropy = CrossEntropy()
    """What is minimised."""
    optim: Optim
    """The optimiser."""
    train: Train = Train()
    """How long and in which portions the model is trained."""
    test: Test = Test()
    """How every epoch's checkpoint is tested, and which one is called best."""

    @model_validator(mode="after")
    def _size_suits_model(self) -> Self:
        if isinstance(self.model, SegNet | UNet) and any(s % 8 for s in self.data.image_size):
            height, width = self.data.image_size
            raise ValueError(
                f"{self.model.name} halves the image three times, so data.image_size must be "
                f"multiples of 8, not [{height}, {width}]; "
                f"the nearest is [{max(1, round(height / 8)) * 8}, {max(1, round(width / 8)) * 8}]"
            )
        return self

    @model_validator(mode="after")
    def _does_not_continue_itself(self) -> Self:
        if self.continue_from and self.continue_from.run == self.name:
            raise ValueError(
                f'continue_from.run: "{self.name}" is this run itself; name another, or raise '
                f"train.epochs to train a run further"
            )
        return self

    @property
    def evaluation_batch_size(self) -> int:
        """Images per forward pass of an evaluation; the same on any number of processes."""
        return self.test.batch_size or self.train.micro_batch_size or self.train.batch_size

    def identity(self) -> dict[str, Any]:
        """What makes two starts the same run: all that the weights of an epoch depend on.

        Left out are the name, how many epochs there are, how many threads decode, where the shards
        lie, when the state is saved, what is logged, and the test section. So is a setting that was
        not there from the first version on, while it is off: older runs keep their identity.
        """
        identity = self.model_dump(mode="json", exclude={"name", "test"})
        for key in ("epochs", "save_minutes", "save_steps", "record_samples"):
            del identity["train"][key]
        for key in ("sync_batchnorm", "deterministic"):
            if not identity["train"][key]:
                del identity["train"][key]
        for key in ("workers", "shards_dir"):
            del identity["data"][key]
        if self.data.subset == 1 or self.data.subset_by == "name":
            del identity["data"]["subset_by"]  # runs from before the key stay theirs
        if self.continue_from is None:
            del identity["continue_from"]  # so that runs from before there was the key stay theirs
        # A list, for the order of the classes is that of their ids, and mappings have none.
        groups = self.data.class_groups.items()
        identity["data"]["classes"] = [{name: list(group)} for name, group in groups]
        return identity

    def hash(self) -> str:
        """Hex SHA-256 of :meth:`identity`, 16 characters."""
        text = json.dumps(self.identity())
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The resolved config: every default written out."""
        return yaml12.dump(self.model_dump(mode="json"))


def load(path: Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment a YAML file describes, with ``key=value`` overrides by dotted key.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or does not fit the schema.
    """
    return parse(yaml12.read_mapping(path), overrides, where=str(path))


def parse(
    values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "config"
) -> Experiment:
    """The experiment of ``values`` with overrides laid over it.

    Args:
        values: nested mappings as the YAML file has them; left as they are.
        overrides: ``dotted.key=value``; the value is read as YAML.
        where: named in front of every complaint.

    Raises:
        ConfigError: an override is malformed, or the outcome does not fit the schema.
    """
    if is_study(values):
        raise ConfigError(
            f"{where}: is a sweep or study, not an experiment; launch/submit.py runs it"
        )
    merged = json.loads(json.dumps(values, default=str))
    for override in overrides:
        _lay_over(merged, override)
    try:
        return Experiment.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, Experiment)}") from None


def is_study(values: Mapping[str, Any]) -> bool:
    """Whether the content of a YAML file is that of a sweep or study, right or wrong."""
    return "sweep" in values or "experiments" in values


def json_schema() -> str:
    """The JSON Schema of an experiment file, for editors that complete and check it."""
    schema = Experiment.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def differences(a: Experiment, b: Experiment) -> list[str]:
    """The keys in which two experiments are not the same run: ``optim.lr: 0.1, not 0.01``."""
    left, right = _flatten(a.identity()), _flatten(b.identity())
    return [
        f"{key}: {left.get(key, 'absent')}, not {right.get(key, 'absent')}"
        for key in {**left, **right}
        if left.get(key) != right.get(key)
    ]


def _lay_over(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(part.isidentifier() for part in key.split(".")):
        raise ConfigError(f'"{override}" is no override; write key=value, as in optim.lr=3e-4')
    try:
        value = yaml12.load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        raise ConfigError(f'{key}: the value "{text}" is not YAML; quote it') from None
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f'{key}: "{parent}" is {child!r}, which holds no keys')
        values = child
    values[last] = value


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
