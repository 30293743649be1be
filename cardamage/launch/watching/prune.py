"""What of a folder of runs is no longer needed, and how much room it takes."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cardamage.config import loading
from cardamage.errors import UserError
from cardamage.launch.watching.overview import RunOverview, overviews
from cardamage.runs.missing import missing_stages
from cardamage.runs.paths import RunPaths, ShardPaths
from cardamage.runs.stages import read_stage

Kind = Literal["states", "snapshots", "shards", "cancelled"]
KINDS: tuple[Kind, ...] = ("states", "snapshots", "shards", "cancelled")
"""Saved states of finished runs, copies of the code of runs that nobody works for, packed datasets
that no run reads, and runs that were cancelled before they had a checkpoint."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that can go: why, and the bytes on disk that this frees."""

    path: Path
    kind: Kind
    why: str
    size: int

    def remove(self) -> None:
        """Delete it; what is gone already is no failure."""
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


def find_leftovers(
    runs: Sequence[RunPaths], all_runs: Sequence[RunPaths], kinds: Iterable[Kind]
) -> list[Leftover]:
    """What can go of ``runs``; packed datasets are those that none of ``all_runs`` reads.

    Nothing of a run that anybody works for, or whose files cannot be read, is ever named.
    """
    wanted, known = set(kinds), overviews(all_runs)
    idle = [o for o in known if o.run in set(runs) and _is_idle(o)]
    found: list[tuple[Path, Kind, str]] = []
    for of_run in idle:
        run = of_run.run
        if _is_cancelled(of_run):
            found.append((run.root, "cancelled", "cancelled before it had a checkpoint"))
            continue
        if of_run.epoch and not missing_stages(run, loading.load(run.config)):
            why = "the run is finished; more epochs need it"
            found += [(path, "states", why) for path in run.states().values()]
        if run.code.is_dir():
            found.append((run.code, "snapshots", "nobody works for the run"))
    if all(o.problem is None for o in known):  # a run that cannot be read may use any
        unused = _unused_shards(o.run for o in known)
        found += [(path, "shards", "no run here reads it") for path in unused]
    seen: set[tuple[int, int]] = set()
    return [Leftover(*each, _size(each[0], seen)) for each in found if each[1] in wanted]


def _is_idle(of_run: RunOverview) -> bool:
    states = {stage.state for stage in of_run.stages.values()}
    return (
        of_run.launcher is None
        and of_run.problem is None
        and of_run.queue_problem is None
        and states.isdisjoint(("running", "queued"))
    )


def _is_cancelled(of_run: RunOverview) -> bool:
    states = [stage.state for stage in of_run.stages.values()]
    return "cancelled" in states and not of_run.epoch and not of_run.run.states()


def _unused_shards(runs: Iterable[RunPaths]) -> Iterator[Path]:
    """Complete packed datasets in the folders that runs pack into, which no run's marker names."""
    used: set[Path] = set()
    folders: set[Path] = set()
    for run in runs:
        experiment = loading.load(run.config)
        folders.add(Path(experiment.data.shards_dir).resolve())
        packed = read_stage(run, "pack")
        if packed.state != "done":
            return  # it may be about to use any
        used.add(Path(packed.output["shards"]).resolve())
    for folder in sorted(folders):
        if folder.is_dir():
            there = (path for path in sorted(folder.iterdir()) if path.is_dir())
            complete = (path for path in there if ShardPaths(path).manifest.is_file())
            yield from (path for path in complete if path.resolve() not in used)


def _size(path: Path, seen: set[tuple[int, int]]) -> int:
    """Bytes on disk that removing a path frees, files with several names counted once."""
    total = 0
    for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
        try:
            stat = file.lstat()
        except OSError:
            continue
        if (key := (stat.st_dev, stat.st_ino)) not in seen:
            seen.add(key)
            total += stat.st_blocks * 512
    return total


def check_kinds(text: str | None) -> tuple[Kind, ...]:
    """The kinds that a list with commas names; all for None.

    Raises:
        UserError: one is unknown.
    """
    if text is None:
        return KINDS
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in KINDS:
            raise UserError(f'--what: "{name}" is unknown; allowed: {", ".join(KINDS)}')
    return tuple(kind for kind in KINDS if kind in names)
