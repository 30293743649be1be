"""One start of a stage as the process or processes it really is, to be killed and waited for.

There are two kinds. A *cold* start is the command a user types: an interpreter, or torchrun with
its ranks. A *warm* start forks this process, whose imports are done, and runs the same program file
in the fork: the seconds every interpreter spends importing torch are saved, and nothing else
differs. For a fork to be safe this process has to have one thread only.
"""

import importlib
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from cardamage.system.processes import birth, with_environment

TAG = "CARDAMAGE_DRILL"
"""The environment variable by which the processes of one start are found."""

_GRACE_S = 30.0  # as long as torchrun lets the other ranks live on after SIGTERM


@dataclass(frozen=True)
class Order:
    """What to start.

    Attributes:
        script: the program's file.
        arguments: its arguments.
        ranks: processes that work together.
        log: where its output is appended.
        tag: the value of :data:`TAG`; another one for every start.
    """

    script: Path
    arguments: tuple[str, ...]
    ranks: int
    log: Path
    tag: str


class Start(Protocol):
    """A stage that was started."""

    def processes(self) -> list[int]:
        """All its processes that live: launcher, ranks, and what these have started."""

    def poll(self) -> int | None:
        """The exit status once all has ended, negative for a signal; None before."""

    def kill(self) -> None:
        """SIGKILL to every process of the start."""


class ColdStart:
    """The command as a user types it; torchrun starts several ranks."""

    def __init__(self, order: Order) -> None:
        self._tag = order.tag
        launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={order.ranks}"]
        prefix = [*launcher, "--standalone"] if order.ranks > 1 else []
        with order.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *prefix, str(order.script), *order.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, TAG: order.tag},
                start_new_session=True,
            )

    def processes(self) -> list[int]:
        """The launcher, the ranks, and what these have started."""
        return with_environment(TAG, self._tag)

    def poll(self) -> int | None:
        """The exit status of the command."""
        return self._process.poll()

    def kill(self) -> None:
        """SIGKILL to the launcher first, or it would say that ranks died."""
        send_kill([self._process.pid, *with_environment(TAG, self._tag)])
        self._process.wait()


class WarmStart:
    """Forks of this process, one a rank, that become the program.

    As torchrun does, it sends the other ranks SIGTERM when one fails, and SIGKILL if they linger.
    """

    def __init__(self, order: Order) -> None:
        self._tag = order.tag
        self._status = 0
        self._failed_at = 0.0
        port = _free_port() if order.ranks > 1 else 0
        context = multiprocessing.get_context("fork")
        check_one_thread()
        self._ranks: list[BaseProcess] = [
            context.Process(target=_become, args=(order, rank, port)) for rank in range(order.ranks)
        ]
        for process in self._ranks:
            process.start()

    def processes(self) -> list[int]:
        """The ranks, and what they have started; there is no launcher."""
        ranks = [process.pid for process in self._ranks if process.is_alive()]
        return [pid for pid in ranks if pid is not None] + with_environment(TAG, self._tag)

    def poll(self) -> int | None:
        """The first failure, or 0; it also ends the ranks that one left waiting."""
        statuses = [process.exitcode for process in self._ranks]
        failed = [status for status in statuses if status]
        if failed and not self._status:
            self._status, self._failed_at = failed[0], time.monotonic()
            for process in self._ranks:
                process.terminate()
        if None not in statuses:
            return self._status
        if failed and time.monotonic() > self._failed_at + _GRACE_S:
            self.kill()
        return None

    def kill(self) -> None:
        """SIGKILL to the ranks, then to what they have started."""
        send_kill([process.pid for process in self._ranks if process.pid and process.is_alive()])
        for process in self._ranks:
            process.join()
        send_kill(with_environment(TAG, self._tag))


def send_kill(pids: Sequence[int]) -> bool:
    """SIGKILL to those of these processes that live; whether there was one."""
    alive = [pid for pid in pids if birth(pid)]
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(alive)


def tagged(tags: Iterable[str]) -> list[int]:
    """The processes of these starts that live."""
    return [pid for tag in tags for pid in with_environment(TAG, tag)]


def preload() -> None:
    """Import what the stages import, for warm starts.

    The last of them torch itself imports at the first step of an optimiser, and takes 2 s for it.
    """
    for name in (
        "cardamage.data.shards.loader",
        "cardamage.data.shards.pack",
        "cardamage.training.distributed",
        "cardamage.evaluation.evaluate",
        "cardamage.models",
        "cardamage.evaluation.results",
        "cardamage.training.state",
        "torch._dynamo",
    ):
        importlib.import_module(name)


def check_one_thread() -> None:
    """Refuse to fork beside other threads, whose locks the fork would hold for ever.

    Raises:
        RuntimeError: this process has several threads; a defect, or OMP_NUM_THREADS is not 1.
    """
    tasks = Path("/proc/self/task")
    threads = len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()
    if threads > 1:
        raise RuntimeError(f"this process has {threads} threads and cannot be forked safely")


def _become(order: Order, rank: int, port: int) -> None:
    """Become one rank of the program, in a process that was forked for it."""
    os.setsid()
    os.environ[TAG] = order.tag  # for the processes that this one starts
    if order.ranks > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(order.ranks),
            LOCAL_WORLD_SIZE=str(order.ranks),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = [str(order.script), *order.arguments]
    runpy.run_path(str(order.script), run_name="__main__")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
