"""What a run cost: time, memory and size, from its events and its files."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from safetensors import SafetensorError, safe_open

from cardamage.errors import CheckpointError
from cardamage.runs.attempts import cost, read_attempts, total_usage
from cardamage.runs.paths import RunPaths
from cardamage.runs.usage import Usage
from cardamage.system.console import read_events


@dataclass(frozen=True)
class Cost:
    """What a run cost; None where its files do not tell.

    Attributes:
        seconds: of training, all attempts together: an epoch that was trained twice counts twice.
        images_per_second: in training, the median over the epochs.
        data_wait_share: share of the training time spent waiting for images, 0..1.
        tested_per_second: images per second in testing, loading them included.
        peak_memory_bytes: the most memory that training held: of the GPU, else of the process.
        parameters: trained weights of the chosen checkpoint.
        checkpoint_bytes: its size on disk.
        joules: energy of training's GPUs and processors, all attempts together, by NVML and RAPL.
    """

    seconds: float | None = None
    images_per_second: float | None = None
    data_wait_share: float | None = None
    tested_per_second: float | None = None
    peak_memory_bytes: int | None = None
    parameters: int | None = None
    checkpoint_bytes: int | None = None
    joules: float | None = None


def read_cost(run: RunPaths, epoch: int) -> Cost:
    """The cost of a run whose checkpoint of ``epoch`` is chosen.

    Raises:
        CheckpointError: that checkpoint is damaged.
        RunError: ``provenance.json`` is damaged.
    """
    events = read_events(run.events)
    trained = [event for event in events if event["event"] == "epoch"]
    last = list({event.get("epoch"): event for event in trained}.values())
    speeds, waits, seconds = (
        _numbers(last, key) for key in ("images_per_second", "data_wait_share", "seconds")
    )
    wait = None
    if waits and len(waits) == len(seconds) and sum(seconds) > 0:
        wait = sum(w * s for w, s in zip(waits, seconds, strict=True)) / sum(seconds)
    tests = [e for e in events if e["event"] == "progress" and e.get("stage") == "test"]
    tested, memory = _numbers(tests, "per_second"), _numbers(trained, "peak_memory_bytes")
    every = _numbers(trained, "seconds")
    trainings = [a for a in read_attempts(run) if a.stage == "train"]
    spent = cost(trainings) or (sum(every) if every else None)
    checkpoint = run.checkpoint(epoch)
    return Cost(
        seconds=spent,
        images_per_second=median(speeds) if speeds else None,
        data_wait_share=wait,
        tested_per_second=median(tested) if tested else None,
        peak_memory_bytes=int(max(memory)) if memory else None,
        parameters=_count_parameters(checkpoint),
        checkpoint_bytes=checkpoint.stat().st_size if checkpoint.is_file() else None,
        joules=_joules(total_usage(trainings)),
    )


def pareto_front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Which pairs no other beats: none is at most as dear and at least as good, and not equal.

    Pairs with an undefined part are on no front.
    """
    pairs = [
        (cost, score, i)
        for i, (cost, score) in enumerate(zip(costs, scores, strict=True))
        if math.isfinite(cost) and math.isfinite(score)
    ]
    return [
        i
        for cost, score, i in pairs
        if not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s, _ in pairs)
    ]


def _numbers(events: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(e[key]) for e in events if isinstance(e.get(key), int | float)]


def _joules(usage: Usage) -> float | None:
    known = [each for each in (usage.gpu_joules, usage.cpu_joules) if each is not None]
    return sum(known) if known else None


def _count_parameters(checkpoint: Path) -> int | None:
    """Trained weights of a checkpoint: its tensors without BatchNorm's running statistics."""
    if not checkpoint.is_file():
        return None
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    try:
        with safe_open(checkpoint, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if not name.endswith(statistics)]  # noqa: SIM118
            sizes = [math.prod(tensors.get_slice(name).get_shape()) for name in names]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint} is damaged ({error}); "
            f"restore it, or delete it to continue without that epoch"
        ) from None
    return int(sum(sizes))
