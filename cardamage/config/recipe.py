"""The sections that say how a model is trained: network, loss, optimiser, schedule, average.

Each kind is a union of sections that are told apart by their ``name``.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the config: unknown keys refused, types not converted, values frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


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


WEIGHT_FILES = (".safetensors", ".pth", ".pt")
"""How a file of weights is named; ``weights`` of another ending names a run."""

Weights = Annotated[str, Field(min_length=1)]


class TorchvisionModel(Section):
    """A torchvision segmentation model, without auxiliary head."""

    name: Literal["fcn_resnet50", "deeplabv3_resnet50"]
    """Which of torchvision's models."""
    weights: Weights = "none"
    """What training begins with: imagenet (the backbone), none, a file, or a run."""


class SmpModel(Section):
    """A network of segmentation-models-pytorch: an architecture around an encoder."""

    name: Literal["smp"]
    """The package."""
    architecture: Literal[
        "unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus",
        "pan", "upernet", "segformer", "dpt",
    ] = "unet"  # fmt: skip
    """How the encoder's features become a map."""
    encoder: Annotated[str, Field(min_length=1)] = "tu-tf_efficientnet_lite0"
    """The encoder, by the package's name for it; tu- and a name of timm for one of timm's."""
    weights: Weights = "imagenet"
    """What training begins with: imagenet (the encoder), none, a file, or a run."""


Model = Annotated[SegNet | UNet | TorchvisionModel | SmpModel, Field(discriminator="name")]

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class CrossEntropy(Section):
    """Per-pixel cross-entropy on logits."""

    name: Literal["cross_entropy"] = "cross_entropy"
    """The loss."""
    weight: Rate = 1.0
    """What it is multiplied by, in a list of losses."""
    class_weights: Literal["none", "balanced"] | Rate | list[Rate] = "none"
    """By class: none, balanced, one number for all but the background, or one each."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""


class Dice(Section):
    """Soft Dice loss: what is lacking to full overlap, as a mean over the classes."""

    name: Literal["dice"]
    """The loss."""
    weight: Rate = 1.0
    """What it is multiplied by, in a list of losses."""
    classes: Literal["all", "shown"] = "all"
    """Which enter an image's mean: all, or those that its mask shows."""


class Tversky(Section):
    """Soft Tversky loss: Dice loss with a price of its own for each kind of mistake."""

    name: Literal["tversky"]
    """The loss."""
    weight: Rate = 1.0
    """What it is multiplied by, in a list of losses."""
    classes: Literal["all", "shown"] = "all"
    """Which enter an image's mean: all, or those that its mask shows."""
    false_positive: Rate = 0.3
    """Price of pixels that are painted and should not be."""
    false_negative: Rate = 0.7
    """Price of pixels that are not painted and should be."""


class Focal(Section):
    """Focal loss: cross-entropy in which pixels that are right already count less."""

    name: Literal["focal"]
    """The loss."""
    weight: Rate = 1.0
    """What it is multiplied by, in a list of losses."""
    gamma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.0
    """How much less: a pixel counts (1 - probability of its class) to this power."""


class Lovasz(Section):
    """Lovász-softmax loss: a surrogate of the IoU, as a mean over the classes an image shows."""

    name: Literal["lovasz"]
    """The loss."""
    weight: Rate = 1.0
    """What it is multiplied by, in a list of losses."""


Loss = Annotated[CrossEntropy | Dice | Tversky | Focal | Lovasz, Field(discriminator="name")]

Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
WarmUp = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Betas = Annotated[tuple[Fraction, Fraction], Field(strict=False)]


class Adam(Section):
    """Adam."""

    name: Literal["adam"]
    """The optimiser."""
    lr: Rate = 0.001
    """Learning rate, at its highest: `schedule` scales it."""
    betas: Betas = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: Decay = 0.0
    """L2 penalty."""
    decay_norms: bool = True
    """Whether weight decay is also for biases and the weights of normalisation."""
    encoder_lr: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The encoder's learning rate, as a share of `lr`."""
    clip_norm: Rate | None = None
    """Gradients that are longer than this, all together, are scaled down to it."""


class AdamW(Section):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"]
    """The optimiser."""
    lr: Rate = 0.001
    """Learning rate, at its highest: `schedule` scales it."""
    betas: Betas = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square."""
    weight_decay: Decay = 0.01
    """Decoupled weight decay."""
    decay_norms: bool = True
    """Whether weight decay is also for biases and the weights of normalisation."""
    encoder_lr: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The encoder's learning rate, as a share of `lr`."""
    clip_norm: Rate | None = None
    """Gradients that are longer than this, all together, are scaled down to it."""


class SGD(Section):
    """Stochastic gradient descent."""

    name: Literal["sgd"]
    """The optimiser."""
    lr: Rate = 0.01
    """Learning rate, at its highest: `schedule` scales it."""
    momentum: Fraction = 0.0
    """Momentum."""
    weight_decay: Decay = 0.0
    """L2 penalty."""
    decay_norms: bool = True
    """Whether weight decay is also for biases and the weights of normalisation."""
    encoder_lr: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The encoder's learning rate, as a share of `lr`."""
    clip_norm: Rate | None = None
    """Gradients that are longer than this, all together, are scaled down to it."""


Optim = Annotated[Adam | AdamW | SGD, Field(discriminator="name")]


class ConstantSchedule(Section):
    """The same learning rate throughout, behind the warm-up."""

    name: Literal["constant"] = "constant"
    """The schedule."""
    warmup_epochs: WarmUp = 0.0
    """Epochs over which the rate first rises linearly from near 0; a fraction is allowed."""

    spans_epochs: ClassVar[bool] = False  # whether the rate of a step depends on train.epochs


class CosineSchedule(Section):
    """Down to 0 at the end of the last epoch, along half a cosine."""

    name: Literal["cosine"]
    """The schedule."""
    warmup_epochs: WarmUp = 0.0
    """Epochs over which the rate first rises linearly from near 0; a fraction is allowed."""

    spans_epochs: ClassVar[bool] = True  # whether the rate of a step depends on train.epochs


class PolySchedule(Section):
    """Down to 0 at the end of the last epoch, along a power of the share of steps that are left."""

    name: Literal["poly"]
    """The schedule."""
    power: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.9
    """The power; 1 is a straight line."""
    warmup_epochs: WarmUp = 0.0
    """Epochs over which the rate first rises linearly from near 0; a fraction is allowed."""
    spans_epochs: ClassVar[bool] = True  # whether the rate of a step depends on train.epochs


class OneCycleSchedule(Section):
    """Up along half a cosine, then down along another to almost nothing at the end."""

    name: Literal["one_cycle"]
    """The schedule."""
    rise: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """Share of the steps that go up."""
    start: Annotated[float, Field(gt=0, lt=1)] = 0.04
    """The first rate, as a share of the highest."""
    end: Annotated[float, Field(gt=0, lt=1)] = 4e-6
    """The last rate, as a share of the highest."""

    warmup_epochs: ClassVar[float] = 0.0  # the rise is one
    spans_epochs: ClassVar[bool] = True  # whether the rate of a step depends on train.epochs


Schedule = Annotated[
    ConstantSchedule | CosineSchedule | PolySchedule | OneCycleSchedule, Field(discriminator="name")
]


class Ema(Section):
    """An exponential moving average of the weights: what is validated, saved and tested."""

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Share of the average that each step keeps; at first less, (1 + step) / (10 + step)."""
