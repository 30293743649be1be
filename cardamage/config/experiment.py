"""The experiment file: its schema, its loading and its overrides.

Reading a config imports neither torch nor numpy, so a launcher stays quick. Every complaint is one
line that names the file, the key's path, what is allowed and the nearest valid name.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from cardamage.config import yaml12
from cardamage.config.augmentation import Augmentation, Crop
from cardamage.config.dataset import SYNTHETIC, Data
from cardamage.config.recipe import (
    AdamW,
    ConstantSchedule,
    CrossEntropy,
    Ema,
    Loss,
    Model,
    Optim,
    Schedule,
    Section,
    SegNet,
    UNet,
)

SelectBy = Literal[
    "loss", "dice", "iou", "accuracy", "dice_fg", "iou_fg", "mdice", "miou"
]  # "loss" is best when lowest, the others when highest


class KeepEvery(Section):
    """Keep the checkpoint of every n-th epoch."""

    every: Annotated[int, Field(ge=1)]
    """n."""


class Train(Section):
    """How long and in which portions the model is trained."""

    epochs: Annotated[int, Field(ge=1, le=9999)] = 10
    """Epochs in all; raise it to train a finished run further."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Images per optimiser step over all processes together."""
    micro_batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    """Most images one process handles at a time; auto finds it. The rest is accumulated."""
    mixed_precision: Literal["no", "fp16", "bf16", "auto"] = "no"
    """Arithmetic of the forward pass; auto: bf16 where the device is quick at it, else no."""
    save_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = 10.0
    """Minutes between saves of the state within an epoch; null saves when epochs end only."""
    save_steps: Annotated[int, Field(ge=1)] | None = None
    """Steps between saves of the state within an epoch."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation score (`test.select_by`) after which training ends."""
    keep: Literal["all", "best_and_last"] | KeepEvery = "all"
    """Which epochs' checkpoints stay: all, best_and_last, or {every: n}, with best and last."""
    compile: bool = False
    """Have torch.compile translate the network: slow to begin, then quicker, on a GPU above all."""
    sync_batchnorm: bool = False
    """Normalise by the statistics of all processes' images together; several need GPUs for it."""
    deterministic: bool = False
    """Use only algorithms that give the same bits every time; slower on a GPU."""


class Test(Section):
    """How every epoch's checkpoint is tested, and which one is called best."""

    __test__ = False  # not a pytest class

    split: Literal["train", "valid", "test"] = "test"
    """The split the checkpoints are tested on; valid where the dataset has no test split."""
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images per forward pass of one process; the training batch size when left out."""
    select_by: SelectBy = "dice_fg"
    """Score on the validation split that chooses the best epoch; with several classes miou."""
    flip: bool = False
    """Look at each image mirrored as well, and take the mean of the probabilities."""
    overlays: Annotated[int, Field(ge=0, le=5000)] = 500
    """Test images whose predicted maps are kept for the report; each takes about 1 kB an epoch."""


Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
"""An experiment tracker, by the name of its package and of Accelerate's class for it."""


class Notify(Section):
    """Who is told when the run is done, failed or hung: a command, a URL, or both."""

    command: Annotated[str, Field(min_length=1)] | None = None
    """Run by the shell; $CARDAMAGE_MESSAGE, $CARDAMAGE_STATE and $CARDAMAGE_RUN tell the rest."""
    url: Annotated[str, Field(min_length=1)] | None = None
    """A service as apprise writes it, such as ntfy://topic; $NAME is taken from the environment."""

    @model_validator(mode="after")
    def _tells_somebody(self) -> Self:
        if self.command is None and self.url is None:
            raise ValueError("notify: give command or url, or leave the section out")
        return self


