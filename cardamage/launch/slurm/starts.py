"""The starts of a stage on SLURM, as its batch scripts note them."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

from cardamage.config import loading
from cardamage.runs.paths import RunPaths
from cardamage.system.files import write_json


@dataclass(frozen=True)
class Start:
    """A start of a stage: the SLURM job, its nodes as SLURM abbreviates them, and when.

    ``progress`` is what there was of the work, ``attempts`` how often the stage had begun by its
    marker, ``log_start`` where the output begins in the log, in bytes, and ``failed_node`` the node
    that killed the stage, when one did. ``is_own_failure``: it ended by its own fault. One that
    SLURM ended is no failure, and neither is one whose end nobody saw: this script outlives its
    stage, unless SLURM ends both.
    """

    job: str
    nodes: str
    progress: list[int]
    time: str
    attempts: int
    log_start: int
    failed_node: str | None = None
    is_own_failure: bool = False


def read_starts(run: RunPaths, stage: str) -> list[Start]:
    """The starts of a stage so far; none when the record is missing or damaged."""
    try:
        return [Start(**start) for start in json.loads(run.starts(stage).read_text())]
    except (OSError, ValueError, TypeError):
        return []


def write_starts(run: RunPaths, stage: str, starts: Sequence[Start]) -> None:
    """Note the starts of a stage."""
    write_json(run.starts(stage), [asdict(each) for each in starts])


def progress(run: RunPaths, stage: str) -> list[int]:
    """What there is of a stage's work: numbers that differ after every start that got anywhere."""
    match stage.partition(".")[0]:
        case "train":
            saved = [0, 0]
            with suppress(OSError, ValueError, LookupError, TypeError):
                told = json.loads(run.progress.read_text(encoding="utf-8"))
                saved = [told["epoch"], told["step"]]
            return [len(run.finished_checkpoints()), *saved]
        case "test":
            return [len(list((run.root / "test").glob("*/epoch-*.npz")))]
        case "pack":
            shards = Path(loading.load(run.config).data.shards_dir)
            return [len(list(shards.glob("*/*/*.tar")))]
        case _:
            return []


def wasted(starts: list[Start], here: list[int]) -> int:
    """How many of the last starts, which found what there is now, failed by their own fault."""
    last = takewhile(lambda start: start.progress == here, reversed(starts))
    return sum(start.is_own_failure for start in last)
