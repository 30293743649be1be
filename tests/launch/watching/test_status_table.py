"""What `status` shows: 80 columns, studies, filters, order, and why jobs wait."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from cardamage.cli import main
from cardamage.commands.status import _ordered
from cardamage.errors import ConfigError
from cardamage.launch.planning.plan import make_plan
from cardamage.launch.watching.overview import all_runs, overviews
from cardamage.launch.watching.queue import JobState
from cardamage.launch.watching.table import lines_below, table_of
from cardamage.runs.paths import STAGES, RunPaths, StudyPaths
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import write_table
from tests.helpers.fake_runs import CONFIG
from tests.helpers.markers import write_stage
from tests.launch.planning.test_plan import finish

SWEEP = "name: s\nsweep: {config: cars.yaml, grid: {seed: [0, 1, 2]}}\n"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of three, of which one failed and one is better, and a run of its own."""
    monkeypatch.chdir(tmp_path)
    Path("cars.yaml").write_text(CONFIG.replace("name: fake", "name: alone"))
    Path("sweep.yaml").write_text(SWEEP)
    for file in ("cars.yaml", "sweep.yaml"):
        finish(make_plan([Path(file)], [], Path("runs"), STAGES))
    failed = StageRecord("train", "failed", error="out of memory", error_class="user")
    write_stage(RunPaths(Path("runs/s-seed_1")), failed)
    row = {"val_loss": 0.4, "val_miou": 0.9}
    write_table(RunPaths(Path("runs/s-seed_2")).metrics, [{"epoch": 1, **row}])
    return Path("runs")


def shown(runs: Path, width: int, *, is_wide: bool = False) -> list[str]:
    console = Console(width=width, record=True, force_terminal=False, color_system=None)
    with console.capture() as captured:
        found = overviews(all_runs(runs))
        console.print(table_of(found, [StudyPaths(runs / "s")], is_wide=is_wide))
    return captured.get().splitlines()


def test_eighty_columns_hold_what_a_person_needs(runs: Path):
    lines = shown(runs, 80)
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["run", "state", "epoch", "best", "left"]
    cells = {line.split()[0]: re.split(r"\s{2,}", line.strip())[1:] for line in lines[1:]}
    assert cells["s"] == ["2 of 3 done", "6/6"]
    assert cells["s-seed_1"][0] == "train failed"
    assert cells["s-seed_2"] == ["done", "2/2", "miou 0.900 (1)"]
    assert [line.split()[0] for line in lines[1:]] == [
        *("s", "s-seed_0", "s-seed_1", "s-seed_2"),
        "alone",
    ]


def test_wide_has_every_stage_and_the_process(runs: Path):
    head = shown(runs, 120, is_wide=True)[0].split()
    assert head == ["run", *STAGES, "epoch", "best", "speed", "left", "process", "where", "cost"]


def test_filter_and_order(runs: Path):
    found = overviews(all_runs(runs))
    names = lambda kept: [of_run.run.root.name for of_run in kept]  # noqa: E731
    assert names(_ordered(found, "failed", "name")) == ["s-seed_1"]
    assert names(_ordered(found, None, "best"))[0] == "s-seed_2"
    assert names(_ordered(found, None, "state"))[-1] == "s-seed_1"
    soon = replace(found[3], seconds_left=5.0)
    assert names(_ordered([*found[:3], soon], None, "left"))[0] == soon.run.root.name
    with pytest.raises(ConfigError, match=r'"fail" is unknown.*did you mean "failed"'):
        _ordered(found, "fail", "name")


def test_why_a_job_waits_is_said_once(runs: Path):
    found = overviews(all_runs(runs))[:2]
    job = JobState("PENDING", "BadConstraints")
    waiting = [
        replace(
            o, stages={**o.stages, "train": replace(o.stages["train"], state="queued", job=job)}
        )
        for o in found
    ]
    (line,) = (line for line in lines_below(waiting) if "BadConstraints" in line)
    assert "too many are excluded" in line


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    return capsys.readouterr().out


def test_logs_of_a_study_tell_how_each_run_stands(runs: Path, capsys: pytest.CaptureFixture[str]):
    write_stage(StudyPaths(runs / "s"), StageRecord("report"))
    run = RunPaths(runs / "s-seed_0")
    write_stage(run, StageRecord("train", "running", started="2030-01-01T00:00:00+00:00"))
    run.log("train").write_text("epoch 1\nepoch 2\n")
    lines = said(capsys, "logs", "s").splitlines()
    assert lines[0].endswith("epoch 2")
    assert [line.partition(":")[0] for line in lines] == [f"s-seed_{seed}" for seed in range(3)]


def test_a_watch_needs_a_terminal(runs: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["status", "--watch"])
    assert ended.value.code == 2
    assert "--json" in capsys.readouterr().err
