"""A run that is not tested yet is reported as what it is."""

import pytest

from cardamage.config import loading
from cardamage.errors import RunError
from cardamage.report.stage import report_one
from cardamage.report.standing import standing_report
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import read_table
from tests.helpers.markers import write_stage


@pytest.fixture
def untested(run):
    run.test_table("test").unlink()
    return run


def report(run):
    return standing_report(run, loading.load(run.config))


def test_a_failed_training_tells_its_error_its_best_epoch_and_what_resumes_it(untested):
    write_stage(untested, StageRecord("train", state="failed", error="the disk is <full>"))

    found = report(untested)

    rows = read_table(untested.metrics)
    best = max(rows, key=lambda row: row["val_dice_fg"])
    assert f"best so far: epoch {best['epoch']}" in found.page
    assert f"{best['val_dice_fg']:.3f}" in found.page
    assert "the disk is &lt;full&gt;" in found.page
    assert f"cardamage submit {untested.root}" in found.page
    assert "curves" in found.figures


def test_elsewhere_it_takes_the_place_of_the_report_and_leaves_the_run_alone(untested, tmp_path):
    page = report_one(loading.load(untested.config), untested, tmp_path / "out")

    assert "Not tested yet" in page.read_text()
    assert not untested.report.exists()


def test_without_an_epoch_there_is_nothing_to_tell(untested):
    untested.metrics.unlink()
    with pytest.raises(RunError, match="cardamage train"):
        report(untested)
    write_stage(untested, StageRecord("train", state="failed", error="lower optim.lr"))
    with pytest.raises(RunError, match=r"training failed: lower optim\.lr"):
        report(untested)
