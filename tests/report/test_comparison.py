"""Comparing runs: led by validation, paired on the same images, honest where nothing compares."""

import dataclasses

import numpy as np
import pytest

from cardamage.config import loading
from cardamage.errors import RunError
from cardamage.evaluation.metrics import scores_per_image
from cardamage.report import comparison
from cardamage.report.lead import leading, rivals_of
from cardamage.report.load import load_run
from cardamage.report.notices import Notice
from cardamage.report.repeats import differing, flat_configs, group_runs
from cardamage.runs.continued import Source, write_origin
from cardamage.runs.paths import RunPaths
from tests.helpers.finished_runs import make_run
from tests.report.test_page import Page


def load(run):
    return load_run(run, loading.load(run.config))


def alone(runs):
    return group_runs(runs, comparison.labels_of(runs))


def differing_keys(runs):
    return differing(flat_configs([results.experiment for results in runs]))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    weak = make_run(folder / "weak", level=0.3, epochs=4, overrides=("optim.lr=0.01",))
    strong = make_run(folder / "strong", level=0.95, epochs=5)
    return [load(weak), load(strong)]


@pytest.fixture(scope="module")
def report(runs):
    return comparison.comparison_report(runs)


def test_the_run_that_is_best_on_validation_leads(runs, report):
    assert leading(alone(runs), "dice_fg") == 1
    assert "Checkpoint to use: strong, epoch" in report.page
    assert f"cardamage predict {runs[1].run.root} " in report.page


def test_the_test_split_has_no_say_in_who_leads(runs):
    weak, strong = runs
    perfect = dataclasses.replace(weak.sampled, values=dict.fromkeys(weak.sampled.values, 1.0))
    lucky = dataclasses.replace(weak, sampled=perfect)

    assert leading(alone([lucky, strong]), "dice_fg") == 1


def test_loss_leads_when_lowest_and_nothing_undefined_leads(runs):
    low, high = (
        dataclasses.replace(r, metrics=r.metrics | {"val_loss": np.full(len(r.epochs), value)})
        for r, value in zip(runs, (0.1, 0.9), strict=True)
    )
    undefined = dataclasses.replace(
        high, metrics=high.metrics | {"val_loss": np.full(len(high.epochs), np.nan)}
    )

    assert leading(alone([high, low]), "loss") == 1
    assert leading(alone([undefined, high]), "loss") == 1


def test_the_lead_is_told_with_its_interval_on_the_same_images(report):
    assert "Confidence intervals of the differences" in report.page
    assert "on the same 10 images" in report.page
    assert "| weak |" in report.summary


def test_only_keys_that_differ_are_listed(runs):
    assert differing_keys(runs) == {"optim.lr": ["0.01", "0.001"], "train.epochs": ["4", "5"]}


def test_a_key_that_a_run_lacks_is_a_dash(runs, tmp_path):
    sgd = load(make_run(tmp_path / "sgd", epochs=5, overrides=("optim={name: sgd}",)))

    assert differing_keys([runs[1], sgd])["optim.momentum"] == ["\N{EN DASH}", "0.0"]


def test_a_section_that_a_run_leaves_out_is_dashes(runs, tmp_path):
    more = load(make_run(tmp_path / "more", epochs=5, overrides=("continue_from={run: e2}",)))

    assert differing_keys([runs[1], more]) == {
        "continue_from.run": ["\N{EN DASH}", "e2"],
        "continue_from.checkpoint": ["\N{EN DASH}", "last"],
    }


def test_groups_of_categories_are_one_key(runs, tmp_path):
    grouped = "data.classes={scratch: [a, b], dent: [c]}"
    other = load(make_run(tmp_path / "grouped", epochs=5, overrides=(grouped,)))

    assert list(differing_keys([runs[1], other])) == ["data.classes"]


def test_equal_configs_differ_in_nothing(runs):
    assert differing_keys([runs[0], runs[0]]) == {}


def test_runs_on_other_images_are_not_paired_and_nobody_leads(runs, tmp_path):
    other = load(make_run(tmp_path / "other", epochs=2, images=4))

    report = comparison.comparison_report([*runs, other])

    assert "<h1>These scores do not compare</h1>" in report.page
    assert "Checkpoint to use" not in report.page
    assert "Checkpoint to use" not in report.summary
    assert "tested on different packed images" in report.page
    assert "splits or classes: other" in report.page
    assert "| weak |" in report.summary  # these two are still paired


def test_runs_of_one_name_are_told_apart_by_their_paths(runs):
    a, b = (
        dataclasses.replace(runs[0], run=RunPaths(p / "same"))
        for p in (runs[0].run.root / "x", runs[0].run.root / "y")
    )

    assert comparison.labels_of([a, b, runs[1]]) == [str(a.run.root), str(b.run.root), "strong"]


def test_names_are_shown_and_never_run(runs):
    nasty = dataclasses.replace(runs[0], run=RunPaths(runs[0].run.root.parent / "<b>&$"))

    report = comparison.comparison_report([nasty, runs[0]])

    assert "they differ in name only" in report.page
    assert "they differ in name only" in report.summary

    assert "<b>&$" not in report.page
    assert "&lt;b&gt;&amp;$" in report.page
    assert r"\<b\>\&$" in report.summary


def test_figures_lie_beside_it(report):
    assert sorted(report.figures) == ["costs", "pictures", "scores", "tests", "validation"]
    assert all(f"({name}.png)" in report.summary for name in report.figures)


