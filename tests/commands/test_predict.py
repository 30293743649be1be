"""The program that predicts on photos: maps, scores and checkpoints; mistakes are refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from cardamage.runs.paths import RunPaths
from cardamage.runs.tables import read_table
from cardamage.training.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from tests.helpers.bright_network import EXPERIMENT, half_bright, save


def predict(bright, *options):
    args = ("runs/bright", "--images", "photos", "--out", "out", *options)
    return bright.succeeds("jobs/predict.py", *args)


def test_maps_sheets_and_scores_of_photos_of_all_sizes(bright):
    photos, masks, out = (bright.folder / name for name in ("photos", "masks", "out"))
    save(photos / "1.png", np.full((40, 64), 255))
    save(photos / "10.JPG", np.zeros((64, 50)), quality=95)
    save(photos / "left right.png", half_bright(96, 128))
    save(photos / "left right.bmp", half_bright(32, 32))
    # Half of photo 1 was drawn, in two strokes of one class, by a category's name.
    for number, rows in enumerate((slice(0, 10), slice(10, 20))):
        stroke = np.zeros((40, 64), np.uint8)
        stroke[rows] = 200
        name = f"task-1-annotation-5-by-1-tag-ding-{number}.png"
        Image.fromarray(stroke).save(masks / name)
    Image.fromarray(np.zeros((64, 50), np.uint8)).save(masks / "10.png")
    Image.fromarray((half_bright(96, 128) > 0).astype(np.uint8)).save(masks / "left right.png.png")

    printed = predict(bright, "--masks", "masks", "--batch-size", 3)

    names = ("1", "10", "left right.bmp", "left right.png")
    expected = [f"{name}{ending}" for name in names for ending in (".overlay.jpg", ".png")]
    expected += ["predictions.csv", "predictions.json", "predictions.coco.json", "index.html"]
    assert sorted(path.name for path in out.iterdir()) == sorted(expected)
    with Image.open(out / "1.png") as found:
        assert (found.mode, found.size) == ("P", (64, 40))  # a palette: it opens in colour
        assert np.unique(np.asarray(found)).tolist() == [1]
    with Image.open(out / "left right.png.png") as found:
        halves = np.asarray(found)
    assert halves.shape == (96, 128)
    assert (halves[:, :32] == 0).all()  # away from the edge, which the network blurs
    assert (halves[:, 96:] == 1).all()

    table = {row["image"]: row for row in read_table(out / "predictions.csv")}
    assert list(table) == ["1.png", "10.JPG", "left right.bmp", "left right.png"]
    one = table["1.png"]
    assert (one["width"], one["height"]) == (64, 40)
    assert (one["share[background]"], one["share[dent]"], one["share[scratch]"]) == (0, 1, 0)
    assert one["dice"] == pytest.approx(2 / 3)
    assert one["iou"] == one["accuracy"] == one["precision[dent]"] == 0.5
    assert one["recall[dent]"] == 1.0
    assert math.isnan(one["recall[scratch]"])
    assert table["10.JPG"]["dice"] == 1.0  # nothing there, nothing found
    assert math.isnan(table["left right.bmp"]["dice"])  # no mask
    assert table["left right.png"]["dice"] > 0.9
    assert "over the 3 images with a mask" in printed
    assert "undefined" not in printed
    assert "nan" not in printed

    summary = json.loads((out / "predictions.json").read_text())
    assert (summary["epoch"], summary["flip"], summary["images_with_mask"]) == (1, False, 3)
    assert [row["image"] for row in summary["images"]] == list(table)
    assert summary["images"][0]["dice"] == one["dice"]
    assert summary["scores"]["recall[scratch]"] is None
    assert_coco_holds_the_maps(out, [path.name for path in sorted(photos.iterdir())])


def assert_coco_holds_the_maps(out, names):
    """pycocotools reads the file, and what it draws is what the PNGs hold."""
    coco = COCO(out / "predictions.coco.json")
    images = coco.loadImgs(coco.getImgIds())
    assert [image["file_name"] for image in images] == names
    for image in images:
        drawn = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            drawn[coco.annToMask(annotation) == 1] = annotation["category_id"]
        stem, name = Path(image["file_name"]).stem, image["file_name"]
        path = out / f"{name if (out / f'{name}.png').exists() else stem}.png"
        with Image.open(path) as found:
            np.testing.assert_array_equal(drawn, np.asarray(found))


def test_one_photo_and_all_damage_scored_as_one_class(bright):
    """The network calls the bright half a dent; people drew "damage", of no class of the run."""
    save(bright.folder / "photos" / "a.png", half_bright(96, 128))
    save(bright.folder / "photos" / "b.png", np.zeros((32, 32)))
    damage = Image.fromarray((half_bright(96, 128) > 0).astype(np.uint8) * 255)
    damage.save(bright.folder / "masks" / "task-a-annotation-1-by-1-tag-damage-0.png")
    Image.new("L", (32, 32)).save(bright.folder / "masks" / "b.png")
    words = ("runs/bright", "--images", "photos/a.png", "--masks", "masks", "--out", "out")
    assert "--binary" in bright.refuses("jobs/predict.py", *words)
    bright.succeeds("jobs/predict.py", *words, "--binary")
    out = bright.folder / "out"
    assert sorted(path.name for path in out.glob("*.png")) == ["a.png"]
    (row,) = read_table(out / "predictions.csv")
    assert row["dice[any damage]"] == row["dice"] > 0.9
    assert row["share[any damage]"] == row["share[dent]"]
    assert row["drawn[any damage]"] == 0.5
    page = (out / "index.html").read_text()
    assert 'src="a.overlay.jpg"' in page
    assert "default-src 'none'" in page
    assert "folder of the inputs" in bright.refuses(
        "jobs/predict.py", "runs/bright", "--images", "photos/a.png", "--out", "photos"
    )


def test_flipping_is_said_and_blurs_what_one_side_alone_shows(bright):
    save(bright.folder / "photos" / "a.png", half_bright(96, 128))
    predict(bright)
    with Image.open(bright.folder / "out" / "a.png") as found:
        plain = np.asarray(found)
    predict(bright, "--flip")
    with Image.open(bright.folder / "out" / "a.png") as found:
        flipped = np.asarray(found)
    # The network sees each pixel with its neighbours, the same to both sides.
    assert (flipped != plain).mean() < 0.05
    assert json.loads((bright.folder / "out" / "predictions.json").read_text())["flip"] is True


def test_of_several_runs_the_mean_of_the_probabilities_counts(bright):
    save(bright.folder / "photos" / "a.png", half_bright(96, 128))
    predict(bright)
    with Image.open(bright.folder / "out" / "a.png") as found:
        alone = np.asarray(found)
    right, wrong = (f"runs/bright/checkpoints/epoch-000{n}.safetensors" for n in (1, 2))
    words = (right, wrong, "runs/bright", "--images", "photos", "--out", "out")
    bright.succeeds("jobs/predict.py", *words)  # two say one thing, one the opposite
    with Image.open(bright.folder / "out" / "a.png") as found:
        assert (np.asarray(found) != alone).mean() < 0.02
    summary = json.loads((bright.folder / "out" / "predictions.json").read_text())
    assert summary["checkpoint"].count("epoch-0001") == 2


def test_models_of_other_classes_are_not_averaged(bright):
    save(bright.folder / "photos" / "a.png", half_bright(32, 32))
    first = load_checkpoint(RunPaths(bright.folder / "runs/bright").checkpoint(1))
    other = replace(first.info, class_names=("background", "hole", "scratch"))
    save_checkpoint(bright.folder / "other.safetensors", first.weights, other)
    words = ("runs/bright", "other.safetensors", "--images", "photos", "--out", "out")
    assert "class names differ" in bright.refuses("jobs/predict.py", *words)


def test_a_folder_that_is_not_complete_has_no_summary(bright):
    """An earlier run's summaries go before the first new map comes."""
    save(bright.folder / "photos" / "a.png", np.zeros((32, 32)))
    predict(bright)
    (bright.folder / "out" / "a.png").unlink()
    (bright.folder / "out" / "a.png").mkdir()  # so that the map cannot be written
    args = ("runs/bright", "--images", "photos", "--out", "out")
    assert "--out out cannot be written to (Is a directory)" in bright.refuses(
        "jobs/predict.py", *args
    )
    assert not list((bright.folder / "out").glob("predictions.*"))


