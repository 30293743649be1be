"""What is called no longer needed, and what never is."""

import os
from pathlib import Path

import pytest

from cardamage.cli import main
from cardamage.config.loading import load
from cardamage.errors import UserError
from cardamage.launch.planning.plan import make_plan
from cardamage.launch.watching.overview import all_runs
from cardamage.launch.watching.prune import KINDS, check_kinds, find_leftovers
from cardamage.runs.directory import open_run
from cardamage.runs.paths import STAGES, RunPaths, ShardPaths
from cardamage.runs.stages import StageRecord
from cardamage.system.files import write_json
from tests.helpers.fake_runs import CONFIG
from tests.helpers.markers import write_stage
from tests.launch.planning.test_plan import finish


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run, one that trains, one that was cancelled at once, and shards of nobody."""
    monkeypatch.chdir(tmp_path)
    for name in ("finished", "trains", "cancelled"):
        Path(f"{name}.yaml").write_text(CONFIG.replace("name: fake", f"name: {name}"))
    finish(make_plan([Path("finished.yaml")], [], Path("runs"), STAGES))
    for name in ("trains", "cancelled"):
        open_run(RunPaths(Path("runs") / name), load(Path(f"{name}.yaml")))
    for name in ("finished", "trains"):
        run = RunPaths(Path("runs") / name)
        run.resume.mkdir()
        run.state(8).write_bytes(b"x" * 10_000)
        write_json(run.progress, {"epoch": 2, "step": 8})
        (run.code / "abc").mkdir(parents=True)
    done = StageRecord("pack", "done", output={"shards": "shards/packed"})
    write_stage(RunPaths(Path("runs/trains")), done)
    running = StageRecord("train", "running", host="another machine", pid=1)
    write_stage(RunPaths(Path("runs/trains")), running)
    write_stage(RunPaths(Path("runs/cancelled")), done)
    write_stage(RunPaths(Path("runs/cancelled")), StageRecord("train", "cancelled"))
    unused = ShardPaths(Path("shards/unused"))
    unused.root.mkdir()
    write_json(unused.manifest, {})
    Path("shards/being-made").mkdir()
    return Path("runs")


def found(runs: Path, *kinds: str) -> set[tuple[str, str]]:
    there = all_runs(runs)
    leftovers = find_leftovers(there, there, kinds or KINDS)
    return {(each.kind, os.path.relpath(each.path)) for each in leftovers}


def test_what_can_go(runs: Path):
    assert found(runs) == {
        ("states", "runs/finished/resume/state-00000008.pt"),
        ("snapshots", "runs/finished/code"),
        ("cancelled", "runs/cancelled"),
        ("shards", "shards/unused"),
    }
    assert found(runs, "shards") == {("shards", "shards/unused")}


def test_shards_stay_where_a_run_may_use_any(runs: Path):
    write_stage(RunPaths(runs / "trains"), StageRecord("pack", "running", host="elsewhere"))
    assert found(runs, "shards") == set()


def test_a_run_that_cannot_be_read_is_left_alone(runs: Path):
    (runs / "finished/config.yaml").write_text("data: [")
    assert {path for _, path in found(runs)} == {"runs/cancelled"}


def test_sizes_are_what_the_disk_gives_back(runs: Path):
    there = all_runs(runs)
    (state,) = find_leftovers(there, there, ["states"])
    assert state.size == state.path.stat().st_blocks * 512 > 0


def prune(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["prune", *words])
    assert not ended.value.code


def test_nothing_goes_without_yes_and_only_what_was_listed_with_it(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    prune()
    assert "--yes" in capsys.readouterr().out
    assert len(found(runs)) == 4
    prune("--yes", "--what", "states,shards")
    assert {kind for kind, _ in found(runs)} == {"snapshots", "cancelled"}
    prune("--yes")
    assert found(runs) == set()
    assert (runs / "trains/resume/state-00000008.pt").is_file()
    assert Path("shards/packed/manifest.json").is_file()
    assert Path("shards/being-made").is_dir()


def test_what_is_unknown_is_refused():
    with pytest.raises(UserError, match='"shard" is unknown; allowed: states, snapshots, shards'):
        check_kinds("shard")
    assert check_kinds("cancelled, states") == ("states", "cancelled")
