"""A pool of processes that leaves signals to the main process and ends when that ends.

Processes are spawned, not forked: a fork would copy the locks of whatever threads the caller has.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import TypeVar

from cardamage.errors import MachineFault
from cardamage.system.processes import count_cores

Result = TypeVar("Result")

_NOT_THEIRS = (signal.SIGINT, signal.SIGUSR2)

_unwanted: Event | None = None
"""In a process of a pool: set when nobody waits for its results any more."""


def spawned_pool(workers: int, unwanted: Event | None = None) -> ProcessPoolExecutor:
    """A pool of spawned processes; give it tasks within :func:`interrupts_held`.

    ``unwanted`` is set when nobody waits for results any more; see :func:`stop_if_unwanted`.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_initialize, initargs=(unwanted,))


def stop_if_unwanted() -> None:
    """End this task if the caller of :func:`results_of` has stopped; for tasks of many steps."""
    if _unwanted and _unwanted.is_set():
        raise _UnwantedError


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
) -> Generator[Result, None, None]:
    """What each task returns, in their order; closing the generator ends the processes.

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
    with interrupts_held():  # making this starts a process that keeps track of it
        unwanted = multiprocessing.get_context("spawn").Event()
    pool = spawned_pool(workers, unwanted)
    try:
        with interrupts_held():
            running = [pool.submit(task) for task in tasks]
        yield from (future.result() for future in running)
    except BrokenProcessPool:
        raise MachineFault(f"a process {what} was killed, perhaps for want of memory") from None
    finally:
        unwanted.set()
        pool.shutdown(cancel_futures=True)


class _UnwantedError(Exception):
    pass


def _initialize(unwanted: Event | None) -> None:
    for number in _NOT_THEIRS:  # a terminal and SLURM send them to every process
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_THEIRS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _unwanted  # noqa: PLW0603 - one pool is all that a process belongs to
    _unwanted = unwanted


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot tell, and a pool's process would wait forever