def test_checkpoints_are_chosen_and_old_results_replaced(bright):
    save(bright.folder / "photos" / "dark.png", np.zeros((32, 32)))
    (bright.folder / "out").mkdir()
    (bright.folder / "out" / "notes.txt").touch()
    for checkpoint, dent in (("best", 0.0), ("last", 1.0)):
        predict(bright, "--checkpoint", checkpoint)
        (row,) = read_table(bright.folder / "out" / "predictions.csv")
        assert row["share[dent]"] == dent
        assert "dice" not in row
    assert (bright.folder / "out" / "notes.txt").exists()


def test_a_phone_photo_is_predicted_on_upright(bright):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter to the right
    save(bright.folder / "photos" / "phone.png", half_bright(60, 80), exif=exif)
    predict(bright)
    with Image.open(bright.folder / "out" / "phone.png") as found:
        assert found.size == (60, 80)
        assert (np.asarray(found)[:16] == 0).all()
        assert (np.asarray(found)[-16:] == 1).all()


def test_a_class_map_names_what_the_run_does_not(bright, refused):
    save(bright.folder / "photos" / "1.png", np.full((32, 32), 255))
    for number, tag in enumerate(("Severe Damages", "No Damage")):
        stroke = np.zeros((32, 32), np.uint8)
        stroke[16 * number : 16 * number + 16] = 255
        name = f"task-1-annotation-1-by-1-tag-{tag}-{number}.png"
        Image.fromarray(stroke).save(bright.folder / "masks" / name)
    args = ("runs/bright", "--images", "photos", "--masks", "masks", "--out", "out")
    assert '--class-map "No Damage=..."' in refused(*args)
    maps = ("--class-map", "Severe Damages=dent", "--class-map", "No Damage=background")
    bright.succeeds("jobs/predict.py", *args, *maps)
    (row,) = read_table(bright.folder / "out" / "predictions.csv")
    assert row["precision[dent]"] == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--checkpoint", "7"), "no checkpoint of epoch 7; choose one of 1-2"),
        (("--checkpoint", "bets"), "allowed: best, last, or an epoch"),
        (("--masks", "masks"), "fits no image"),
        (("--out", "photos"), "is the folder of the inputs"),
        (("--out", "masks/../photos"), "is the folder of the inputs"),
        (("--masks", "masks", "--out", "masks"), "is the folder of the inputs"),
        (("--out", "runs/bright/config.yaml"), "cannot be written to"),
        (("--class-map", "a=dent"), "--masks"),
        (("--masks", "masks", "--class-map", "dent"), "is no pair"),
        (("--masks", "masks", "--class-map", "a=rust"), "has background, dent, scratch"),
        (("--batch-size", 0), "at least one photo"),
        (("--simplify", -1), "a number of pixels, 0 or more"),
        (("--images", "elsewhere"), "there is no such folder"),
        (("--images", "runs"), "holds no images"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(bright, refused, options, message):
    save(bright.folder / "photos" / "a.png", np.zeros((32, 32)))
    (bright.folder / "masks" / "b.png").touch()
    assert message in refused("runs/bright", "--images", "photos", "--out", "out", *options)


def test_a_photo_cut_short_is_named_before_anything_is_written(bright, refused):
    photos = bright.folder / "photos"
    save(photos / "a.png", np.zeros((32, 32)))
    save(photos / "b.jpg", np.random.default_rng(0).integers(0, 256, (64, 64)))
    (photos / "b.jpg").write_bytes((photos / "b.jpg").read_bytes()[:-600])
    line = refused("runs/bright", "--images", "photos", "--out", "out")
    assert "b.jpg cannot be decoded" in line


def test_a_mask_of_another_size_is_named_before_anything_is_written(bright, refused):
    save(bright.folder / "photos" / "a.png", np.zeros((32, 40)))
    Image.fromarray(np.zeros((40, 32), np.uint8)).save(bright.folder / "masks" / "a.png")
    args = ("--images", "photos", "--masks", "masks", "--out", "out")
    assert "has 32x40 pixels and its image 40x32" in refused("runs/bright", *args)


def test_a_process_of_its_own_ends_with_2(bright):
    args = ("runs/bright", "--images", "photos", "--out", "out")
    result = bright("jobs/predict.py", *args)
    assert (result.returncode, result.stdout) == (2, "")
    assert "photos holds no images" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("folder", ["photos", "nowhere"])
def test_a_folder_that_is_no_run_is_refused(refused, folder):
    assert "there is no run" in refused(folder, "--images", "photos", "--out", "out")


def test_checkpoints_that_do_not_belong_are_refused(bright, refused):
    save(bright.folder / "photos" / "a.png", np.zeros((32, 32)))
    run = RunPaths(bright.folder / "runs" / "bright")
    args = ("runs/bright", "--images", "photos", "--out", "out")
    info = CheckpointInfo(1, {"name": "unet"}, ("background", "dent"), (32, 32), "another")
    save_checkpoint(run.checkpoint(1), {"weight": torch.zeros(1)}, info)
    assert "was trained with another config" in refused(*args)
    save_checkpoint(
        run.checkpoint(1),
        {"weight": torch.zeros(1)},
        replace(info, config_hash=EXPERIMENT.hash()),
    )
    assert "do not fit this model" in refused(*args)
    run.checkpoint(1).write_bytes(b"cut")
    assert "is damaged" in refused(*args)
