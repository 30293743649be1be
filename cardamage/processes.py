"""Processes of this machine: how many it can run at once, and whether a file's one still runs.

A process id alone does not say: ids are used again. With the time of the process's birth, as its
kernel counts it, they name one process for good.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

_PROC = Path("/proc")
_UNKNOWN_BIRTH = "unknown"


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
    Where there is no ``/proc``, the birth of every running process is ``unknown``.
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
    Empty where there is no ``/proc``.
    """
    entry = f"{name}={value}".encode()
    found = []
    for folder in _PROC.glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if entry in environment.split(b"\0") and birth(int(folder.name)):
            found.append(int(folder.name))
    return found


def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _birth_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return _UNKNOWN_BIRTH
