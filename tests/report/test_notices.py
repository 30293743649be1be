"""What a reader is warned of, each found in numbers that show it."""

import dataclasses
import shutil

import numpy as np
import pytest

from cardamage.config import loading
from cardamage.config.recipe import CosineSchedule, Dice
from cardamage.data.shards.manifest import LostRecord
from cardamage.evaluation.intervals import Estimate
from cardamage.evaluation.metrics import scores
from cardamage.report.load import load_run
from cardamage.report.notices import comparison_notices, is_usable, run_notices
from cardamage.runs.stages import read_stage
from cardamage.runs.tables import read_table, write_table
from tests.helpers.finished_runs import make_run


def load(run, *overrides):
    return load_run(run, loading.load(run.config, overrides))


def texts(results, level=None) -> str:
    notices = run_notices(results)
    return " ".join(n.text for n in notices if level in (None, n.level))


def metrics_of(results, **columns):
    changed = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    return dataclasses.replace(results, metrics=results.metrics | changed)


def test_a_softmax_before_cross_entropy_is_told_with_the_floor_of_the_loss(tmp_path):
    model = "model={name: segnet2, softmax_output: true}"
    run = make_run(tmp_path / "segnet2", epochs=1, images=2, overrides=(model,))

    # three classes with the background: -ln(e / (e + 2)) = 0.5514...
    assert "With 3 classes, background included, its loss cannot fall below 0.551" in texts(
        load(run), "warning"
    )


def test_logits_are_not_warned_of(results):
    assert "softmax" not in texts(results)


def test_a_validation_loss_that_rises_is_overfitting(results):
    risen = metrics_of(
        results,
        train_loss=[1.0, 0.8, 0.6, 0.5, 0.4, 0.3],
        val_loss=[1.0, 0.9, 0.7, 0.8, 0.9, 1.0],
    )

    assert (
        "validation loss was lowest at epoch 3 (0.700) and rose to 1.000 by epoch 6, "
        "while training loss went on falling"
    ) in texts(risen, "warning")


