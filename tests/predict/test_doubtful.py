"""Labels that a network contradicts come first, and why."""

import json

import numpy as np
import pytest

from cardamage.data.shards.pack import pack
from cardamage.evaluation.disagreements import find_disagreements
from cardamage.predict.doubtful import doubts
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import read_table
from tests.helpers.bright_network import EXPERIMENT, half_bright, save
from tests.helpers.markers import write_stage
from tests.helpers.small_export import write_export


def test_doubt_is_the_greatest_share_times_confidence_of_each_kind():
    mask, predicted = np.zeros((2, 10, 10), np.uint8)
    sure = np.zeros((10, 10), np.float32)
    assert doubts(find_disagreements(0, mask, predicted, sure), 100) == (0, 0)
    predicted[:2, :5], sure[:2, :5] = 1, 0.6
    predicted[9, :3], sure[9, :3] = 1, 1.0
    mask[5:7, 8:], sure[5:7, 8:] = 1, 0.25
    expected = pytest.approx((0.1 * 0.6, 0.04 * 0.75))
    assert doubts(find_disagreements(0, mask, predicted, sure), 100) == expected


def test_an_erased_label_and_an_invented_one_come_before_a_right_one(bright):
    export = write_export(bright.folder / "nowhere")
    boxes = {"right": [20, 0, 40, 32], "invented": [0, 0, 20, 32], "erased": None}
    images, annotations = [], []
    for number, (name, box) in enumerate(boxes.items()):
        save(export / "valid" / f"{name}.png", half_bright(32, 40) // 255 * (255 - 5 * number))
        images.append({"id": number, "file_name": f"{name}.png", "width": 40, "height": 32})
        if box:
            left, top, right, bottom = box
            outline = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {"id": number, "image_id": number, "category_id": 2, "segmentation": [outline]}
            )
    index = export / "valid" / "_annotations.coco.json"
    categories = json.loads(index.read_text())["categories"]
    content = {"images": images, "annotations": annotations, "categories": categories}
    index.write_text(json.dumps(content))
    shards = pack(
        export,
        classes={"dent": ("dent",), "scratch": ("scratch",)},
        image_size=EXPERIMENT.data.image_size,
        shards_dir=bright.folder / "shards",
    )
    packed = StageRecord("pack", "done", output={"shards": str(shards)})
    write_stage(RunPaths(bright.folder / "runs/bright"), packed)

    out = bright.folder / "out"
    bright.succeeds("jobs/doubtful.py", "bright", "--out", "out")
    rows = {row["image"]: row for row in read_table(out / "doubtful.csv")}
    assert list(rows)[2:] == ["right.png"]
    assert rows["erased.png"]["unlabelled"] > 0.3
    assert rows["invented.png"]["unfound"] > 0.3 > rows["erased.png"]["unfound"]
    page = (out / "index.html").read_text()
    assert all((out / str(row["sheet"])).is_file() for row in rows.values())
    assert all(str(row["sheet"]) in page for row in rows.values())

    file = bright.folder / "runs/bright/checkpoints/epoch-0001.safetensors"
    assert "name its run" in bright.refuses("jobs/doubtful.py", file, "--out", "out")
