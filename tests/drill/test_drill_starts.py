"""Starts of a program on several ranks, warm and cold: its processes, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RANK = """\
import os, sys, time
from pathlib import Path
rank, world = os.environ["RANK"], os.environ["WORLD_SIZE"]
Path(sys.argv[1], f"rank {rank} of {world}").write_text(str(os.getpid()))
os.write(1, f"I am {rank}\\n".encode())  # print may write the line's end apart
time.sleep(60)
"""

PROGRAM = """\
import json, sys, time
from pathlib import Path
from benchmarks.drill.starts import ColdStart, Order, WarmStart, send_kill
from cardamage.system.processes import birth

folder = Path(sys.argv[2])
kind = {"warm": WarmStart, "cold": ColdStart}[sys.argv[1]]
start = kind(Order(folder / "rank.py", (str(folder),), 2, folder / "log", "a tag of its own"))
files = [folder / f"rank {rank} of 2" for rank in range(2)]
while not all(file.is_file() and file.read_text() for file in files):
    assert start.poll() is None, (folder / "log").read_text()
    time.sleep(0.01)
ranks = [int(file.read_text()) for file in files]
processes = start.processes()
assert send_kill([ranks[1]])
while (status := start.poll()) is None:
    time.sleep(0.01)
left = [pid for pid in processes if birth(pid)]
print(json.dumps([ranks, processes, status, left]))
"""


def kill_one(kind: str, folder: Path) -> list[object]:
    (folder / "rank.py").write_text(RANK)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, kind, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert {"I am 0", "I am 1"} <= set((folder / "log").read_text().splitlines())
    return json.loads(result.stdout)


def test_of_forked_ranks_one_is_killed_and_the_other_is_ended(tmp_path: Path):
    ranks, processes, status, left = kill_one("warm", tmp_path)
    assert sorted(processes) == sorted(ranks)
    assert (status, left) == (-9, [])


@pytest.mark.slow
@pytest.mark.distributed
def test_of_ranks_under_torchrun_one_is_killed_and_the_launcher_fails(tmp_path: Path):
    ranks, processes, status, left = kill_one("cold", tmp_path)
    assert len(processes) == 3  # the launcher is one of them
    assert set(ranks) < set(processes)
    assert (status, left) == (1, [])


def test_a_process_with_several_threads_is_not_forked(tmp_path: Path):
    program = (
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "from benchmarks.drill.starts import check_one_thread; check_one_thread()"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "this process has 2 threads and cannot be forked safely" in result.stderr
