"""What labelling tools read of the files for them are the very pixels of the maps."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageDraw

from cardamage.labels import colour
from cardamage.predict.instances import PhotoInstances, find_instances
from cardamage.predict.label_tools import brush_rle, write_cvat, write_label_studio
from cardamage.predict.outputs import palette_png

NAMES = ("background", "dent", "broken lamp")
GENERATOR = np.random.default_rng(0)
MAPS = {
    "random": GENERATOR.integers(0, 3, (37, 53), dtype=np.uint8),
    "nothing": np.zeros((20, 30), np.uint8),
    "all": np.full((200, 300), 2, np.uint8),  # a run of more than 65536 bytes
    "rows": np.repeat(np.array([0, 1, 1, 2, 0], np.uint8)[:, None], 11, axis=1),
    "a hole": np.pad(np.zeros((9, 5), np.uint8), 4, constant_values=1),
}


def photo(name):
    ids = MAPS[name]
    regions = find_instances(ids, np.full_like(ids, 128))
    return PhotoInstances(f"{name}.jpg", ids.shape[1], ids.shape[0], regions)


def tasks(folder, form):
    write_label_studio(
        folder,
        [photo(name) for name in MAPS],
        NAMES,
        form=form,
        image_url="/data/local-files/?d=photos/",
        version="epoch 3 of cars",
    )
    return json.loads((folder / "predictions.label-studio.json").read_text())


def test_runs_are_packed_as_worked_out_by_hand():
    # Two pixels, the second painted: 4 bytes of 0, 4 of 255, behind 53 bits of header.
    bits = f"{8:032b}" + f"{7:05b}" + "0010" + "0011" + "0111" + "1111"
    bits += "1" + "00" + "011" + "00000000" + "1" + "00" + "011" + "11111111"
    bits += "0" * (-len(bits) % 8)
    expected = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert brush_rle(np.array([1]), np.array([2]), 2) == expected


def test_label_studio_tasks_say_what_was_found_where(tmp_path):
    found = tasks(tmp_path, "label-studio")
    assert [task["data"]["image"] for task in found] == [
        f"/data/local-files/?d=photos/{name}.jpg" for name in MAPS
    ]
    (nothing,) = found[1]["predictions"]
    assert nothing["result"] == []
    (whole,) = found[2]["predictions"]
    (result,) = whole["result"]
    assert result["value"]["brushlabels"] == ["broken lamp"]
    assert (result["original_width"], result["original_height"]) == (300, 200)
    assert whole["score"] == pytest.approx(128 / 255, abs=1e-4)
    ids = [result["id"] for task in found for result in task["predictions"][0]["result"]]
    assert len({*ids}) == len(ids)
    config = (tmp_path / "predictions.label-studio.xml").read_text()
    assert '<BrushLabels name="label" toName="image">' in config
    assert f'<Label value="dent" background="#{bytes(colour(1)).hex()}"/>' in config


def test_label_studios_own_decoder_gives_the_maps_back(tmp_path):
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    for task, expected in zip(tasks(tmp_path, "label-studio"), MAPS.values(), strict=True):
        drawn = np.zeros(expected.size, np.uint8)
        for result in task["predictions"][0]["result"]:
            rgba = brush.decode_rle(result["value"]["rle"]).reshape(-1, 4)
            assert set(np.unique(rgba)) <= {0, 255}
            painted = rgba[:, 3] > 0
            assert not drawn[painted].any()
            drawn[painted] = NAMES.index(result["value"]["brushlabels"][0])
        np.testing.assert_array_equal(drawn.reshape(expected.shape), expected)


def test_polygons_are_in_percent_of_the_photo(tmp_path):
    found = tasks(tmp_path, "label-studio-polygons")
    (result,) = found[2]["predictions"][0]["result"]
    assert sorted(map(tuple, result["value"]["points"])) == [(0, 0), (0, 100), (100, 0), (100, 100)]
    assert result["type"] == "polygonlabels"
    two = found[3]["predictions"][0]["result"]
    corners = [(x * 11 / 100, y * 5 / 100) for x, y in two[0]["value"]["points"]]
    assert {(round(x), round(y)) for x, y in corners} == {(0, 1), (11, 1), (11, 3), (0, 3)}


def test_the_cvat_archive_holds_the_maps_and_their_colours(tmp_path):
    for name, ids in MAPS.items():
        (tmp_path / f"{name}.png").write_bytes(palette_png(ids))
    write_cvat(tmp_path, list(MAPS), NAMES)
    with zipfile.ZipFile(tmp_path / "predictions.cvat.zip") as archive:
        labels = archive.read("labelmap.txt").decode().splitlines()[1:]
        assert labels == [
            f"{name}:{','.join(map(str, colour(i)))}::" for i, name in enumerate(NAMES)
        ]
        assert archive.read("ImageSets/Segmentation/default.txt").decode().split("\n") == list(MAPS)
        with archive.open("SegmentationClass/random.png") as stream:
            pixels = np.asarray(Image.open(stream).convert("RGB"))
    expected = np.array([colour(i) for i in range(3)], np.uint8)[MAPS["random"]]
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.filterwarnings("ignore")
def test_datumaro_reads_the_cvat_archive_as_the_maps(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    for name, ids in MAPS.items():
        (tmp_path / f"{name}.png").write_bytes(palette_png(ids))
    write_cvat(tmp_path, list(MAPS), NAMES)
    with zipfile.ZipFile(tmp_path / "predictions.cvat.zip") as archive:
        archive.extractall(tmp_path / "archive")
    dataset = datumaro.Dataset.import_from(str(tmp_path / "archive"), "voc_segmentation")
    categories = dataset.categories()[datumaro.AnnotationType.label]
    seen = {}
    for item in dataset:
        drawn = np.zeros_like(MAPS[item.id])
        for annotation in item.annotations:
            drawn[annotation.image.astype(bool)] = NAMES.index(categories[annotation.label].name)
        seen[item.id] = drawn
    assert seen.keys() == MAPS.keys()
    for name, ids in MAPS.items():
        np.testing.assert_array_equal(seen[name], ids)


def test_the_command_writes_them_beside_the_maps(bright):
    image = Image.new("RGB", (60, 40))
    ImageDraw.Draw(image).rectangle((20, 10, 50, 30), fill="white")
    image.save(bright.folder / "photos" / "car.png")
    words = ("bright", "--images", "photos", "--out", "out", "--format", "label-studio")
    bright.succeeds("jobs/predict.py", *words, "--format", "cvat", "--image-url", "s3://cars/")
    (task,) = json.loads((bright.folder / "out" / "predictions.label-studio.json").read_text())
    assert task["data"]["image"] == "s3://cars/car.png"
    (region,) = task["predictions"][0]["result"]
    assert region["value"]["brushlabels"] == ["dent"]
    with zipfile.ZipFile(bright.folder / "out" / "predictions.cvat.zip") as archive:
        stored = archive.read("SegmentationClass/car.png")
    assert stored == (bright.folder / "out" / "car.png").read_bytes()
    refused = bright.refuses("jobs/predict.py", *words, "--format", "label-studio-polygons")
    assert "name one" in refused
