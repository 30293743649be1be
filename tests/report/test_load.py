"""Reading a run: what is found, and one clear line for everything that is missing or damaged."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cardamage.config import loading
from cardamage.errors import CheckpointError, DataError, RunError, UserError
from cardamage.evaluation.metrics import scores
from cardamage.evaluation.results import read_result, write_result
from cardamage.report.load import load_run
from cardamage.report.page import _FILTERS
from cardamage.runs.checkpoints import best_epoch
from cardamage.runs.paths import ShardPaths
from cardamage.runs.stages import read_stage
from cardamage.runs.tables import read_table, write_table
from cardamage.runs.usage import energy_words
from cardamage.training.test import table_row
from tests.helpers.finished_runs import make_run


def load(run, *overrides):
    return load_run(run, loading.load(run.config, overrides))


def refusal(run, *overrides, error: type[UserError] = RunError) -> str:
    with pytest.raises(error) as caught:
        load(run, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_best_epoch_is_that_of_the_rule_on_the_validation_split(results):
    rows = read_table(results.run.metrics)

    assert results.best == best_epoch(rows, "dice_fg")
    assert results.result.epoch == results.best
    assert results.validation("dice_fg", results.best) == max(
        float(row["val_dice_fg"]) for row in rows
    )


def test_another_rule_chooses_another_epoch(tmp_path):
    run = make_run(tmp_path / "unet2", epochs=5, images=4, overfits_after=2)

    by_loss = load(run, "test.select_by=loss")

    losses = by_loss.metrics["val_loss"]
    assert by_loss.best == by_loss.epochs[int(np.argmin(losses))]


def test_every_tested_epoch_has_intervals_around_its_scores(results):
    assert list(results.intervals) == results.tested_epochs == results.epochs
    for number, epoch in enumerate(results.tested_epochs):
        estimate = results.intervals[epoch]["dice"]
        assert estimate.value == pytest.approx(results.tested["dice"][number])
        assert estimate.low <= estimate.value <= estimate.high


def test_parameters_are_counted_without_running_statistics(results):
    assert results.cost.parameters == 4 * 3 * 3 * 3
    assert results.cost.checkpoint_bytes == results.run.checkpoint(results.best).stat().st_size


def test_speed_is_the_median_over_epochs_each_as_it_was_trained_last(run):
    with run.events.open("a") as stream:
        stream.write(
            json.dumps({"event": "epoch", "epoch": 3, "seconds": 7.5, "images_per_second": 500.0})
            + "\n"
        )
    cost = load(run).cost

    assert cost.images_per_second == 42.0  # of 41, 42 and 500
    assert cost.seconds == 3 * 2.5 + 7.5  # the third was trained twice
    assert cost.data_wait_share is None  # not known of every epoch


def test_energy_is_that_of_all_trainings(run):
    known = json.loads(run.provenance.read_text())
    attempt = {"stage": "train", "started": "2026-01-01T00:00:00+00:00", "host": "a", "code": 0}
    attempt |= {"command": "train", "ended": attempt["started"], "seconds": 5.0}
    known["attempts"] = [
        {**attempt, "usage": {"gpu_joules": 3600.0, "cpu_joules": 1800.0}},
        {**attempt, "usage": {"gpu_joules": 3600.0}},
        {**attempt, "stage": "test", "usage": {"gpu_joules": 1e6}},
    ]
    run.provenance.write_text(json.dumps(known))

    cost = load(run).cost

    assert (cost.joules, energy_words(cost.joules)) == (9000.0, "2.5 Wh")
    assert _FILTERS["energy"](None) == "\N{EN DASH}"


def test_a_run_without_events_provenance_and_checkpoints_is_still_reported(run):
    run.events.unlink()
    run.provenance.unlink()
    shutil.rmtree(run.checkpoints)

    loaded = load(run)

    assert loaded.cost.parameters is None
    assert loaded.provenance == {}
    assert loaded.cost.images_per_second is None


def test_a_run_brought_here_without_its_shards_has_none(run):
    shutil.rmtree(read_stage(run, "pack").output["shards"])

    assert load(run).shards is None


def test_a_run_that_is_not_trained_names_the_command(run):
    run.metrics.unlink()

    message = refusal(run)

    assert "is not trained" in message
    assert f"cardamage train {run.root}" in message


def test_a_run_that_is_not_tested_names_the_command(run):
    run.test_table("test").unlink()

    message = refusal(run)

    assert 'not tested on the split "test"' in message
    assert f"cardamage test {run.root}" in message


def test_a_path_with_a_space_is_quoted_in_the_command(tmp_path):
    run = make_run(tmp_path / "my run", epochs=1, images=2)
    run.test_table("test").unlink()

    assert f"cardamage test '{run.root}'" in refusal(run)


def test_metrics_without_a_row_are_refused(run):
    header = run.metrics.read_text().splitlines()[0]
    run.metrics.write_text(header + "\n")

    assert "has no rows yet" in refusal(run)


def test_a_run_tested_before_a_score_was_there_is_tested_again(run):
    table = run.test_table("test")
    rows = read_table(table)
    write_table(table, [{k: v for k, v in row.items() if k != "miou"} for row in rows])

    message = refusal(run)

    assert "no column miou" in message
    assert f"cardamage test {run.root}" in message
    # What that command does with checkpoints whose tests are there:
    write_table(table, [table_row(run, "test", int(row["epoch"])) for row in rows])
    assert "miou" in load(run).tested


def test_a_missing_column_is_named(run):
    rows = read_table(run.metrics)
    write_table(run.metrics, [{k: v for k, v in row.items() if k != "val_iou"} for row in rows])

    assert "no column val_iou" in refusal(run)


def test_text_where_a_number_belongs_is_named(run):
    rows = read_table(run.metrics)
    write_table(run.metrics, [row | {"val_loss": "lots"} for row in rows])

    assert 'val_loss holds "lots"' in refusal(run)


@pytest.mark.parametrize("epoch", [0, 1.5, float("nan")])
def test_an_epoch_that_is_none_is_refused(run, epoch):
    rows = read_table(run.metrics)
    write_table(run.metrics, [*rows[:-1], rows[-1] | {"epoch": epoch}])

    assert "no whole number from 1" in refusal(run)


def test_a_rule_without_any_score_is_refused(run):
    rows = read_table(run.metrics)
    write_table(run.metrics, [row | {"val_dice_fg": float("nan")} for row in rows])

    assert "no epoch has a validation dice_fg" in refusal(run)


def test_a_best_epoch_that_is_not_tested_is_refused(run):
    best = load(run).best
    rows = [row for row in read_table(run.test_table("test")) if row["epoch"] != best]
    write_table(run.test_table("test"), rows)

    run.checkpoints.mkdir(exist_ok=True)
    run.checkpoint(best).touch()

    assert f"epoch {best}, the best on the validation split, is not tested yet" in refusal(run)


def test_a_best_epoch_whose_checkpoint_was_deleted_is_gone_on_without(run):
    best = load(run).best
    rows = [row for row in read_table(run.test_table("test")) if row["epoch"] != best]
    write_table(run.test_table("test"), rows)
    run.checkpoint(best).unlink(missing_ok=True)

    assert load(run).best in {row["epoch"] for row in rows}


def test_a_test_of_other_weights_is_refused(run):
    path = run.test_counts("test", 2)
    write_result(path, dataclasses.replace(read_result(path), weights_sha256="another"))

    assert "other weights" in refusal(run)


def test_a_truncated_result_is_refused(run):
    path = run.test_counts("test", 1)
    path.write_bytes(path.read_bytes()[:100])

    assert "is damaged" in refusal(run)


def test_a_missing_result_is_refused(run):
    run.test_counts("test", 1).unlink()

    assert "does not exist" in refusal(run)


def test_a_damaged_checkpoint_is_refused(run):
    run.checkpoint(load(run).best).write_bytes(b"not a checkpoint")

    assert "is damaged" in refusal(run, error=CheckpointError)


def test_a_damaged_manifest_is_refused(run):
    ShardPaths(Path(read_stage(run, "pack").output["shards"])).manifest.write_text("{")

    assert "is damaged" in refusal(run, error=DataError)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_provenance_is_refused(run, content):
    run.provenance.write_text(content)

    assert "is damaged" in refusal(run)


def test_memory_and_the_speed_of_testing_are_read_where_they_are_recorded(run):
    with run.events.open("a") as stream:
        for event in (
            {"event": "epoch", "epoch": 1, "peak_memory_bytes": 5_000_000},
            {"event": "epoch", "epoch": 2, "peak_memory_bytes": 7_000_000},
            {"event": "progress", "stage": "test", "per_second": 31.0},
        ):
            stream.write(json.dumps(event) + "\n")

    cost = load(run).cost

    assert cost.peak_memory_bytes == 7_000_000
    assert cost.tested_per_second == 31.0


def test_epochs_are_told_apart_by_validation_counts_where_they_are_kept(run):
    assert load(run).course.split == "test"
    rows = read_table(run.metrics)
    for row in rows:
        result = read_result(run.test_counts("test", int(row["epoch"])))
        write_result(run.validation_counts(result.epoch), result)
        row["val_dice_fg"] = scores(result.counts, result.loss, result.class_names)["dice_fg"]
    assert load(run).course.split == "test"  # these are not what metrics.csv was made of
    write_table(run.metrics, rows)

    kept = load(run)
    assert kept.course.split == "valid"
    assert list(kept.course.epochs) == [1, 2, 3]
    assert list(kept.course.epochs[1].values) == ["dice_fg"]

    run.validation_counts(2).unlink()
    assert load(run).course.split == "test"
