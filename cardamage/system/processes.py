"""Processes of this machine: usable cores, and whether a process named in a file still runs.

Process ids are used again; an id and the time of birth, as the kernel counts it, name one process.
"""

import os
import signal
import socket
from pathlib import Path

import psutil

_PROC = Path("/proc")


def count_cores() -> int:
    """How many cores this process may use, which on a shared machine are not all there are."""
    return len(usable_cores())


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may use, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def node_name() -> str:
    """This machine's name, in a SLURM job the one that SLURM gives it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def birth(pid: int) -> str | None:
    """When a process of this machine began, as text that no later process of its id shares.

    None when no such process runs; one that has ended and waits to be collected counts as ended.
    Read from ``/proc`` in ticks since boot, for psutil's time of creation moves with the clock; a
    live process would then be taken for gone. psutil's is used where there is no ``/proc``.
    """
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None if _PROC.joinpath("self", "stat").exists() else _birth_without_proc(pid)
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    state, start_ticks = fields[0], fields[19]
    if state in "ZX":
        return None
    return f"{_boot()}/{start_ticks}"


def machine() -> str:
    """This machine since its last start, and the space of process ids on it: ``<boot>/<space>``.

    Processes with the same one can see each other; those of two containers may not. Where there is
    no ``/proc``, it is the host's name.
    """
    try:
        return f"{_boot()}/{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def is_alive(pid: int | None, born: str | None) -> bool:
    """Whether the process that had this id and birth still runs on this machine."""
    return pid is not None and born is not None and birth(pid) == born


def with_environment(name: str, value: str) -> list[int]:
    """The running processes of this user that were started with ``name=value`` around them.

    Unlike process groups and sessions this finds every descendant, whatever stands between.
    """
    return [
        process.pid
        for process in psutil.process_iter(["environ"])
        if (process.info["environ"] or {}).get(name) == value and birth(process.pid)
    ]


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _birth_without_proc(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None


def block_usr2() -> None:
    """Block SIGUSR2 here, and in threads and processes that are started from here."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


def unblock_usr2() -> None:
    """Let this thread have SIGUSR2 again, also one that came before."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
