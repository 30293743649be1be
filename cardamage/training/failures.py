"""Failures of training processes: too little memory, and the first failure of several."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from accelerate import Accelerator
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # they are there

from cardamage.errors import CardamageError, ConfigError, MachineFault, Stopped, UserError

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
def explain_out_of_memory(remedy: str) -> Iterator[None]:
    """Turn running out of memory in the body into one line; on a GPU or a CPU.

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


@contextmanager
def explain_compiler() -> Iterator[None]:
    """Turn a network that torch.compile cannot translate into one line.

    Raises:
        ConfigError: it could not, for lack of a compiler perhaps.
    """
    try:
        yield
    except Exception as error:  # importing its kind takes a second
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"train.compile is true, and torch.compile fails here ({reason[:160]}); install a C++ "
            f"compiler, or set it to false"
        ) from None


_KEY = "cardamage/failed first"


_CONNECT_S = 5.0


_KINDS = {kind.__name__: kind for kind in (UserError, MachineFault, CardamageError)}


@contextmanager
def propagate_first_failure(accelerator: Accelerator) -> Iterator[None]:
    """Within the body, a process whose connections break takes over what broke them.

    What fails is told through the store by which the processes met. Where nobody answers there, or
    nothing was told, as of a killed process, the broken connection is all that is known.

    Raises:
        CardamageError: another process failed first, with an error of this kind.
    """
    try:
        yield
    except Stopped:
        raise
    except CardamageError as error:
        if accelerator.num_processes > 1:
            _tell(accelerator.process_index, error)
        raise
    except RuntimeError as error:  # as which torch raises a broken connection
        told = _told() if accelerator.num_processes > 1 else None
        if told is None:
            raise
        raise told from error


def _tell(process: int, error: CardamageError) -> None:
    kind = next(name for name, kind in _KINDS.items() if isinstance(error, kind))
    text = json.dumps({"kind": kind, "text": f"process {process}: {error}"})
    try:
        _store().compare_set(_KEY, "", text)  # who failed later failed for that reason
    except (DistError, OSError):
        return  # the process that kept the store is gone


def _told() -> CardamageError | None:
    try:
        store = _store()
        if not store.check([_KEY]):
            return None
        told = json.loads(store.get(_KEY))
    except (DistError, OSError):
        return None
    return _KINDS[told["kind"]](told["text"])


def _store() -> TCPStore:
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # Torch would keep trying where nobody listens, and write pages about it.
    socket.create_connection((address, port), timeout=_CONNECT_S).close()
    timeout = timedelta(seconds=_CONNECT_S)
    return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)
