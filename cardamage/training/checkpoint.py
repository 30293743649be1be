"""Checkpoints: one safetensors file per epoch, whose metadata say how to use it.

The file alone rebuilds the network and runs it: model section, classes, image size and
normalisation are in one metadata key, as JSON with sorted keys, so that equal weights and metadata
make equal files.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from cardamage.config.experiment import Experiment
from cardamage.errors import CheckpointError, MachineFault, of_storage
from cardamage.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from cardamage.system.files import naming, write_bytes
from cardamage.version import __version__

_KEY = "cardamage"
_HASH = "sha256"
_FIRST_KEYS = {"epoch", "model", "class_names", "image_size", "config_hash"}
_OTHER_BYTES = "its bytes are not those that were written"


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        epoch: the epoch it was saved after, from 1.
        class_names: by class id, background first.
        image_size: height and width the model was trained at, in pixels.
        config_hash: :meth:`cardamage.config.experiment.Experiment.hash` of its run.
        mean: of each RGB channel, subtracted from images scaled to 0-1.
        deviation: of each RGB channel, by which they are then divided.
        version: of this software; None for checkpoints of the first version.
        tile: height and width of the parts that it was trained on, and sees images by; None where
            it sees them whole.
    """

    epoch: int
    model: dict[str, Any]
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    config_hash: str
    mean: tuple[float, ...] = IMAGENET_MEAN
    deviation: tuple[float, ...] = IMAGENET_STD
    version: str | None = __version__
    tile: tuple[int, int] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read from disk.

    Attributes:
        weights_sha256: hex SHA-256 of the whole file.
    """

    info: CheckpointInfo
    weights: dict[str, Tensor]
    weights_sha256: str


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Publish ``weights`` as ``path``; equal weights and ``info`` make equal bytes."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    facts = asdict(info)
    facts[_HASH] = _hash(facts, tensors)
    write_bytes(path, save(tensors, {_KEY: json.dumps(facts, sort_keys=True)}))


def _hash(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 of metadata and weights, by which a bit that flips on the disk is noticed."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``; nothing in it is ever unpickled.

    Raises:
        CheckpointError: it is missing, damaged, or no checkpoint of this software.
        MachineFault: the disk or the file server fails.
    """
    try:
        with naming(path):
            content = path.read_bytes()
        weights = load(content)
        metadata = _read_header(content).get("__metadata__", {})
        info = _read_info(metadata, weights) if _KEY in metadata else _read_first_version(content)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; train the run first") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and isinstance(fault := of_storage(error), MachineFault):
            raise fault from None
        problem = f"lacks {error} in its metadata" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of cardamage ({problem}); "
            f"restore it, or delete it to continue without that epoch"
        ) from None
    return Checkpoint(info, weights, hashlib.sha256(content).hexdigest())


def _read_header(content: bytes) -> dict[str, Any]:
    """The header of a file, JSON behind its length in 8 bytes.

    https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header


def _read_info(metadata: Mapping[str, str], weights: Mapping[str, Tensor]) -> CheckpointInfo:
    facts = json.loads(metadata[_KEY])
    _compare(facts.pop(_HASH), _hash(facts, weights))
    for key in ("class_names", "image_size", "mean", "deviation"):
        facts[key] = tuple(facts[key])
    if facts.get("tile"):
        facts["tile"] = tuple(facts["tile"])
    return CheckpointInfo(**facts)


def _read_first_version(content: bytes) -> CheckpointInfo:
    """What a checkpoint says that has a metadata key for each fact, as JSON or plain text.

    Its hash is over the header without the hash, and the data; the earliest files have none.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = _read_header(content)
    metadata = header.get("__metadata__", {})
    if not metadata.keys() >= {"model", "class_names"}:
        raise KeyError(_KEY)
    expected = metadata.pop(_HASH, None)
    if metadata.keys() != _FIRST_KEYS:  # a flip in the hash's name makes it look like none
        raise ValueError(_OTHER_BYTES)
    if expected is not None:
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        _compare(expected, hashlib.sha256(text + content[end:]).hexdigest())
    height, width = json.loads(metadata["image_size"])
    return CheckpointInfo(
        epoch=int(metadata["epoch"]),
        model=json.loads(metadata["model"]),
        class_names=tuple(json.loads(metadata["class_names"])),
        image_size=(height, width),
        config_hash=metadata["config_hash"],
        version=None,
    )


def _compare(expected: str, found: str) -> None:
    if expected != found:
        raise ValueError(_OTHER_BYTES)


def load_weights(model: nn.Module, checkpoint: Checkpoint, path: Path) -> None:
    """Copy a checkpoint's weights into ``model``, strictly.

    Raises:
        CheckpointError: the weights are another model's: a name or a shape differs.
    """
    try:
        model.load_state_dict(checkpoint.weights, strict=True)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} holds the weights of {checkpoint.info.model.get('name', 'another model')} "
            f"for {len(checkpoint.info.class_names)} classes, which do not fit this model "
            f"({detail[:200]}); choose the config it was trained with"
        ) from None


def check_belongs(checkpoint: Checkpoint, experiment: Experiment, path: Path) -> None:
    """Refuse a checkpoint that was written by a run of another config.

    The first version hashed configs otherwise: of its checkpoints model, classes and size count.

    Raises:
        CheckpointError: it is of another config.
    """
    info, expected = checkpoint.info, experiment.hash()
    if info.version is None:
        mine = (experiment.model.model_dump(mode="json"), experiment.data.class_names)
        same = (info.model, info.class_names) == mine and (
            info.image_size == experiment.data.image_size
        )
    else:
        same = info.config_hash == expected
    if not same:
        raise CheckpointError(
            f"{path} was trained with another config (hash {info.config_hash}, not {expected}): "
            f"it is a {info.model.get('name')} checkpoint; move it out of this run"
        )
