"""Making shards on all cores: one process a core, one task a shard.

Each process gets one task at a time and returns numbers, so memory does not grow with the dataset.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

from cardamage.console import Progress
from cardamage.data.make_shard import MadeShard, Recipe, ShardTask, make_shard
from cardamage.data.pool import interrupts_held, spawned_pool
from cardamage.data.source import ImageSource
from cardamage.errors import MachineFault

SMALL = 100
"""Fewer images than this are packed before a second process would have started."""

_POLL_S = 0.2


def make_shards(
    tasks: Sequence[ShardTask],
    source: ImageSource,
    recipe: Recipe,
    *,
    workers: int,
    progress: Progress,
) -> list[MadeShard]:
    """Make every shard; returns them in the order of the tasks.

    Args:
        tasks: what to make.
        source: where the images are.
        recipe: how samples are made.
        workers: processes; with 1, or few images, everything happens in this one.
        progress: advanced by every image.

    Raises:
        DataError: as :func:`~cardamage.data.make_shard.make_shard`; what was being made is gone
            then, and the other processes have ended.
        MachineFault: a process was killed.
    """
    workers = min(workers, len(tasks))
    if workers <= 1 or sum(len(task.records) for task in tasks) < SMALL:
        return [make_shard(task, source, recipe, progress.advance) for task in tasks]
    context = multiprocessing.get_context("spawn")
    with interrupts_held():  # making these starts a process that keeps track of them
        shared = _Shared(context.Event(), context.Value("Q", 0))
    pool = spawned_pool(workers, _initialize, (source, recipe, shared))
    try:
        return _drive(pool, tasks, workers, shared, progress)
    except BrokenProcessPool:
        raise MachineFault(
            "a packing process was killed, perhaps for want of memory; the same command goes on"
        ) from None
    finally:
        shared.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class _Shared:
    """What the processes share."""

    stop: Event
    done: Synchronized[int]


class _Stopping(Exception):  # noqa: N818 - no error
    """Ends the work of a process whose result nobody waits for any more."""


class _Worker:
    """What a packing process knows besides its task; set once, when the process starts."""

    source: ImageSource
    recipe: Recipe
    shared: _Shared


def _initialize(source: ImageSource, recipe: Recipe, shared: _Shared) -> None:
    _Worker.source, _Worker.recipe, _Worker.shared = source, recipe, shared


def _run(task: ShardTask) -> MadeShard:
    return make_shard(task, _Worker.source, _Worker.recipe, _count_sample)


def _count_sample() -> None:
    shared = _Worker.shared
    with shared.done.get_lock():
        shared.done.value += 1
    if shared.stop.is_set():
        raise _Stopping


def _drive(
    pool: ProcessPoolExecutor,
    tasks: Sequence[ShardTask],
    workers: int,
    shared: _Shared,
    progress: Progress,
) -> list[MadeShard]:
    made: dict[int, MadeShard] = {}
    coming = iter(enumerate(tasks))
    pending: dict[Future[MadeShard], int] = {}
    shown = 0
    while len(made) < len(tasks):
        with interrupts_held():
            for position, task in islice(coming, 2 * workers - len(pending)):
                pending[pool.submit(_run, task)] = position
        finished, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
        done = shared.done.value
        progress.advance(done - shown)
        shown = done
        for future in finished:
            made[pending.pop(future)] = future.result()
    return [made[position] for position in range(len(tasks))]
