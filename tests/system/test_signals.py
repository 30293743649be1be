"""SIGUSR2, which SLURM sends before the end of a job."""

import subprocess
import sys

PROGRAM = """
import os, signal, time
from pathlib import Path
from cardamage.errors import run_program
from cardamage.runs.paths import RunPaths
from cardamage.system.processes import block_usr2
from cardamage.runs.stages import running

{first}

def main():
    with running(RunPaths(Path({folder!r})), "pack"):
        {then}
        time.sleep(30)

run_program(main)
"""
SIGNAL = "os.kill(os.getpid(), signal.SIGUSR2)"


def ends(folder, first: str, then: str) -> subprocess.CompletedProcess[str]:
    text = PROGRAM.format(folder=str(folder), first=first, then=then)
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=120, check=False
    )


def test_one_that_came_too_early_is_heeded_as_soon_as_the_stage_is_on_record(tmp_path):
    result = ends(tmp_path, f"block_usr2(); {SIGNAL}; time.sleep(0.1)", "pass")
    assert result.returncode == 75, result.stderr
    assert result.stderr == "stopped: interrupted; the same command resumes\n"
    assert '"state": "stopped"' in (tmp_path / "stages" / "pack.json").read_text()


def test_where_it_is_not_held_back_it_stops_a_program_all_the_same(tmp_path):
    result = ends(tmp_path, "", SIGNAL)
    assert result.returncode == 75, result.stderr
