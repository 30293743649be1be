"""A network exported to ONNX, run by ONNX Runtime in the place of the one it was made from.

What the file says of itself is in one metadata property, ``cardamage``, as JSON: the facts of its
checkpoint, and ``multiple_of``, the number that the sides of images are multiples of, 0 where they
are fixed.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cardamage.errors import CheckpointError, require_extra
from cardamage.evaluation.inference import infer
from cardamage.predict.model import TrainedModel
from cardamage.training.checkpoint import CheckpointInfo

KEY = "cardamage"
"""The metadata property."""

INPUT, OUTPUTS = "images", ("classes", "probabilities")
"""The names of what goes in and comes out, as docs/export.md describes them."""

_LEAST = float(np.finfo(np.float32).tiny)


class OnnxModel(TrainedModel):
    """As :class:`TrainedModel`, on the CPU, from an exported file alone."""

    @classmethod
    def open(cls, path: Path, *, threads: int = 0) -> Self:
        """The model of an exported file.

        Args:
            threads: that one forward pass uses; 0 for every core.

        Raises:
            CheckpointError: the file is missing, damaged, or none that this software exported.
            ConfigError: ONNX Runtime is not installed.
        """
        require_extra("onnxruntime", "export")
        import onnxruntime  # noqa: PLC0415 - an extra

        if not path.is_file():
            raise CheckpointError(f"{path} does not exist; cardamage export writes such files")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            facts = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
            info = info_of(facts)
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common class
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise CheckpointError(
                f"{path} is no network that cardamage exported, or is damaged ({text}); "
                f"export it again: cardamage export RUN --to onnx"
            ) from None
        return cls(info, _Session(session))

    @property
    def device_name(self) -> str:
        """Where it computes, in words."""
        return "the CPU, by ONNX Runtime"

    @torch.no_grad()
    def logits(self, images: NDArray[np.uint8], *, flip: bool = False) -> Tensor:
        """Logarithms of probabilities, which serve as logits: see :meth:`TrainedModel.logits`."""
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
        return infer(self.network, pixels, flip=flip, tile=self.info.tile)


class _Session(nn.Module):
    """An ONNX Runtime session as a network: images, uint8 (B, 3, H, W), to logits (B, C, H, W)."""

    def __init__(self, session: Any) -> None:
        super().__init__()
        self._session = session

    def forward(self, images: Tensor) -> Tensor:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        (probabilities,) = self._session.run([OUTPUTS[1]], {INPUT: pixels})
        return torch.from_numpy(probabilities).clamp_min(_LEAST).log()


def info_of(facts: dict[str, Any]) -> CheckpointInfo:
    """What the metadata of an exported file say of the checkpoint it was made from."""
    known = {field.name for field in fields(CheckpointInfo)}
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in facts.items()
        if key in known
    }
    return CheckpointInfo(**given)
