"""A pool of processes that leaves signals to the main process and ends when that ends.

Processes are spawned, not forked: a fork would copy the locks of whatever threads the caller has.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from cardamage.errors import MachineFault
from cardamage.processes import count_cores

Result = TypeVar("Result")

_NOT_THEIRS = (signal.SIGINT, signal.SIGUSR2)


def spawned_pool(
    workers: int, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> ProcessPoolExecutor:
    """A pool of spawned processes; give it tasks within :func:`interrupts_held`.

    Args:
        workers: how many processes.
        initializer: called in each of them when it starts, with ``initargs``.
        initargs: may hold what processes share, made in the context ``spawn``.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(
        workers, context, initializer=_initialize, initargs=(initializer, initargs)
    )


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C and SIGUSR2 back while processes start: they inherit this, then ignore both."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_THEIRS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def results_of(
    tasks: Sequence[Callable[[], Result]], workers: int | None, *, what: str
) -> Iterator[Result]:
    """What each task returns, in their order.

    Args:
        tasks: callables that can be sent to another process; so can what they return.
        workers: processes; None takes one for each core this process may use, and 1 this process.
        what: what the processes do, for an error, as in "auditing".

    Raises:
        MachineFault: one of the processes was killed.
    """
    workers = min(workers or count_cores(), len(tasks))
    if workers <= 1:
        yield from (task() for task in tasks)
        return
    pool = spawned_pool(workers)
    try:
        with interrupts_held():
            running = [pool.submit(task) for task in tasks]
        yield from (future.result() for future in running)
    except BrokenProcessPool:
        raise MachineFault(f"a process {what} was killed, perhaps for want of memory") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _initialize(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    for number in _NOT_THEIRS:  # a terminal and SLURM send them to every process
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_THEIRS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer(*initargs)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot tell, and a pool's process would wait for ever
