"""A disk that fails at any one file: one clear line, and nothing lost once it works again."""

import errno
import itertools
import os
import shutil
from pathlib import Path

import pytest

from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import read_stage
from tests.helpers.children import Nursery
from tests.helpers.stage_results import ends_the_same, leftovers, target

pytestmark = pytest.mark.skipif(not shutil.which("cc"), reason="builds a library with cc")

WRITTEN = {
    "pack": ["pack.json", "pack.lock", "config.yaml", "000000.tar", "index.npy", "manifest.json"],
    "train": ["train.json", "state-0", "epoch-0001", "metrics.csv"],
    "test": ["epoch-0001.npz", "test.csv"],
    "report": ["curves.png", "index.html"],
}


FAULTS = [
    (errno.EIO, "fsync", 1, "Input/output error"),
    (errno.ENOSPC, "write", 2, "No space left"),
]


@pytest.mark.parametrize("stage", list(WRITTEN))
def test_each_file(nursery: Nursery, at, undisturbed: Path, stage: str) -> None:
    """The disk fails and is full by turns, from one file to the next."""
    folder = at(stage)
    for name, (number, call, status, said) in zip(WRITTEN[stage], itertools.cycle(FAULTS)):
        fault = {"FAULT_CALL": call, "FAULT_ERRNO": str(number), "FAULT_PATH": name}
        child = nursery.run(folder, f"jobs/{stage}.py", target(stage), **fault)
        assert child.wait() == status, (name, child.printed)
        assert name in child.error
        assert said in child.error
        assert leftovers(folder) == []
    assert ends_the_same(nursery, folder, undisturbed, stage)


@pytest.mark.parametrize("name", ["events.jsonl", "provenance.json"])
def test_what_no_run_needs(nursery: Nursery, at, undisturbed: Path, name: str) -> None:
    folder = at("train")
    fault = {"FAULT_CALL": "write", "FAULT_ERRNO": str(errno.ENOSPC), "FAULT_PATH": name}
    child = nursery.run(folder, "jobs/train.py", target("train"), **fault)
    assert child.wait() == 0, child.printed
    assert f"{name}" in child.printed
    assert "No space left on device" in child.printed
    assert ends_the_same(nursery, folder, undisturbed, "train")


def test_a_log_on_a_full_disk(nursery: Nursery, at, undisturbed: Path) -> None:
    folder = at("test")
    child = nursery.start(folder, "jobs/test.py", target("test"), output=Path("/dev/full"))
    assert child.wait() == 2  # standard output has the path of the table
    assert ends_the_same(nursery, folder, undisturbed, "test")


def test_shards_that_cannot_be_read(nursery: Nursery, at, undisturbed: Path) -> None:
    folder = at("test")
    fault = {"FAULT_CALL": "pread", "FAULT_ERRNO": str(errno.EIO), "FAULT_PATH": "000000.tar"}
    child = nursery.run(folder, "jobs/test.py", target("test"), **fault)
    assert child.wait() == 1, child.printed
    assert "000000.tar: sample 0000000" in child.error
    assert "Input/output error" in child.error
    assert ends_the_same(nursery, folder, undisturbed, "test")


def test_a_shard_that_fails_under_the_decoding_threads(
    nursery: Nursery, at, undisturbed: Path
) -> None:
    folder = at("train")
    fault = {"FAULT_CALL": "pread", "FAULT_ERRNO": str(errno.EIO), "FAULT_PATH": "train/000000.tar"}
    two_parts, images = 2, 7  # of a sample that are read, and of an epoch
    after = two_parts * (images + 2)  # in the second epoch
    child = nursery.run(folder, "jobs/train.py", target("train"), **fault, FAULT_AFTER=str(after))
    assert child.wait() == 1, child.printed
    assert "train/000000.tar: sample 0000000" in child.error
    assert "Input/output error" in child.error
    assert child.leaves_nobody()
    record = read_stage(RunPaths(folder / "runs/cars"), "train")
    assert (record.state, record.error_class) == ("failed", "fault")  # so SLURM starts it again
    assert ends_the_same(nursery, folder, undisturbed, "train")


def test_a_state_that_cannot_be_read_now_is_not_taken_for_damaged(
    nursery: Nursery, at, undisturbed: Path
) -> None:
    folder = at("train")
    run = RunPaths(folder / "runs/cars")
    full = {
        "FAULT_CALL": "write",
        "FAULT_ERRNO": str(errno.ENOSPC),
        "FAULT_PATH": "epoch-0002.safetensors",
    }
    nursery.run(folder, "jobs/train.py", target("train"), **full)
    older, newest = run.states().values()
    for number in (errno.EIO, errno.ESTALE):
        fault = {"FAULT_CALL": "read", "FAULT_ERRNO": str(number), "FAULT_PATH": newest.name}
        child = nursery.run(folder, "jobs/train.py", target("train"), **fault)
        assert child.wait() == 1, child.printed
        assert f"{newest.name}: {os.strerror(number)}" in child.error
        assert "once it works again, the same command resumes" in child.error
        assert older.name not in child.printed
        assert read_stage(run, "train").error_class == "fault"
        assert list(run.states().values()) == [older, newest]
    assert ends_the_same(nursery, folder, undisturbed, "train")


@pytest.mark.parametrize(
    ("stage", "name"),
    [("train", "manifest.json"), ("train", "index.npy"), ("test", "epoch-0001.safetensors")],
)
def test_what_cannot_be_read_now_is_not_taken_for_damaged(
    nursery: Nursery, at, undisturbed: Path, stage: str, name: str
) -> None:
    folder = at(stage)
    fault = {"FAULT_CALL": "read", "FAULT_ERRNO": str(errno.ESTALE), "FAULT_PATH": name}
    child = nursery.run(folder, f"jobs/{stage}.py", target(stage), **fault)
    assert child.wait() == 1, child.printed
    assert f"{name}: Stale file handle: the disk or the file server fails" in child.error
    assert ends_the_same(nursery, folder, undisturbed, stage)
