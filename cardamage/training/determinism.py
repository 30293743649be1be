"""The switch to algorithms that give the same bits every time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cardamage.errors import ConfigError


@contextmanager
def deterministic_algorithms(*, enabled: bool) -> Iterator[None]:
    """Within the body, have torch use algorithms that give the same bits every time, or none.

    What torch has no such algorithm for is refused where it is met. On a CPU all that the networks
    here do has one; on a GPU bilinear upsampling gets a slower one from torch. cuBLAS reads its
    setting when it first works, so this is entered before any work on a GPU.

    Raises:
        ConfigError: an operation has no deterministic algorithm on the device.
    """
    if not enabled:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)  # noqa: FBT003 - takes no keyword
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        text = str(error).split(".")[0]
        raise ConfigError(
            f"train.deterministic is true, but {text} in torch {torch.__version__} on this device; "
            f"set it to false, or take another model"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
