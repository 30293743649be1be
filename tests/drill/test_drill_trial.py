"""Trials of programs that are no stages of ours, some of them careless: the drill has to see it.

They run in a process of their own, for a trial forks, and a process of tests has threads.
"""

import json
import subprocess
import sys
from pathlib import Path

CAREFUL = """\
import os, sys, time
from pathlib import Path
(runs,) = [Path(word.partition("=")[2]) for word in sys.argv if word.startswith("--runs-dir=")]
table = runs / "toy" / "metrics.csv"
table.parent.mkdir(parents=True, exist_ok=True)
lines = table.read_text().splitlines() if table.exists() else []
for number in range(len(lines), 10):
    time.sleep(0.05)
    lines.append(f"{number},0.5")
    aside = table.with_name(f".{table.name}.host.{os.getpid()}.part")
    aside.write_text("\\n".join(lines))
    time.sleep(0.01)
    aside.replace(table)
"""
"""A stage that goes on where it was and publishes what it wrote; it takes half a second."""

FORGETFUL = CAREFUL.replace("range(len(lines), 10)", "range(10)")  # begins anew after old lines
STUBBORN = CAREFUL.replace("lines = ", "assert not table.exists(), 'something is left'\nlines = ")
LINGERING = CAREFUL + "import subprocess\nsubprocess.Popen(['sleep', '20'])\n"

PROGRAM = """\
import json, sys
from pathlib import Path
from random import Random
from cardamage.config import loading
from benchmarks.drill import trial
from benchmarks.drill.kills import Budget

trial._LEFTOVERS_S = 0.5
folder, random, budget = Path(sys.argv[1]), Random(0), Budget({("train", 1): int(sys.argv[2])})
subject = trial.Subject(folder, folder / "toy.yaml", (), loading.load(folder / "toy.yaml"))
cold = trial.Trial(subject, 1, folder / "cold").undisturbed(cold=True)
warm = trial.Trial(subject, 1, folder / "warm").undisturbed(cold=False)
kills, problem, roots = [], None, (folder / f"trial {number}" for number in range(100))
while budget.total() and not problem:
    root = next(roots)
    outcome = trial.Trial(subject, 1, root).disturbed(budget, random, {True: cold, False: warm})
    kills, problem = kills + outcome.kills, outcome.problem
equal = [kill.equal for kill in kills]
print(json.dumps([equal, problem, sorted({kill.moment for kill in kills})]))
"""


def drill(folder: Path, train: str, kills: int) -> tuple[list[bool], str | None, list[str]]:
    """Whether files were equal after each kill, what went wrong, and what the kills hit."""
    (folder / "toy.yaml").write_text(
        "{name: toy, data: {source: synthetic, classes: [dent]}, "
        "model: {name: segnet2}, optim: {name: adam}}"
    )
    for stage, program in {"pack": "", "train": train, "test": ""}.items():
        (folder / f"{stage}.py").write_text(program)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(kills)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    equal, problem, moments = json.loads(result.stdout)
    return equal, problem, moments


def test_a_careful_program_comes_out_equal_after_every_kill(tmp_path: Path):
    equal, problem, moments = drill(tmp_path, CAREFUL, kills=8)
    assert (equal, problem) == ([True] * 8, None)
    assert moments == ["starting", "writing"]  # it keeps no marker, so nothing counts as working


def test_files_that_differ_after_a_kill_are_named(tmp_path: Path):
    equal, problem, _ = drill(tmp_path, FORGETFUL, kills=8)
    assert equal[-1] is False
    assert problem == "train on 1 processes: runs/toy/metrics.csv differs"


def test_a_program_that_does_not_go_on_after_a_kill_is_a_problem(tmp_path: Path):
    equal, problem, _ = drill(tmp_path, STUBBORN, kills=8)
    assert equal[-1] is False
    assert problem == (
        "train on 1 processes: train ended with status 1, left alone, and said: "
        "AssertionError: something is left"
    )


def test_a_process_that_outlives_the_run_is_a_problem_and_ended(tmp_path: Path):
    _, problem, _ = drill(tmp_path, LINGERING, kills=1)
    assert problem == "1 processes outlived the kill of their parent"