@pytest.mark.parametrize(
    ("train", "valid"),
    [
        ([1.0, 0.8, 0.6, 0.5, 0.4, 0.3], [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]),  # both fall
        ([1.0, 0.8, 0.6, 0.5, 0.4, 0.3], [1.0, 0.9, 0.7, 0.6, 0.5, 0.505]),  # hardly rises
        ([0.5, 0.5, 0.6, 0.7, 0.8, 0.9], [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),  # both rise
    ],
)
def test_other_courses_are_not_overfitting(results, train, valid):
    assert "overfits" not in texts(metrics_of(results, train_loss=train, val_loss=valid))


def test_a_loss_that_is_no_number_is_told_with_its_epoch(results):
    broken = metrics_of(results, val_loss=[1.0, 0.9, float("nan"), 1.0, 1.0, 1.0])

    assert "validation loss is not a finite number from epoch 3 on" in texts(broken, "warning")


def test_few_images_are_told_with_the_width_of_the_interval(results):
    width = results.intervals[results.best]["dice"].half_width
    warned = texts(results, "warning")

    assert "has 10 images, so its scores are uncertain" in warned
    assert f"the 95 % interval of Dice reaches about ±{width:.2f}" in warned


def test_many_images_and_a_narrow_interval_are_not_warned_of(results):
    sure = dataclasses.replace(
        results,
        result=dataclasses.replace(results.result, counts=np.repeat(results.result.counts, 50, 0)),
        intervals={
            results.best: results.intervals[results.best] | {"dice": Estimate(0.5, 0.49, 0.51)}
        },
    )

    assert "uncertain" not in texts(sure)


def test_a_model_that_finds_nothing_is_told(tmp_path):
    run = make_run(tmp_path / "blind", epochs=2, images=4, finds_nothing=True)

    assert "predicts no foreground at all" in texts(load(run), "warning")


def test_a_class_that_is_never_predicted_is_named(results):
    counts = results.result.counts.copy()
    counts[:, :, 0] += counts[:, :, 2]
    counts[:, :, 2] = 0
    blind = dataclasses.replace(results, result=dataclasses.replace(results.result, counts=counts))

    assert "never predicts “dent”" in texts(blind, "warning")


def test_a_model_that_is_no_better_than_a_constant_answer_is_told(results):
    counts = np.zeros_like(results.result.counts)
    counts[:, 0] = [60, 20, 0]
    counts[:, 1] = [15, 5, 0]  # a fifth is foreground, and one in four is called so, anywhere
    result = dataclasses.replace(results.result, counts=counts)
    scored = scores(counts, result.loss, result.class_names)
    intervals = {results.best: {n: Estimate(v, v - 0.01, v + 0.01) for n, v in scored.items()}}
    blind = dataclasses.replace(results, result=result, intervals=intervals)

    assert is_usable(results)
    assert not is_usable(blind)
    assert (
        "calling every pixel damaged scores Foreground Dice 0.333 on these images, and this "
        "checkpoint scores 0.222"
    ) in texts(blind, "warning")
    assert (
        "calling every pixel background scores 0.800, and this checkpoint scores 0.650"
    ) in texts(blind, "note")
    assert "calling every pixel" not in texts(results)


def test_a_class_the_split_lacks_is_named(results):
    counts = results.result.counts.copy()
    counts[:, 2, :] = 0
    lacking = dataclasses.replace(
        results, result=dataclasses.replace(results.result, counts=counts)
    )

    assert "No pixel of the test split is “dent”" in texts(lacking, "warning")


@pytest.mark.parametrize(("split", "word"), [("valid", "chosen"), ("train", "trained")])
def test_a_test_on_seen_images_is_told(tmp_path, split, word):
    run = make_run(tmp_path / "seen", epochs=1, images=2, overrides=(f"test.split={split}",))

    assert f'split "{split}", on which this checkpoint was {word}' in texts(load(run), "warning")


def test_a_best_epoch_at_the_end_suggests_going_on(results):
    last = dataclasses.replace(results, best=6)
    command = f"cardamage submit {results.run.root} train.epochs=12"

    assert command in [notice.command for notice in run_notices(last)]
    assert command not in [n.command for n in run_notices(dataclasses.replace(results, best=5))]


def test_a_run_that_is_not_finished_is_told(run):
    rows = read_table(run.metrics)
    write_table(run.metrics, rows[:2])

    assert "2 of 3 epochs are trained" in texts(load(run), "note")


def test_untested_epochs_are_told(run):
    best = load(run).best
    rows = [row for row in read_table(run.test_table("test")) if row["epoch"] == best]
    write_table(run.test_table("test"), rows)

    assert "2 of 3 epochs are not tested yet" in texts(load(run), "note")


def test_what_is_gone_is_told(run):
    shutil.rmtree(run.checkpoints)
    shutil.rmtree(read_stage(run, "pack").output["shards"])
    results = load(run)

    assert str(run.checkpoint(results.best)) in texts(results, "warning")
    assert "pictures of test images are left out" in texts(results, "note")


def test_shards_that_were_packed_anew_are_told(results):
    assert results.manifest is not None
    manifest = results.manifest.model_copy(update={"fingerprint": "another"})

    text = texts(dataclasses.replace(results, manifest=manifest), "warning")
    assert "another one than was tested" in text


def test_warnings_come_before_notes(tmp_path):
    run = make_run(tmp_path / "r", epochs=2, images=3)
    shutil.rmtree(read_stage(run, "pack").output["shards"])
    levels = [notice.level for notice in run_notices(load(run))]

    assert levels == sorted(levels, reverse=True)
    assert set(levels) == {"warning", "note"}


def test_equal_runs_compare(results):
    assert comparison_notices([results, results], ["a", "b"]) == []


def test_what_makes_runs_incomparable_is_named(results, tmp_path):
    other = load(
        make_run(
            tmp_path / "other",
            epochs=2,
            images=4,
            classes=("scratch", "glass"),
            overrides=("test.split=valid", "test.select_by=loss"),
        )
    )

    notices = comparison_notices([results, other], ["one", "two"])

    assert [n.level for n in notices] == ["warning"] * 3 + ["note"]
    assert "different classes" in notices[0].text
    assert "one: scratch, dent; two: scratch, glass" in notices[0].text
    assert "one: test; two: valid" in notices[1].text
    assert "4 images of doors" in notices[2].text
    assert "two: lowest validation loss" in notices[3].text


def test_losses_of_different_kinds_do_not_compare(results):
    other = dataclasses.replace(
        results, experiment=results.experiment.model_copy(update={"loss": Dice(name="dice")})
    )

    assert comparison_notices([results, results], ["a", "b"]) == []
    (notice,) = comparison_notices([results, other], ["a", "b"])
    assert notice.level == "note"
    assert "the column loss does not compare" in notice.text


def test_more_epochs_are_proposed_only_where_the_schedule_allows_them(results):
    last = dataclasses.replace(results, best=results.epochs[-1])
    cosine = {"schedule": CosineSchedule(name="cosine")}
    spanning = dataclasses.replace(last, experiment=last.experiment.model_copy(update=cosine))

    assert "more epochs may do better" in texts(last)
    assert "more epochs" not in texts(spanning)


def test_what_is_not_in_the_packed_masks_is_told(results):
    record = results.manifest.splits["test"].model_copy(
        update={
            "left_out": {"b.jpg": "b.jpg cannot be decoded"},
            "lost": {"dent": LostRecord(images=2, annotations=9, hidden=1, too_thin=3)},
        }
    )
    changed = results.manifest.model_copy(update={"splits": {"test": record}})
    told = dataclasses.replace(results, manifest=changed)
    assert "1 image: “b.jpg” (b.jpg cannot be decoded)" in texts(told, "warning")
    assert "4 of the 9 of dent" in texts(told, "note")
    assert "Left out" not in texts(results)
