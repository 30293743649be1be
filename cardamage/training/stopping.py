"""Stopping and saving on request: a signal sets a flag, and all processes agree between two steps.

Nothing is saved inside a signal handler: it could strike in the middle of a collective or of a
write, and only on one process. The training loop asks :meth:`StopRequests.agreed` between two
steps and saves from there.
"""

import os
import signal
from enum import IntEnum
from types import FrameType
from typing import Any, Self

import torch
from accelerate import Accelerator

from cardamage.system.console import log


class Request(IntEnum):
    """What is to be done between two steps; the more urgent is the larger."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class StopRequests:
    """Turns SIGTERM, SIGINT and SIGUSR2 into a request to stop, and SIGUSR1 into one to save.

    A second SIGINT interrupts at once.

    Once it was agreed to stop, SIGTERM and SIGUSR2 are ignored to the end of the process: SLURM
    sends SIGTERM to a process whose neighbours have ended, and it may be writing its last word.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._asked: signal.Signals | None = None
        self._save_asked = False
        self._agreed = Request.NOTHING
        self._pid = os.getpid()
        self._group: Any = None
        if accelerator.num_processes > 1:
            # NCCL would reduce on the GPU, and every step would wait for it.
            self._group = torch.distributed.new_group(backend="gloo")

    def __enter__(self) -> Self:
        self._before = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGUSR1)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            is_over = self._agreed is Request.STOP and number != signal.SIGINT
            signal.signal(number, signal.SIG_IGN if is_over else handler)

    def agreed(self, *, save_due: bool = False) -> Request:
        """What any process was asked for; every process gets the same answer."""
        save_due, self._save_asked = save_due or self._save_asked, False
        request = Request.STOP if self._asked else Request(save_due)
        if self._group is not None:
            flag = torch.tensor([int(request)])
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX, group=self._group)
            request = Request(int(flag.item()))
        self._agreed = request
        return request

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child inherits handlers
            return
        if number == signal.SIGUSR1:
            self._save_asked = True
            return
        if number == signal.SIGINT and self._asked is signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = signal.Signals(number)
        log.warning("%s: stopping after this step", self._asked.name)
