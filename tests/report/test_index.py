"""The page over all runs: finished, unfinished and damaged ones, as what they are."""

import json
import re

import pytest

from cardamage.cli import main
from cardamage.errors import ConfigError
from cardamage.report.index import SCORES, read_row, write_index
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import read_table
from tests.helpers.finished_runs import make_run
from tests.helpers.markers import write_stage
from tests.report.test_page import Page


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs, one that failed in training, one whose config is damaged."""
    folder = tmp_path_factory.mktemp("many") / "runs"
    done = make_run(folder / "done & dusted", epochs=2, images=3)
    (done.report).mkdir()
    (done.report / "index.html").write_text("")
    make_run(folder / "other", epochs=3, images=3, overrides=("optim.lr=0.01",))
    failed = make_run(folder / "failed", epochs=1, images=2)
    for path in (failed.metrics, failed.test_table("test")):
        path.unlink()
    record = StageRecord("train", state="failed", error="<script>no memory</script>")
    write_stage(failed, record)
    failed.logs.mkdir(exist_ok=True)
    failed.log("train").write_text("no memory")
    damaged = make_run(folder / "damaged", epochs=1, images=2)
    damaged.config.write_text("model: [")
    return folder


def test_a_finished_run_has_its_scores_and_cost(runs):
    run = RunPaths(runs / "other")
    row = read_row(run)
    tested = next(r for r in read_table(run.test_table("test")) if r["epoch"] == row.best)
    metrics = next(r for r in read_table(run.metrics) if r["epoch"] == row.best)

    assert (row.state, row.problem, row.link) == ("report waiting", None, None)
    assert row.scores == tuple(tested[column] for column in SCORES)
    assert row.validation == metrics["val_dice_fg"]
    assert row.cost.parameters == 4 * 3 * 3 * 3
    assert row.cost.seconds == 7.5
    assert row.config["optim.lr"] == "0.01"


def test_unfinished_and_damaged_runs_are_rows_that_say_so(runs):
    failed, damaged = (read_row(RunPaths(runs / name)) for name in ("failed", "damaged"))

    assert (failed.state, failed.epochs, failed.best) == ("train failed", 0, None)
    assert "no memory" in failed.problem
    assert failed.log == "failed/logs/train.log"
    assert "config.yaml" in damaged.problem


def test_every_run_is_a_row_that_links_to_its_report(runs):
    html = write_index(runs).read_text()
    page = Page(html)

    assert page.all("a")[1:] == [
        {"href": "#why-1"},
        {"href": "done%20%26%20dusted/report/index.html"},
        {"href": "#why-3"},
        {"href": "failed/logs/train.log"},
    ]
    assert re.findall('<div id="(.*?)"><dt>(.*?)</dt>', html) == [
        ("why-1", "damaged"),
        ("why-3", "failed"),
    ]
    assert "<script>no memory" not in html
    assert len(re.findall('<th scope="row"', html)) == 4
    (configs,) = re.findall(r"data-configs>(.*?)</script>", html)
    assert sorted(json.loads(configs)) == ["done & dusted", "failed", "other"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="name another --runs-dir"):
        write_index(tmp_path)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--index"], 0, "index.html"),
        (["other", "--index"], 2, "leave out other"),
        (["--index", "--out", "there"], 2, "leave out --out"),
        ([], 2, "--index"),
    ],
)
def test_the_command_writes_it(runs, capsys, words, status, said):
    with pytest.raises(SystemExit) as ended:
        main(["report", *words, "--runs-dir", str(runs)])
    assert ended.value.code == status
    printed = capsys.readouterr()
    assert said in (printed.err if status else printed.out)
