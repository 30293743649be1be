"""Checkpoints: one safetensors file an epoch, with what is needed to use it in its metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from cardamage.errors import CheckpointError, MachineFault, of_storage
from cardamage.files import naming, write_bytes

_HASH = "sha256"
_KEYS = {"epoch", "model", "class_names", "image_size", "config_hash"}


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself.

    Attributes:
        epoch: the epoch it was saved after, from 1.
        model: the config's model section.
        class_names: by class id, background first.
        image_size: height and width the model was trained at, in pixels.
        config_hash: :meth:`cardamage.config.Experiment.hash` of its run.
    """

    epoch: int
    model: dict[str, Any]
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    config_hash: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read from disk.

    Attributes:
        info: what it says of itself.
        weights: the state dict, on the CPU.
        weights_sha256: hex SHA-256 of the whole file.
    """

    info: CheckpointInfo
    weights: dict[str, Tensor]
    weights_sha256: str


def save_checkpoint(path: Path, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
    """Publish ``weights`` as ``path``; equal weights and ``info`` make equal bytes."""
    metadata = {
        "epoch": str(info.epoch),
        "model": json.dumps(info.model),
        "class_names": json.dumps(info.class_names),
        "image_size": json.dumps(info.image_size),
        "config_hash": info.config_hash,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    write_bytes(path, _in_order(save(tensors, metadata)))


def _in_order(content: bytes) -> bytes:
    """Safetensors with sorted metadata, which its writer leaves in an order of chance, and a hash.

    Equal weights thereby make equal files, and a bit that flips on the disk is noticed: what is
    hashed is the header without the hash, and the data. The header is JSON behind its length in 8
    bytes, padded with blanks: https://github.com/huggingface/safetensors#format
    """
    header, data = _parts(content)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    header["__metadata__"][_HASH] = _hash(header, data)
    text = _header_text(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return header, content[8 + length :]


def _header_text(header: dict[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()


def _hash(header: dict[str, Any], data: bytes) -> str:
    digest = hashlib.sha256(_header_text(header))
    digest.update(data)
    return digest.hexdigest()


def _is_as_written(content: bytes) -> bool:
    """Whether a file has the bytes it was written with; older ones carry no hash to tell."""
    header, data = _parts(content)
    metadata = header["__metadata__"]
    expected = metadata.pop(_HASH, None)
    # A flip in the hash's own name makes it another's, and the file look like an older one.
    return metadata.keys() == _KEYS and expected in (None, _hash(header, data))


def load_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at ``path``; nothing in it is ever unpickled.

    Raises:
        CheckpointError: it is missing, damaged, or no checkpoint of this software.
        MachineFault: the disk or the file server fails.
    """
    try:
        with naming(path):
            content = path.read_bytes()
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        weights = load(content)
        height, width = json.loads(metadata["image_size"])
        info = CheckpointInfo(
            epoch=int(metadata["epoch"]),
            model=json.loads(metadata["model"]),
            class_names=tuple(json.loads(metadata["class_names"])),
            image_size=(height, width),
            config_hash=metadata["config_hash"],
        )
        if not _is_as_written(content):
            raise ValueError("its bytes are not those that were written")  # noqa: TRY301 - as others
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; train the run first") from None
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and isinstance(fault := of_storage(error), MachineFault):
            raise fault from None
        problem = f"lacks {error} in its metadata" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(
            f"{path} is damaged or no checkpoint of cardamage ({problem}); "
            f"restore it, or delete it to go on without that epoch"
        ) from None
    return Checkpoint(info, weights, hashlib.sha256(content).hexdigest())


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


def check_belongs(checkpoint: Checkpoint, config_hash: str, path: Path) -> None:
    """Refuse a checkpoint that was written by a run of another config.

    Raises:
        CheckpointError: its config hash is not ``config_hash``.
    """
    found = checkpoint.info.config_hash
    if found != config_hash:
        raise CheckpointError(
            f"{path} was trained with another config (hash {found}, not {config_hash}): "
            f"it is a {checkpoint.info.model.get('name')} checkpoint; move it out of this run"
        )
