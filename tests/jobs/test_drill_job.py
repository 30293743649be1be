"""The drill on the smallest run, and what it refuses."""

import re

import pytest
from programs import ROOT

CONFIG = ROOT / "configs" / "drill.yaml"


@pytest.mark.slow
def test_a_small_drill_kills_every_stage_and_all_comes_out_equal(program, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    options = ["--kills", 6, "--processes", 1, "--seed", 1, "--work", work, "--out", "drill.md"]
    printed = program.succeeds("jobs/drill.py", CONFIG, *options, "train.epochs=2", timeout_s=600)
    assert re.search(r"^all .* 6 of 6\s*$", printed, re.MULTILINE), printed

    text = (program.folder / "drill.md").read_text()
    assert text.startswith("6 kills in ")
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    counts = {row[0]: (int(row[2]), row[-1]) for row in table[2:]}
    # 2, 5 and 3 tenths of 6 are 1.2, 3 and 1.8.
    expected = {"pack": (1, "1 of 1"), "train": (3, "3 of 3"), "test": (2, "2 of 2")}
    assert counts == {**expected, "all": (6, "6 of 6")}
    assert not list(work.iterdir())  # nothing is left of runs that came out equal


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--kills", "0"], "--kills 0: at least one"),
        (["--processes", "1,two"], '--processes "1,two": give different numbers'),
        (["--processes", "2,2"], '--processes "2,2": give different numbers'),
        (["--processes", "0"], '--processes "0": give different numbers'),
        (["--work", "nowhere"], "--work nowhere is no folder"),
    ],
)
def test_wrong_arguments_are_refused(program, arguments, complaint):
    assert complaint in program.refuses("jobs/drill.py", *arguments)
