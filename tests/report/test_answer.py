"""The answer of a run's report: what follows from the counts, said no surer than they are."""

import dataclasses

import numpy as np
import pytest

from cardamage.evaluation.intervals import estimates, resample
from cardamage.evaluation.metrics import HEADLINES, scores
from cardamage.report.answer import quality, run_answer
from cardamage.report.load import Course
from cardamage.report.selection import (
    alike_epochs,
    best_constant,
    most_influential,
    other_choices,
    promised_too_much,
)


def with_counts(results, counts):
    """The same run whose chosen checkpoint was tested with other counts."""
    counts = np.asarray(counts, dtype=np.int64)
    keys = np.array([f"{i:08d}" for i in range(len(counts))])
    loss = np.full(len(counts), 0.5)
    result = dataclasses.replace(results.result, counts=counts, keys=keys, loss=loss, damages=None)
    sampled = resample(result)
    return dataclasses.replace(
        results,
        result=result,
        shards=None,
        sampled=sampled.only(HEADLINES),
        intervals=results.intervals | {results.best: estimates(sampled)},
    )


def image(hit, missed, false, clean=1000):
    """Counts of one image of the classes background, scratch and dent; all damage is scratch."""
    return [[clean, false, 0], [missed, hit, 0], [0, 0, 0]]


def test_pixels_found_and_falsely_marked_are_told_in_tenths(results):
    counts = [image(700, 300, 175), image(0, 0, 0), image(0, 0, 5)]

    said = " ".join(quality(with_counts(results, counts)))

    assert "finds about 7 of 10 damaged pixels" in said
    assert "about 2 of 10 pixels it marks are false" in said  # 180 of 880
    assert "names the right class for all pixels it finds" in said
    assert "Of 2 photos without damage it leaves 1 unmarked" in said


def test_a_model_that_marks_nothing_is_told_so(results):
    said = " ".join(quality(with_counts(results, [image(0, 50, 0)])))

    assert "finds none of the damaged pixels." in said
    assert "false" not in said


def test_a_constant_answer_is_the_best_of_all_constant_answers(results):
    counts = with_counts(results, [image(0, 400, 0, clean=600), image(0, 0, 0)])

    # dice_fg of calling every pixel scratch: 2 * 400 / (2 * 400 + 600 + 1000)
    assert best_constant(counts, "dice_fg") == ("scratch", pytest.approx(800 / 2400))
    # dice per image: background alone is right about the second photo, and wrong about the first;
    # scratch has 800 / 1400 in the first, and 0 in the second
    assert best_constant(counts, "dice") == ("background", pytest.approx(0.5))


def test_a_model_no_better_than_a_constant_is_not_usable_and_told_what_to_try(results):
    answer = run_answer(with_counts(results, [image(1, 400, 300)] * 12))

    assert not answer.is_usable
    assert answer.headline.startswith("Not usable yet")
    (steps,) = [text for question, text in answer.points if question == "What to try"]
    assert "cardamage preview" in steps
    assert "optim.lr" in steps


def test_the_photo_that_weighs_most_is_the_one_without_which_the_score_changes_most(results):
    counts = [image(90, 10, 10)] * 5 + [image(0, 5000, 0)]
    found = most_influential(with_counts(results, counts), "dice_fg")

    assert found.image == 5
    assert found.without == pytest.approx(0.9)


def test_one_image_has_no_score_without_it(results):
    assert most_influential(with_counts(results, [image(90, 10, 10)]), "dice_fg") is None


def course_of(results, by_epoch):
    epochs = {}
    for epoch, counts in by_epoch.items():
        result = dataclasses.replace(
            results.result,
            counts=np.asarray(counts, dtype=np.int64),
            loss=np.zeros(len(counts)),
        )
        epochs[epoch] = resample(result).only(["dice_fg"])
    return dataclasses.replace(results, course=Course("valid", epochs))


def test_epochs_that_differ_by_chance_are_told_from_those_that_do_not(results):
    generator = np.random.default_rng(0)
    hits = generator.integers(200, 600, 40)
    best = [image(h, 1000 - h, 100) for h in hits]
    noise = generator.integers(-40, 41, 40)
    near = [image(h + n, 1000 - h - n, 100) for h, n in zip(hits, noise, strict=True)]
    far = [image(h - 150, 1150 - h, 100) for h in hits]
    others = [e for e in results.epochs if e != results.best]

    found = course_of(results, {results.best: best, others[0]: near, others[1]: far})

    assert alike_epochs(found) == [others[0]]


def at_epochs(results, **columns):
    changed = {name: np.array(values) for name, values in columns.items()}
    tested = {k.removeprefix("test_"): v for k, v in changed.items() if k.startswith("test_")}
    metrics = {k: v for k, v in changed.items() if k.startswith("val_")}
    best = int(np.argmax(metrics["val_dice_fg"])) + 1 if "val_dice_fg" in metrics else results.best
    return dataclasses.replace(
        results, metrics=results.metrics | metrics, tested=results.tested | tested, best=best
    )


def test_what_other_rules_and_the_test_split_would_have_picked(results):
    found = at_epochs(
        results,
        val_dice_fg=[0.1, 0.2, 0.6, 0.5, 0.4, 0.3],
        val_dice=[0.1, 0.2, 0.6, 0.5, 0.4, 0.3],
        val_miou=[0.1, 0.2, 0.3, 0.5, 0.4, 0.3],
        val_mdice=[0.1, 0.2, 0.3, 0.5, 0.4, 0.3],
        val_loss=[0.9, 0.2, 0.3, 0.5, 0.6, 0.7],
        test_dice_fg=[0.1, 0.2, 0.50, 0.53, 0.57, 0.45],
    )

    by_epoch = {c.epoch: (c.rules, round(c.gain, 6)) for c in other_choices(found)}

    assert by_epoch == {
        2: (("loss",), -0.3),
        3: (("dice",), 0.0),
        4: (("miou", "mdice"), 0.03),
        6: (("last epoch",), -0.05),
    }
    assert promised_too_much(found) == (5, pytest.approx(0.07))


def test_the_answer_has_the_command_and_the_scores_it_rests_on(results):
    answer = run_answer(results)
    said = " ".join(text for _, text in answer.points)
    found = scores(results.result.counts, results.result.loss, results.result.class_names)

    assert answer.headline.endswith(f"epoch {results.best}")
    assert answer.command.startswith(f"cardamage predict {results.run.root} ")
    assert f"{found['dice_fg']:.3f}" in said
    assert "the same test photos" in said  # counts on the validation split are not kept
