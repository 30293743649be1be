"""What the attempt of a stage took beside time: memory, use of GPUs, energy.

Each process of an attempt keeps ``stages/usage/<stage>.<process>.json`` up to date while it works,
so that what a killed one took is known as well. Whoever ends the attempt adds the files up.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from cardamage.runs.paths import RunPaths
from cardamage.system.files import write_json


@dataclass(frozen=True)
class Usage:
    """What a process, an attempt or a run took; None where it could not be read.

    Attributes:
        memory_bytes: the most memory held of the machine: of all processes together in an attempt,
            the highest of its attempts in a run.
        gpu_memory_bytes: the most held of one GPU, by PyTorch's tensors.
        gpu_use: the share of the time in which the GPU computed, 0..1, by NVML.
        gpu_joules: energy of the GPUs, by NVML.
        cpu_joules: energy of the processors by RAPL, whatever else ran on them; once per machine.
    """

    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    gpu_use: float | None = None
    gpu_joules: float | None = None
    cpu_joules: float | None = None

    __pydantic_config__ = ConfigDict(extra="ignore")


@dataclass(frozen=True)
class _Kept:
    """A file: what process of which attempt, which ``started`` then, took on a host."""

    started: str
    host: str
    usage: Usage

    __pydantic_config__ = ConfigDict(extra="ignore")


_KEPT = TypeAdapter(_Kept)


def write_usage(
    run: RunPaths, stage: str, process: int, *, started: str, host: str, usage: Usage
) -> None:
    """Publish what a process has taken so far; where the disk refuses, nothing is kept."""
    path = run.usage(stage, process)
    with suppress(OSError):
        write_json(path, asdict(_Kept(started, host, usage)), flushed=False)


def usage_of_attempt(run: RunPaths, stage: str, started: str) -> Usage:
    """What all processes of the attempt took that began at ``started``."""
    found = []
    for path in run.usage(stage, 0).parent.glob(f"{stage}.*.json"):
        with suppress(OSError, ValueError):
            kept = _KEPT.validate_json(path.read_bytes())
            if kept.started == started:
                found.append(kept)
    by_host = {kept.host: kept.usage.cpu_joules for kept in found}
    each = [kept.usage for kept in found]
    return Usage(
        memory_bytes=_sum(u.memory_bytes for u in each),
        gpu_memory_bytes=_max(u.gpu_memory_bytes for u in each),
        gpu_use=_mean([u.gpu_use for u in each], [1.0] * len(each)),
        gpu_joules=_sum(u.gpu_joules for u in each),
        cpu_joules=_sum(by_host.values()),
    )


def usage_of_run(each: Sequence[Usage], seconds: Sequence[float]) -> Usage:
    """What attempts took together, of which each lasted so many ``seconds``."""
    return Usage(
        memory_bytes=_max(u.memory_bytes for u in each),
        gpu_memory_bytes=_max(u.gpu_memory_bytes for u in each),
        gpu_use=_mean([u.gpu_use for u in each], seconds),
        gpu_joules=_sum(u.gpu_joules for u in each),
        cpu_joules=_sum(u.cpu_joules for u in each),
    )


def usage_words(usage: Usage) -> list[str]:
    """What is known of it, for people."""
    words = []
    if usage.memory_bytes is not None:
        words.append(f"{usage.memory_bytes / 1e9:.1f} GB of memory")
    if usage.gpu_memory_bytes is not None:
        words.append(f"{usage.gpu_memory_bytes / 1e9:.1f} GB of a GPU")
    if usage.gpu_use is not None:
        words.append(f"GPU busy {100 * usage.gpu_use:.0f} %")
    if usage.gpu_joules is not None:
        words.append(f"GPUs {energy_words(usage.gpu_joules)}")
    if usage.cpu_joules is not None:
        words.append(f"processors {energy_words(usage.cpu_joules)}")
    return words


def energy_words(joules: float) -> str:
    """Energy in watt-hours."""
    watt_hours = joules / 3600
    return f"{watt_hours / 1000:.2f} kWh" if watt_hours >= 1000 else f"{watt_hours:.1f} Wh"


def _sum(values: Iterable[float | None]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _max(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    known = [(v, max(w, 1.0)) for v, w in zip(values, weights, strict=True) if v is not None]
    return fmean([v for v, _ in known], [w for _, w in known]) if known else None
