"""`jobs/report.py` as a person runs it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cardamage.report import panels
from cardamage.runs.paths import StudyPaths
from cardamage.runs.stages import StageRecord, read_stage
from cardamage.runs.study import Comparison, StudyRecord, open_study
from tests.helpers.finished_runs import make_run
from tests.helpers.markers import write_stage

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "runs" / "unet2", epochs=2, images=4)


def test_one_run_is_reported_into_its_directory(program, run):
    page = program.succeeds("jobs/report.py", run.root).splitlines()[-1]

    assert page == str(run.report / "index.html")
    assert {p.name for p in run.report.iterdir()} >= {"index.html", "summary.md", "curves.png"}
    record = read_stage(run, "report")
    assert (record.state, record.output["page"]) == ("done", page)


def test_a_report_elsewhere_is_not_the_runs_stage(program, run):
    out = program.folder / "out side"

    page = program.succeeds("jobs/report.py", run.root, "--out", out).splitlines()[-1]

    assert page == str(out / "index.html")
    assert read_stage(run, "report").state == "waiting"


def test_a_yaml_file_means_its_run(program, run):
    text = run.config.read_text().replace("name: unet2", f"name: {run.root.name}", 1)
    (program.folder / "mine.yaml").write_text(text)

    page = program.succeeds("jobs/report.py", "mine.yaml", "--runs-dir", run.root.parent)

    assert page.splitlines()[-1] == str(run.report / "index.html")


def test_another_rule_can_be_asked_for(program, run):
    out = program.folder / "out"

    program.succeeds("jobs/report.py", run.root, "test.select_by=loss", "--out", out)

    assert "lowest validation loss" in (out / "summary.md").read_text()


def test_several_runs_are_compared(program, run, tmp_path):
    other = make_run(tmp_path / "runs" / "other", epochs=2, images=4, level=0.4)
    out = program.folder / "out"

    printed = program.succeeds("jobs/report.py", run.root, other.root, "--out", out)

    assert printed.splitlines()[-1] == str(out / "index.html")
    figures = {"scores", "costs", *(panel.name for panel in panels.COMPARISON)}
    assert {p.name for p in out.iterdir()} == {
        "index.html",
        "summary.md",
        "runs.csv",
        "pictures.png",
        *(f"{name}.{form}" for name in figures for form in ("png", "svg")),
    }


def test_several_runs_need_a_folder(program, run, tmp_path):
    other = make_run(tmp_path / "runs" / "other", epochs=2, images=4)

    assert "add --out DIR" in program.refuses("jobs/report.py", run.root, other.root)


def test_a_run_given_twice_is_refused(program, run):
    assert "given twice" in program.refuses("jobs/report.py", run.root, run.root, "--out", "o")


def test_single_checkpoints_are_compared(program, run, tmp_path):
    make_run(tmp_path / "runs" / "other", epochs=2, images=4, level=0.4)
    others = tmp_path / "runs" / "other"
    out = program.folder / "out"

    program.succeeds(
        "jobs/report.py", f"{run.root}@2", f"{others}@1", f"{others}@last", "--out", out
    )

    summary = (out / "summary.md").read_text()
    assert all(f"| {label} | unet2" in summary for label in ("unet2@2", "other@1", "other@2"))


@pytest.mark.parametrize(
    ("picks", "error"),
    [
        (("{run}@3", "{run}@1"), "no tested checkpoint of epoch 3; tested are: 1, 2; name one"),
        (("{run}@first", "{run}@1"), '"first" is no checkpoint; write'),
        (("{run}@2", "{run}@last"), "@last is given twice; name each run and each checkpoint once"),
        (("gone@2", "{run}@1"), 'there is no run "gone"'),
    ],
)
def test_checkpoints_that_are_not_there(program, run, picks, error):
    words = [pick.format(run=run.root) for pick in picks]

    assert error in program.refuses("jobs/report.py", *words, "--out", "out")
    assert not (program.folder / "out").exists()


def test_a_folder_with_an_at_in_its_name_is_that_folder(program, tmp_path):
    run = make_run(tmp_path / "runs" / "unet@2", epochs=2, images=4)

    page = program.succeeds("jobs/report.py", run.root, "--out", program.folder / "out")

    assert page.splitlines()[-1].endswith("index.html")


def test_overrides_over_several_runs_are_refused(program, run, tmp_path):
    words = (run.root, tmp_path / "other", "test.select_by=loss", "--out", "o")

    assert "cannot be laid over 2 runs" in program.refuses("jobs/report.py", *words)


def test_overrides_without_a_run_are_refused(program):
    assert "only test.select_by=loss is given" in program.refuses(
        "jobs/report.py", "test.select_by=loss"
    )


def test_a_run_that_is_still_training_waits_unless_the_report_goes_elsewhere(program, run):
    write_stage(run, StageRecord("train", state="running"))

    assert "stage train is running" in program.refuses("jobs/report.py", run.root)
    assert read_stage(run, "report").state == "failed"
    assert not run.report.exists()
    program.succeeds("jobs/report.py", run.root, "--out", program.folder / "out")


def test_a_run_that_is_not_tested_is_refused_with_the_command(program, run):
    run.test_table("test").unlink()

    line = program.refuses("jobs/report.py", run.root)

    assert f"cardamage test {run.root}" in line
    assert not run.report.exists()


def test_a_config_that_was_not_run_is_refused_and_makes_no_directory(program, run):
    (program.folder / "mine.yaml").write_text(run.config.read_text())

    assert "has not been run" in program.refuses("jobs/report.py", "mine.yaml")
    assert not (program.folder / "runs").exists()


def test_a_folder_that_is_no_run_is_refused(program):
    (program.folder / "empty").mkdir()

    assert 'there is no run "empty"' in program.refuses("jobs/report.py", "empty")


def test_a_folder_that_cannot_be_written_is_refused(program, run):
    (program.folder / "file").write_text("")

    line = program.refuses("jobs/report.py", run.root, "--out", program.folder / "file" / "x")

    assert "cannot be made (Not a directory); choose another place" in line


def test_the_report_needs_no_torch(run, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('the report imported torch')")

    subprocess.run(
        [sys.executable, ROOT / "jobs/report.py", run.root],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        check=True,
        capture_output=True,
    )


@pytest.fixture
def study(tmp_path):
    """A study of three finished runs, two of which are compared further."""
    for name in ("e1", "e2", "e3"):
        done = make_run(tmp_path / "runs" / name, epochs=2, images=4)
        for stage in ("pack", "train", "test"):
            write_stage(done, StageRecord(stage, state="done"))
    made = StudyPaths(tmp_path / "runs" / "study")
    pair = Comparison("a pair", ("e3", "e1"))
    open_study(made, StudyRecord("study", "study.yaml", ("e1", "e2", "e3"), (pair,)))
    return made


def compared(summary):
    """The runs in the first table of a comparison."""
    rows = re.findall(r"^\| (e\d) \| \w+, ", summary.read_text(), re.MULTILINE)
    return list(dict.fromkeys(rows))


def test_a_study_compares_its_runs(program, study):
    page = program.succeeds("jobs/report.py", study.root).splitlines()[-1]

    assert page == str(study.report / "index.html")
    assert compared(study.report / "summary.md") == ["e1", "e2", "e3"]
    pair = study.comparison("a pair")
    assert compared(pair / "summary.md") == ["e3", "e1"]
    assert '<a href="a%20pair/index.html">' in Path(page).read_text()
    assert '<a href="../index.html">' in (pair / "index.html").read_text()
    record = read_stage(study, "report")
    assert record.state == "done"
    assert record.output["page"] == page
    assert record.output["comparisons"] == {"a pair": str(pair / "index.html")}
    assert list(record.output["tested"]) == ["e1", "e2", "e3"]


@pytest.mark.parametrize("option", ["--out=elsewhere", "test.select_by=loss"])
def test_a_study_is_reported_as_it_was_submitted(program, study, option):
    line = program.refuses("jobs/report.py", study.root, option)

    assert f"{option.removesuffix('=elsewhere')} is not for a study" in line
    assert not study.report.exists()


def test_a_study_of_which_one_run_failed_compares_the_others_and_says_so(program, study):
    failed = StageRecord("train", state="failed", error="the loss is not a number")
    write_stage(study.beside("e2"), failed)

    program.succeeds("jobs/report.py", study.root)

    summary = (study.report / "summary.md").read_text()
    assert "# Comparison of 2 runs" in summary
    assert "e2 is missing: train failed: the loss is not a number" in summary
    record = read_stage(study, "report")
    assert list(record.output["tested"]) == ["e1", "e3"]


def test_a_study_with_less_than_two_tested_runs_is_refused(program, study):
    write_stage(study.beside("e1"), StageRecord("test", state="failed"))
    shutil.rmtree(study.beside("e3").root)

    line = program.refuses("jobs/report.py", study.root)

    assert "2 of 3 runs of study are not tested" in line
    assert "e1 (test failed), e3 (pack waiting)" in line
    assert "submit study.yaml again" in line
    assert not study.report.exists()
    assert read_stage(study, "report").state == "failed"


def test_a_study_that_was_made_shorter_compares_the_last_epochs_there_are(program, study):
    # The file asks for epochs 7 and 2 of e1 and 9 of e2; each run has 2.
    wanted = Comparison("checkpoints", ("e1@7", "e1@2", "e2@9", "e3@1", "e2@last"))
    open_study(study, StudyRecord("study", "study.yaml", ("e1", "e2", "e3"), (wanted,)))

    program.succeeds("jobs/report.py", study.root)

    summary = (study.comparison("checkpoints") / "summary.md").read_text()
    assert "# Comparison of 3 checkpoints" in summary
    assert "e1@2 stands for e1@7, as e1 ends with epoch 2." in summary
    assert "e2@2 stands for e2@9, as e2 ends with epoch 2." in summary
    assert "e2@last is epoch 2 again, which is compared once." in summary


def test_a_run_and_the_comparison_of_its_study_lead_to_each_other(program, study):
    run = study.beside("e1")
    program.succeeds("jobs/report.py", run.root)

    page = program.succeeds("jobs/report.py", study.root).splitlines()[-1]

    assert (
        '<a href="../../study/report/index.html">study</a>'
        in (run.report / "index.html").read_text()
    )
    assert '<a href="../../e1/report/index.html">e1</a>' in Path(page).read_text()
    assert "../e2/report" not in Path(page).read_text()  # it has none
