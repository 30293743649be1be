"""What the gallery holds: every image and map that fits, and words for what does not."""

import base64
import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from cardamage.config import loading
from cardamage.evaluation.metrics import scores_per_image
from cardamage.evaluation.results import read_result
from cardamage.report import gallery
from cardamage.report.load import load_run
from cardamage.report.page import publish
from cardamage.report.run import run_report
from tests.helpers.finished_runs import make_run, scene


def load(run):
    return load_run(run, loading.load(run.config))


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of 3 epochs whose 8 test images are all kept."""
    return load(make_run(tmp_path_factory.mktemp("kept") / "doors", epochs=3, images=8, overlays=8))


def decoded(text):
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_every_image_has_its_truth_and_every_epochs_map(kept):
    found = gallery.gallery_of_run(kept)
    data = json.loads(found.data)

    assert (found.shown, found.images, found.whole, found.sides) == (8, 8, 8, 3)
    assert data["sides"] == ["epoch 1", "epoch 2", "epoch 3"]
    assert data["chosen"] == kept.best - 1
    for image in data["images"]:
        number = int(image["key"])
        _, mask = scene(number, 32, 3)
        assert np.array_equal(np.asarray(decoded(image["truth"])), mask)
        assert decoded(image["photo"]).size == (32, 32)
        assert image["classes"] == [i for i in np.unique(mask).tolist() if i]
        for side, epoch in enumerate(kept.tested_epochs):
            tested = read_result(kept.run.test_counts("test", epoch))
            assert base64.b64decode(image["maps"][side]) == tested.maps[number]
            dice = scores_per_image(tested.counts, tested.loss)["dice"][number]
            assert image["dice"][side] == pytest.approx(dice, abs=1e-4)


def test_the_worst_and_those_that_change_most_come_first():
    dice = np.array([[0.9, 0.9], [0.5, 0.1], [0.8, 0.7], [0.0, 0.6]])
    assert gallery._by_interest(dice, 1, [0, 1, 2, 3]) == [1, 3, 2, 0]
    assert gallery._by_interest(dice, 1, [0, 2]) == [2, 0]
    assert gallery._by_interest(dice, 1, []) == []


def test_what_does_not_fit_is_left_out_and_said(kept, monkeypatch):
    whole = json.loads(gallery.gallery_of_run(kept).data)
    sizes = [len(base64.b64decode(i["photo"] + "==")) for i in whole["images"]]
    monkeypatch.setattr(gallery, "PHOTO_BYTES", sum(sizes) // 2)
    monkeypatch.setattr(gallery, "MAP_BYTES", 0)
    found = gallery.gallery_of_run(kept)
    data = json.loads(found.data)

    assert 0 < found.shown < 8
    assert found.whole == 0
    for image in data["images"]:
        assert [bool(png) for png in image["maps"]] == [s == data["chosen"] for s in range(3)]
    page = run_report(kept).page
    assert f"{found.shown} of the 8 images of the test split: the worst" in page


def test_without_the_photos_there_is_no_gallery(kept):
    assert gallery.gallery_of_run(dataclasses.replace(kept, shards=None)) is None
    assert "data-gallery hidden" not in run_report(dataclasses.replace(kept, shards=None)).page


def test_runs_are_set_against_each_other(kept, tmp_path):
    other = load(make_run(tmp_path / "other", epochs=2, images=8, overlays=8, level=0.3))
    moved = dataclasses.replace(other, shards=kept.shards, manifest=kept.manifest)
    found = gallery.gallery_of_runs([moved, kept], ["other", "<b>kept"], 1)
    data = json.loads(found.data)

    assert (data["sides"], data["chosen"]) == (["other", "<b>kept"], 1)
    assert "<" not in found.data
    assert all(None not in image["maps"] for image in data["images"])


def test_tables_lie_beside_the_page(kept, tmp_path):
    folder = publish(run_report(kept), tmp_path / "report").parent
    images, damages, confusion = (
        list(csv.DictReader((folder / f"{name}.csv").read_text().splitlines()))
        for name in ("images", "damages", "confusion")
    )
    result = kept.result

    assert [row["key"] for row in images] == result.keys.tolist()
    assert images[2]["file_name"] == "door 2.jpg.rf.0a1b.jpg"
    assert [float(row["dice"]) for row in images] == scores_per_image(result.counts, result.loss)[
        "dice"
    ].tolist()
    assert [int(row["found"]) for row in images] == result.damages.counts[:, 0, :, 1].sum(
        axis=1
    ).tolist()
    assert {row["class"] for row in damages} == {"any damage", "scratch", "dent"}
    assert sum(int(row["pixels"]) for row in confusion) == result.counts.sum()
    for column, key in (("share_of_truth", "truth"), ("share_of_predicted", "predicted")):
        for name in result.class_names:
            shares = [float(row[column]) for row in confusion if row[key] == name]
            assert sum(shares) == pytest.approx(1)
