"""Ending for the reason of the process that failed first, rather than for its being gone.

When one of several processes ends, the others notice a broken connection only. That would be told
as a fault of the machine, and the start tried again, also where no start can do.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from accelerate import Accelerator
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]  # they are there

from cardamage.errors import CardamageError, MachineFault, Stopped, UserError

_KEY = "cardamage/failed first"
_CONNECT_S = 5.0
_KINDS = {kind.__name__: kind for kind in (UserError, MachineFault, CardamageError)}


@contextmanager
def failing_alike(accelerator: Accelerator) -> Iterator[None]:
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
    # Torch would go on trying where nobody listens, and write pages about it.
    socket.create_connection((address, port), timeout=_CONNECT_S).close()
    timeout = timedelta(seconds=_CONNECT_S)
    return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)
