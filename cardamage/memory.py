"""Running out of memory: one line that says what to lower, instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cardamage.errors import ConfigError

_SIGNS = (
    "can't allocate memory",  # torch's allocator on a CPU
    "bad_alloc",  # the C++ library beneath it
    "could not create a",  # oneDNN, torch's convolutions on a CPU
    "can't start new thread",  # Python: there is no memory for its stack
    "Cannot allocate memory",
    "out of memory",  # CUDA and NCCL outside torch's allocator
    "STATUS_ALLOC_FAILED",  # cuBLAS, cuDNN
)


@contextmanager
def naming_what_to_lower(remedy: str) -> Iterator[None]:
    """Turn running out of memory in the body into one line; on a GPU or a CPU.

    Args:
        remedy: what to lower, and to which value it is set.

    Raises:
        ConfigError: the body ran out of memory. The same start would again: it is not retried.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        text = " ".join(str(error).split())
        is_ours = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_ours and not any(sign in text for sign in _SIGNS):
            raise
        raise ConfigError(f"out of memory ({text[:160] or 'MemoryError'}); {remedy}") from None
