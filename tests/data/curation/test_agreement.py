"""How far the labels of photos that were labelled more than once agree."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.data.curation.agreement import agreement
from cardamage.data.curation.audit import audit
from cardamage.data.curation.synthetic import synthesize


def mask(*rows: str) -> np.ndarray:
    return np.array([[int(value) for value in row] for row in rows], dtype=np.uint8)


def test_of_hand_made_masks():
    one = [mask("1100", "0000"), mask("1000", "0000")]  # Dice 2/3
    two = [mask("2200", "0000"), mask("2200", "0000"), mask("0022", "0000")]  # one pair of three
    found = agreement([one, two], ["scratch", "dent", "lamp"])
    assert found is not None
    assert found.photos == 2
    # Pairs of the second photo: 2 of 4 shared, 0 of 4, 0 of 4; on average 2/3 of 4 pixels.
    assert found.dice == pytest.approx(2 * (1 + 2 / 3) / (3 + 4))
    assert found.classes == pytest.approx({"scratch": 2 / 3, "dent": 1 / 3})
    assert found.low <= found.dice <= found.high
    assert (found.low, found.high) == pytest.approx((1 / 3, 2 / 3))  # each photo alone


def test_two_classes_on_the_same_pixels_agree_on_the_damage_only():
    found = agreement([[mask("11"), mask("22")]], ["scratch", "dent"])
    assert found is not None
    assert (found.dice, found.classes) == (1.0, {"scratch": 0.0, "dent": 0.0})


@pytest.mark.parametrize("photos", [[], [[mask("00"), mask("00")]]])
def test_without_labels_there_is_none(photos):
    assert agreement(photos, ["scratch"]) is None


def test_audit_measures_it_on_copies_of_another_name(tmp_path):
    folder = tmp_path / "cars"
    synthesize(folder, images=30, size=96, seed=1)
    train = folder / "train"
    path = train / "_annotations.coco.json"
    content = json.loads(path.read_text())
    kept = [a for a in content["annotations"] if a["segmentation"]]
    image = next(i for i in content["images"] if i["id"] == kept[0]["image_id"])
    assert audit(folder).agreement is None

    def copy(name: str, shift: float) -> None:
        shutil.copy(train / image["file_name"], train / name)
        number = len(content["images"])
        content["images"].append({**image, "id": number, "file_name": name})
        square = [10 + shift, 10, 30 + shift, 10, 30 + shift, 30, 10 + shift, 30]
        content["annotations"].append(
            {**kept[0], "id": 9000 + number, "image_id": number, "segmentation": [square]}
        )

    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != image["id"]]
    copy("second.jpg", 0)
    copy("third.jpg", 0)  # the same label: no second opinion
    path.write_text(json.dumps(content))
    # Of the first, nothing is labelled: it disagrees with the others wholly.
    found = audit(folder).agreement
    assert found is not None
    assert (found.photos, found.dice) == (1, 0.0)
    copy("fourth.jpg", 10)
    path.write_text(json.dumps(content))
    found = audit(folder).agreement
    assert found is not None
    # Three labellings, of which one pair shares half: 20 x 20 pixels each of 96 x 96.
    assert found.dice == pytest.approx(2 * 0.5 / (1 + 1 + 2), abs=0.01)
    assert json.loads(json.dumps(audit(folder).to_json()))["label_agreement"]["photos"] == 1


def test_copies_of_one_stem_were_labelled_once(tmp_path):
    folder = tmp_path / "cars"
    synthesize(folder, images=30, size=96, seed=1)
    path = folder / "train" / "_annotations.coco.json"
    content = json.loads(path.read_text())
    image = content["images"][0]
    stem = Path(image["file_name"]).stem
    with Image.open(folder / "train" / image["file_name"]) as photo:
        photo.save(folder / "train" / f"{stem}.rf.abc.jpg", quality=80)
        photo.save(folder / "train" / f"{stem}.rf.def.jpg", quality=70)
    for number, name in enumerate(("abc", "def"), start=500):
        content["images"].append({**image, "id": number, "file_name": f"{stem}.rf.{name}.jpg"})
    path.write_text(json.dumps(content))
    (folder / "train" / image["file_name"]).unlink()
    content["images"] = content["images"][1:]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != image["id"]]
    path.write_text(json.dumps(content))
    assert audit(folder).agreement is None