@pytest.fixture(scope="module")
def picked(runs):
    weak, strong = runs
    return [strong.at(5), weak.at(2), weak.at(4)]


def test_single_checkpoints_are_compared_under_their_epochs(picked):
    report = comparison.comparison_report(picked)

    assert comparison.labels_of(picked) == ["strong@5", "weak@2", "weak@4"]
    assert "Checkpoint to use: strong@5" in report.page
    assert "Comparison of 3 checkpoints" in report.page
    assert "on the same 10 images" in report.page
    for results, label in zip(picked, ("strong@5", "weak@2", "weak@4"), strict=True):
        dice = results.tested["dice"][results.best - 1]
        (row,) = (r for r in report.summary.splitlines() if r.startswith(f"| {label} | unet2"))
        assert f"epoch {results.best} of" in row
        assert f" {dice:.3f} (" in row
    assert sorted(report.figures) == ["pictures", "scores"]  # no curve, which weak would have twice


def test_differences_of_checkpoints_are_those_of_their_own_tests(picked, runs):
    strong, early, late = picked
    (first, second), unpaired = rivals_of(alone(picked), 0)

    assert unpaired == []
    for rival, results in ((first, early), (second, late)):
        loss = np.mean(strong.result.loss) - np.mean(results.result.loss)
        assert rival.differences["loss"].value == pytest.approx(loss)
    assert (early.result.epoch, late.result.epoch) == (2, 4)
    assert runs[0].result.epoch == runs[0].best  # what they were picked from is as it was


def test_best_and_last_are_checkpoints_too(runs):
    weak, _ = runs

    assert weak.at(None) is weak
    assert (weak.at("best").best, weak.at("best").is_picked) == (weak.best, True)
    assert weak.at("last").best == 4


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(runs):
    with pytest.raises(RunError, match=r"no tested checkpoint of epoch 5; tested are: 1, 2, 3, 4;"):
        runs[0].at(5)


def test_every_class_and_the_same_images_are_set_side_by_side(picked):
    report = comparison.comparison_report(picked)

    assert report.summary.count("| scratch |") == 3
    assert report.page.count("predicts on door") == 9  # 3 images kept, 3 checkpoints
    tested = picked[1].result
    dice = scores_per_image(tested.counts, tested.loss)["dice"][tested.map_samples[0]]
    assert f"<b>weak@2</b> Dice {dice:.3f}" in report.page


def test_many_runs_are_compared_without_pictures(runs):
    many = [runs[0].at(epoch) for epoch in (1, 2, 3, 4)] + [runs[1].at(e) for e in (1, 2, 3)]

    assert "pictures" not in comparison.comparison_report(many).figures
    assert "pictures" in comparison.comparison_report(many[:6]).figures


def test_notes_and_what_a_run_continues_are_said(runs, tmp_path):
    run = make_run(tmp_path / "more", epochs=5)
    source = Source(RunPaths(tmp_path / "e2"), loading.load(run.config), 3)
    write_origin(run, source, "ab" * 32)

    report = comparison.comparison_report([runs[1], load(run)], [Notice("note", "Cut short.")])

    assert "Cut short." in report.page
    assert "epoch 5 of 5, continues e2@3" in report.page


def test_names_of_runs_are_shown_and_never_run(tmp_path):
    name = 'x"><img src=x onerror=alert(1)>'
    hostile = make_run(tmp_path / name, epochs=2, overrides=("data.drop=['</td><script>']",))
    rendered = comparison.comparison_report([load(hostile), load(make_run(tmp_path / "plain"))])

    page = Page(rendered.page)

    assert [attrs.get("type") for attrs in page.all("script")] == ["application/json", None]
    assert all(not name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert all(attrs["src"].startswith("data:") for attrs in page.all("img"))
    assert name in page.text
    assert "</td><script>" in page.text
    assert "\n<" not in rendered.summary
    assert r"\<img src=x onerror=alert(1)\>" in rendered.summary


def test_a_warning_of_several_runs_is_told_once_with_the_numbers_of_each(runs):
    found = comparison.grouped_notices(runs, ["weak", "strong"])

    (few,) = [(whose, told) for whose, told in found if "has 10 images" in told[0][1].text]
    assert few[0] == "weak and strong"
    assert [label for label, _ in few[1]] == ["weak", "strong"]


def test_code_and_versions_that_differ_are_listed_and_those_that_do_not_are_not(runs):
    weak, strong = runs
    packages = {"numpy": "2.1.0", "torch": "2.12.0"}
    git = {"commit": "fedcba", "dirty": False}
    newer = dataclasses.replace(
        strong, provenance=strong.provenance | {"packages": packages, "git": git}
    )

    found = comparison.differing_origins([weak, newer])

    assert found["torch, version"] == ["2.11.0", "2.12.0"]
    assert found["commit"] == ["0123456789ab", "fedcba"]
    assert found["uncommitted changes, hash"][1] == "none"
    assert list(found) == ["commit", "uncommitted changes, hash", "torch, version"]


def test_the_address_of_a_report_runs_nothing(runs, tmp_path):
    run = RunPaths(tmp_path / "javascript:alert(1)")
    run.report.mkdir(parents=True)
    (run.report / "index.html").write_text("")
    there = dataclasses.replace(runs[0], run=run)

    assert comparison._link(there, tmp_path) == "javascript%3Aalert%281%29/report/index.html"
    assert comparison._link(there, None) is None
    assert comparison._link(runs[0], tmp_path) is None