class ContinueFrom(Section):
    """Start from the weights of another run's checkpoint, with a new optimiser, at epoch 1.

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

    name: Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "run"
    """The run directory's name, by default the file's: letters, digits, dot, dash, underscore."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the weights, of the order of samples and of augmentation."""
    data: Data
    """Where the images come from and how they are packed."""
    model: Model = UNet(name="unet2")
    """The network; by default a U-Net with skip connections."""
    continue_from: ContinueFrom | None = None
    """Start from the weights of another run's checkpoint; left out, from random ones."""
    loss: Loss | Annotated[list[Loss], Field(min_length=1)] = CrossEntropy()
    """What is minimised: a loss, or a list of them, which are added up by their weights."""
    optim: Optim = AdamW(name="adamw")
    """The optimiser; by default AdamW at a learning rate of 0.001."""
    schedule: Schedule = ConstantSchedule()
    """How the learning rate changes over the steps; by default not at all."""
    ema: Ema | None = None
    """Average the weights over the steps; left out, those of the last step count."""
    augment: list[Augmentation] = []
    """What is done to training images and their masks, in this order."""
    train: Train = Train()
    """How long and in which portions the model is trained."""
    test: Test = Test()
    """How every epoch's checkpoint is tested, and which one is called best."""
    track: list[Tracker] = []
    """Trackers that show each epoch while training runs, then test scores and sample pictures."""
    notify: Notify | None = None
    """Who is told when the run is done, failed or hung; left out, nobody."""

    @model_validator(mode="before")
    @classmethod
    def _several_classes_are_chosen_by_miou(cls, values: Any) -> Any:
        match values:
            case {"data": {"classes": list() | dict() as classes}} if len(classes) > 1:
                test = values.get("test", {})
                if isinstance(test, dict):
                    return {**values, "test": {"select_by": "miou", **test}}
        return values

    @model_validator(mode="after")
    def _size_suits_model(self) -> Self:
        crops = [step.size for step in self.augment if isinstance(step, Crop)]
        if len(crops) > 1:
            raise ValueError("augment: crop is there twice; leave one out")
        limit = self.data.image_size
        if crops and (crops[0][0] > limit[0] or crops[0][1] > limit[1]):
            raise ValueError(
                f"augment: crop.size is {list(crops[0])}, larger than data.image_size, which is "
                f"{list(limit)}; lower the one or raise the other"
            )
        if isinstance(self.model, SegNet | UNet) and any(s % 8 for s in self.network_size):
            height, width = self.network_size
            key = "augment: crop.size" if crops else "data.image_size"
            raise ValueError(
                f"{self.model.name} halves the image three times, so {key} must be "
                f"multiples of 8, not [{height}, {width}]; "
                f"the nearest is [{max(1, round(height / 8)) * 8}, {max(1, round(width / 8)) * 8}]"
            )
        return self

    @model_validator(mode="after")
    def _recipe_is_consistent(self) -> Self:
        classes = self.data.class_names
        for loss in self.losses:
            weights = loss.class_weights if isinstance(loss, CrossEntropy) else "none"
            if isinstance(weights, list) and len(weights) != len(classes):
                raise ValueError(
                    f"loss.class_weights: must have one weight for each of {', '.join(classes)}; "
                    f"it has {len(weights)} for {len(classes)}"
                )
        if self.optim.encoder_lr != 1 and isinstance(self.model, SegNet | UNet):
            raise ValueError(
                f"optim.encoder_lr: {self.model.name} has no encoder that could be pretrained; "
                f"leave it out, or take model.name=smp"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        warm_up, epochs = self.schedule.warmup_epochs, self.train.epochs
        if warm_up >= epochs:
            raise ValueError(
                f"schedule.warmup_epochs: must be less than train.epochs, which is {epochs}; "
                f"it is {warm_up:g}"
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
    def weights(self) -> str:
        """The pretrained weights that training begins with, as `model.weights` names them."""
        return "none" if isinstance(self.model, SegNet | UNet) else self.model.weights

    @property
    def tile(self) -> tuple[int, int] | None:
        """Height and width of the crops that are trained on and the tiles that are tested."""
        return next((step.size for step in self.augment if isinstance(step, Crop)), None)

    @property
    def network_size(self) -> tuple[int, int]:
        """Height and width of what the network sees, in pixels: images, or parts of them."""
        return self.tile or self.data.image_size

    @property
    def losses(self) -> list[Loss]:
        """The losses that are added up, one or several."""
        return self.loss if isinstance(self.loss, list) else [self.loss]

    @property
    def evaluation_batch_size(self) -> int:
        """Images per forward pass of an evaluation; the same on any number of processes."""
        micro = self.train.micro_batch_size
        return self.test.batch_size or (micro if micro != "auto" else None) or self.train.batch_size

    def training_settings(self, *, with_defaults: bool = True) -> dict[str, Any]:
        """All that the weights of an epoch depend on.

        Left out are the name, how many epochs there are (unless the schedule spans them), when the
        state is saved, how many threads decode, where the shards lie, trackers, who is told, and
        the test section.

        Args:
            with_defaults: list settings at their defaults too.
        """
        left_out: dict[str, Any] = {
            "name": True,
            "test": True,
            "track": True,
            "notify": True,
            "train": {
                "save_minutes",
                "save_steps",
                "keep",
                *(() if self.schedule.spans_epochs else ("epochs",)),
            },
            "data": {
                "workers",
                "shards_dir",
                "storage",
                *({"subset_by"} if self.data.subset == 1 else ()),
            },
        }
        found = self.model_dump(mode="json", exclude=left_out, exclude_defaults=not with_defaults)
        # A list, for the order of the classes is that of their ids, and mappings have none.
        groups = self.data.class_groups.items()
        found["data"]["classes"] = [{name: list(group)} for name, group in groups]
        return found

    def identity(self) -> dict[str, Any]:
        """What makes two starts the same run: the settings that are not at their defaults.

        A setting that a later version adds, off by default, leaves older runs their identity. Where
        a dataset lies does not count: what is in it does, by the fingerprint of its shards.
        """
        found = self.training_settings(with_defaults=False)
        if self.data.source != SYNTHETIC:
            del found["data"]["source"]
        return {key: value for key, value in found.items() if value != {}}

    def hash(self) -> str:
        """Hex SHA-256 of :meth:`identity`, 16 characters."""
        text = json.dumps(self.identity(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The resolved config: every default written out."""
        return yaml12.dump(self.model_dump(mode="json"))
