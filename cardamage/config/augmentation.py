"""The sections that say what is done to training images and their masks."""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from cardamage.config.recipe import Section


def _rises(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        low, high = value
        raise ValueError(f"the first must not be above the second; it is [{low:g}, {high:g}]")
    return value


_Rises = AfterValidator(_rises)
Probability = Annotated[float, Field(ge=0, le=1)]
_Scale = Annotated[float, Field(ge=0.25, le=4)]
_Area = Annotated[float, Field(ge=0.01, le=1)]
_Ratio = Annotated[float, Field(ge=0.25, le=4)]
_BlurSigma = Annotated[float, Field(gt=0, le=10)]
_NoiseSigma = Annotated[float, Field(ge=0, le=64)]
_Side = Annotated[int, Field(ge=8, le=8192)]
_Quality = Annotated[int, Field(ge=1, le=100)]


class HorizontalFlip(Section):
    """Mirror left to right."""

    name: Literal["horizontal_flip"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that a sample is mirrored."""


class VerticalFlip(Section):
    """Mirror top to bottom."""

    name: Literal["vertical_flip"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that a sample is mirrored."""


class Affine(Section):
    """Turn, scale, move and slant about the centre; what comes from outside is background."""

    name: Literal["affine"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that it is done to a sample."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 10.0
    """Most degrees it is turned, either way."""
    scale: Annotated[tuple[_Scale, _Scale], Field(strict=False), _Rises] = (0.9, 1.1)
    """By how much it is enlarged: lowest and highest; below 1 it becomes smaller."""
    translate: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """How far it is moved at most, either way, as a share of the height and of the width."""
    shear: Annotated[float, Field(ge=0, le=45)] = 0.0
    """Most degrees that upright lines are slanted, either way."""


class RandomResizedCrop(Section):
    """A part of the image, enlarged to the size of the whole."""

    name: Literal["random_resized_crop"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that it is done to a sample."""
    scale: Annotated[tuple[_Area, _Area], Field(strict=False), _Rises] = (0.25, 1.0)
    """The part's share of the image's area: lowest and highest."""
    ratio: Annotated[tuple[_Ratio, _Ratio], Field(strict=False), _Rises] = (0.75, 1.33)
    """The part's width to height, 1 being the shape of the image: lowest and highest."""
    on_damage: Probability = 0.0
    """Chance that the part holds a pixel drawn from all that are not background, if there are."""


class Crop(Section):
    """Cut a part of fixed size out; validating, testing and predicting go by tiles of that size."""

    name: Literal["crop"]
    """The augmentation."""
    size: Annotated[tuple[_Side, _Side], Field(strict=False)]
    """Height and width of the part, in pixels."""
    on_damage: Probability = 0.5
    """Chance that the part is placed so that it holds a pixel of damage, where there is one."""

    probability: ClassVar[float] = 1.0


class Colour(Section):
    """Change brightness, contrast, saturation and hue, in this order, as ColorJitter does each."""

    name: Literal["colour"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that it is done to a sample."""
    brightness: Probability = 0.2
    """The factor is at least 1 less this, at most 1 plus this; 0 leaves it."""
    contrast: Probability = 0.2
    """The factor is at least 1 less this, at most 1 plus this; 0 leaves it."""
    saturation: Probability = 0.2
    """The factor is at least 1 less this, at most 1 plus this; 0 leaves it."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Most that the hue is turned, either way, as a share of the colour circle."""


class Blur(Section):
    """Blur with a Gaussian."""

    name: Literal["blur"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that it is done to a sample."""
    sigma: Annotated[tuple[_BlurSigma, _BlurSigma], Field(strict=False), _Rises] = (0.2, 1.5)
    """Standard deviation of the Gaussian in pixels: lowest and highest."""


class Noise(Section):
    """Add Gaussian noise to every pixel and channel."""

    name: Literal["noise"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that it is done to a sample."""
    sigma: Annotated[tuple[_NoiseSigma, _NoiseSigma], Field(strict=False), _Rises] = (2.0, 8.0)
    """Standard deviation, where white is 255: lowest and highest."""


class Jpeg(Section):
    """Compress as JPEG and decode again, on the CPU."""

    name: Literal["jpeg"]
    """The augmentation."""
    probability: Probability = 0.5
    """Chance that it is done to a sample."""
    quality: Annotated[tuple[_Quality, _Quality], Field(strict=False), _Rises] = (40, 95)
    """JPEG's quality, from 1 to 100: lowest and highest."""


Augmentation = Annotated[
    HorizontalFlip
    | VerticalFlip
    | Affine
    | RandomResizedCrop
    | Crop
    | Colour
    | Blur
    | Noise
    | Jpeg,
    Field(discriminator="name"),
]
