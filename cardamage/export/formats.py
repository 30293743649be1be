"""Writing a network in a format, and running what was written."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardamage.errors import CardamageError, require_extra
from cardamage.export.graph import Exported, side_multiple
from cardamage.predict.onnx_model import INPUT, KEY, OUTPUTS
from cardamage.system.console import log
from cardamage.training.checkpoint import CheckpointInfo

Format = Literal["onnx", "torch.export", "torchscript"]
FORMATS: tuple[Format, ...] = get_args(Format)

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch.export": ".pt2", "torchscript": ".ts"}
"""How a file of each format is named."""

_INSTEAD: dict[Format, str] = {
    "onnx": "torch.export or torchscript",
    "torch.export": "torchscript",
    "torchscript": "onnx or torch.export",
}
"""What to try where a format cannot express a network; ONNX is made by way of torch.export."""

Answer = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Classes, uint8 (B, H, W), and probabilities, float32 (B, C, H, W)."""

_MOST_IMAGES, _LONGEST_SIDE = 4096, 8192
_DESCRIPTION = (
    "images: RGB, uint8 (batch, height, width, 3), resized to image_size. "
    "classes: the likeliest class id of each pixel, uint8 (batch, height, width). "
    "probabilities: float32 (batch, class, height, width). Normalisation is inside."
)


def write(graph: Exported, info: CheckpointInfo, form: Format) -> tuple[bytes, int]:
    """The file of a network in a format, and what the sides of its images are multiples of.

    The latter is 0 where ``info.image_size``, or its tile's, is the only size.

    Raises:
        ConfigError: what the format needs is not installed.
        CardamageError: it cannot express the network.
    """
    if form == "onnx":
        require_extra("onnx", "export")
        require_extra("onnxscript", "export")
    multiple = side_multiple(graph.network)
    with _one_line(form), _quietly(), torch.no_grad():
        if form == "torchscript":
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                graph, (_example(info),), check_trace=False
            )
            stream, facts = io.BytesIO(), _facts(info, multiple)
            torch.jit.save(traced, stream, _extra_files={f"{KEY}.json": json.dumps(facts)})
            return stream.getvalue(), multiple
        try:
            return _exported(graph, info, form, multiple), multiple
        except Exception as error:
            if not multiple:
                raise
            log.info("it cannot be exported for images of all sizes (%s)", _reason(error))
            return _exported(graph, info, form, 0), 0


def _exported(graph: Exported, info: CheckpointInfo, form: Format, multiple: int) -> bytes:
    facts = _facts(info, multiple)
    program = torch.export.export(graph, (_example(info),), dynamic_shapes=(_sizes(multiple),))
    if form == "onnx":
        return _onnx(program, facts)
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={f"{KEY}.json": json.dumps(facts)})
    return stream.getvalue()


def _example(info: CheckpointInfo) -> Tensor:
    return torch.zeros(2, *(info.tile or info.image_size), 3, dtype=torch.uint8)


def _facts(info: CheckpointInfo, multiple: int) -> dict[str, Any]:
    return asdict(info) | {"multiple_of": multiple, "description": _DESCRIPTION}


def _sizes(multiple: int) -> dict[int, Any]:
    """Which sizes of the images (B, H, W, 3) may vary, as torch.export takes them."""
    sizes: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=_MOST_IMAGES)}
    if multiple:
        # Below an output of two pixels, which is 16 of the input, interpolations are special cases.
        least, most = -(-32 // multiple), _LONGEST_SIDE // multiple
        for place, name in enumerate(("height", "width"), start=1):
            side = torch.export.Dim(name, min=least, max=most)
            sizes[place] = multiple * side if multiple > 1 else side
    return sizes


def _onnx(program: torch.export.ExportedProgram, facts: dict[str, Any]) -> bytes:
    exported = torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        input_names=[INPUT],
        output_names=list(OUTPUTS),
    )
    assert exported is not None  # noqa: S101 - only without dynamo
    model = exported.model_proto
    properties = {
        KEY: json.dumps(facts),
        "class_names": json.dumps(facts["class_names"]),
        "image_size": json.dumps(facts["image_size"]),
    }
    for key, value in properties.items():
        model.metadata_props.add(key=key, value=value)
    model.doc_string = _DESCRIPTION
    content: bytes = model.SerializeToString()
    return content


def runner(content: bytes, form: Format) -> Callable[[NDArray[np.uint8]], Answer]:
    """What runs a written network on images, uint8 (B, H, W, 3)."""
    if form == "onnx":
        require_extra("onnxruntime", "export")
        import onnxruntime  # noqa: PLC0415 - an extra

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return lambda images: tuple(session.run(list(OUTPUTS), {INPUT: images}))
    with _quietly():
        if form == "torchscript":
            network = torch.jit.load(io.BytesIO(content))  # type: ignore[no-untyped-call]
        else:
            network = torch.export.load(io.BytesIO(content)).module()

    @torch.no_grad()
    def run(images: NDArray[np.uint8]) -> Answer:
        classes, probabilities = network(torch.from_numpy(images))
        return classes.numpy(), probabilities.numpy()

    return run


@contextlib.contextmanager
def _one_line(form: Format) -> Iterator[None]:
    """Say in one line what a format cannot express."""
    try:
        yield
    except CardamageError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("torch", "onnx")) and not isinstance(
            error, RuntimeError | ValueError | NotImplementedError
        ):
            raise
        raise CardamageError(
            f"--to {form} cannot express this network ({_reason(error)}); try --to {_INSTEAD[form]}"
        ) from None


def _reason(error: BaseException) -> str:
    """The first cause of an error, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what exporters say of themselves: of formats to come, of operators not taken."""
    chatty = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in chatty]
    for logger in chatty:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(chatty, levels, strict=True):
            logger.setLevel(level)
