"""Labels that a network finds unlikely come first, with what is unlikely about them."""

import json

import numpy as np
import pytest
import torch

from cardamage.data.shards.pack import pack
from cardamage.predict.doubtful import label_quality, largest_region
from cardamage.runs.paths import RunPaths
from cardamage.runs.stages import StageRecord
from cardamage.runs.tables import read_table
from tests.helpers.bright_network import EXPERIMENT, half_bright, save
from tests.helpers.markers import write_stage
from tests.helpers.small_export import write_export


def test_quality_is_the_soft_minimum_of_the_likelihood_of_the_labels():
    probabilities = torch.zeros(2, 3, 2, 2)
    probabilities[:, 0] = 1
    probabilities[1, :, 0, 0] = torch.tensor([0.2, 0.8, 0.0])
    masks = torch.zeros(2, 2, 2, dtype=torch.uint8)
    weight = np.exp((1 - 0.2) / 0.1)
    expected = [1, (3 + 0.2 * weight) / (3 + weight)]
    assert label_quality(probabilities, masks).tolist() == pytest.approx(expected)
    masks[1, 0, 0] = 1  # the likelier class there
    weight = np.exp((1 - 0.8) / 0.1)
    expected = (3 + 0.8 * weight) / (3 + weight)
    assert label_quality(probabilities, masks)[1].item() == pytest.approx(expected)


def test_largest_region_joins_corners_and_leaves_out_the_others():
    region = np.zeros((10, 10), np.bool_)
    assert largest_region(region) == 0
    region[0, 0] = region[1, 1] = region[2, 2] = True
    region[8:, 8:] = True
    assert largest_region(region) == 0.04
    region[7, 7] = True
    assert largest_region(region) == 0.05


def test_an_erased_label_and_an_invented_one_come_before_a_right_one(bright):
    export = write_export(bright.folder / "nowhere")
    boxes = {"right": [20, 0, 40, 32], "invented": [0, 0, 40, 32], "erased": None}
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
    assert rows["erased.png"]["unlabelled"] > 0.3 > rows["invented.png"]["unlabelled"]
    assert rows["invented.png"]["unseen"] > 0.3 > rows["erased.png"]["unseen"]
    assert rows["right.png"]["quality"] > 0.4 > rows["erased.png"]["quality"]
    page = (out / "index.html").read_text()
    assert all((out / str(row["sheet"])).is_file() for row in rows.values())
    assert all(str(row["sheet"]) in page for row in rows.values())

    file = bright.folder / "runs/bright/checkpoints/epoch-0001.safetensors"
    assert "name its run" in bright.refuses("jobs/doubtful.py", file, "--out", "out")
