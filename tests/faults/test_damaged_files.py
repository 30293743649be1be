"""Any small file of a run, cut or with flipped bits: read as it is, or refused in one line."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cardamage.data.shards.reader import packed_splits
from cardamage.errors import UserError
from cardamage.evaluation.results import read_result
from cardamage.launch.slurm.starts import progress
from cardamage.launch.watching.overview import overviews
from cardamage.launch.watching.record import claim, new_launch, read_launch, release
from cardamage.report.load import load_run
from cardamage.runs.directory import resolve
from cardamage.runs.paths import RunPaths, StudyPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.study import Comparison, StudyRecord, open_study, read_study
from cardamage.system.console import read_events

FLIPS = 150
"""So many damaged copies are read of each file: a third cut short, the others with bits flipped."""


def damaged(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 1 / 3:
        return content[: chance.randrange(len(content))]
    copy = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 20])):
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    return bytes(copy)


def read_run(run: RunPaths) -> None:
    """All that the report and the status of a run read."""
    experiment, _ = resolve(run.root)
    packed_splits(run, experiment, "train")
    load_run(run, experiment)


@pytest.fixture
def run(undisturbed: Path, tmp_path: Path) -> RunPaths:
    """A run whose every file may be damaged, launched and part of a study."""
    folder = tmp_path / "runs"
    shutil.copytree(undisturbed / "runs", folder)
    run = RunPaths(folder / "cars")
    launch = new_launch("local", "local", ["submit"], {"pack": ["python", "jobs/pack.py"]})
    claim(run, launch)
    release(run, launch)
    record = StudyRecord("study", "study.yaml", ("cars",), (Comparison("pair", ("cars", "cars")),))
    open_study(StudyPaths(folder / "study"), record)
    return run


FILES: dict[str, Callable[[RunPaths], object]] = {
    "stages/pack.json": lambda run: read_stage(run, "pack"),
    "stages/test.json": read_run,
    "resume/progress.json": lambda run: progress(run, "train"),
    "launch.json": read_launch,
    "../study/study.json": lambda run: read_study(StudyPaths(run.root.parent / "study")),
    "events.jsonl": lambda run: read_events(run.events),
    "metrics.csv": read_run,
    "test/test.csv": read_run,
    "test/test/epoch-0001.npz": lambda run: read_result(run.test_counts("test", 1)),
    "config.yaml": lambda run: resolve(run.root),
    "provenance.json": read_run,
}


@pytest.mark.parametrize("name", list(FILES))
def test_damage_is_told_in_one_line(run: RunPaths, name: str) -> None:
    path, chance = run.root / name, random.Random(name)
    whole, refused = path.read_bytes(), 0
    FILES[name](run)
    for _ in range(FLIPS if FILES[name] is not read_run else FLIPS // 5):
        path.write_bytes(damaged(whole, chance))
        try:
            FILES[name](run)
        except UserError:
            refused += 1
        overviews([run])  # of whatever is damaged, status.py shows the rest
    if name not in ("events.jsonl", "resume/progress.json"):  # of which every whole part is used
        assert refused
