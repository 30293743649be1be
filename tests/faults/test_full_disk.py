"""A disk that fills up at any byte: one clear line, and with more room the same command resumes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.children import Nursery
from tests.helpers.stage_results import ends_the_same, leftovers, target

STEP_KIB = {"pack": 12, "train": 8192, "test": 4, "report": 160}
"""How much more room each attempt gets than the one before."""


def leave_room(disk: Path, kib: int) -> None:
    """Make the file system as large as what lies on it, and a little larger."""
    status = os.statvfs(disk)
    used = (status.f_blocks - status.f_bfree) * status.f_frsize // 1024
    subprocess.run(["mount", "-o", f"remount,size={used + kib}k", disk], check=True)


@pytest.mark.parametrize("stage", list(STEP_KIB))
def test_a_stage_is_given_room_bit_by_bit(
    nursery: Nursery, at, undisturbed: Path, disk: Path, stage: str
) -> None:
    before = at(stage)
    folder = disk / "a folder"
    shutil.copytree(before, folder)
    marker = folder / "runs/cars/stages/pack.json"
    if marker.exists():
        marker.write_text(marker.read_text().replace(str(before), str(folder)))
    printed = before / "printed elsewhere.txt"
    refused = []
    for kib in range(0, 40 * STEP_KIB[stage], STEP_KIB[stage]):
        leave_room(disk, kib)
        child = nursery.start(folder, f"jobs/{stage}.py", target(stage), output=printed)
        if child.wait() == 0:
            break
        assert child.wait() == 2, child.printed
        assert "No space left on device" in child.error
        assert leftovers(folder) == []
        refused.append(child.error)
    assert len(set(refused)) >= 3  # it failed at different files
    leave_room(disk, 32 << 10)
    assert ends_the_same(nursery, folder, undisturbed, stage)
