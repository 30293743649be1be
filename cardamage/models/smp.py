"""Networks of segmentation-models-pytorch, and what can be asked of them before training."""

from torch import Tensor, nn

from cardamage.config.recipe import SmpModel
from cardamage.errors import ConfigError, did_you_mean


class SmpNetwork(nn.Module):
    """A network of segmentation-models-pytorch with random weights; nothing is downloaded."""

    def __init__(self, settings: SmpModel, classes: int) -> None:
        super().__init__()
        self.model = build_smp(settings, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes, H, W) of images (B, 3, H, W)."""
        logits: Tensor = self.model(images)
        return logits


def build_smp(settings: SmpModel, classes: int, weights: str | None = None) -> nn.Module:
    """The package's network; with ``weights``, its name for some, they are downloaded.

    Raises:
        ConfigError: there is no such encoder, or the architecture cannot take it.
    """
    import segmentation_models_pytorch as smp  # noqa: PLC0415 - it takes seconds

    try:
        network: nn.Module = smp.create_model(
            settings.architecture, settings.encoder, encoder_weights=weights, classes=classes
        )
    except (KeyError, ValueError, RuntimeError, TypeError, NotImplementedError) as error:
        known = encoder_names()
        if settings.encoder not in known:
            raise ConfigError(
                f'model.encoder: "{settings.encoder}" is unknown'
                f"{did_you_mean(settings.encoder, known)}; allowed: the encoders of "
                f"segmentation-models-pytorch, and timm's with tu- before their names"
            ) from None
        reason = " ".join(str(error).split())
        raise ConfigError(
            f'model.encoder: "{settings.encoder}" does not go with model.architecture '
            f'"{settings.architecture}" ({reason[:200]}); choose another of the two'
        ) from None
    return network


def encoder_names() -> list[str]:
    """Every encoder that the package and timm have, by the name that ``model.encoder`` takes."""
    import timm  # noqa: PLC0415 - it takes seconds
    from segmentation_models_pytorch.encoders import encoders  # noqa: PLC0415

    return [*encoders, *(f"tu-{name}" for name in timm.list_models())]
