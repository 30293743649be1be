"""Photos of every kind that people bring to the program that predicts: taken, or named and refused.

The network says "dent" where a photo is bright, so every map is known.
"""

import numpy as np
import pytest
from PIL import Image

from cardamage.runs.tables import read_table
from tests.helpers.bright_network import half_bright, save

ARGS = ("runs/bright", "--images", "photos", "--out", "out")


def lay_out(folder):
    """One photo of each kind, the right half bright; its size as it is seen, by file name."""
    values = half_bright(48, 64)
    grey = Image.fromarray(values)
    rgb = grey.convert("RGB")
    clear = rgb.convert("RGBA")  # the dark half black, the bright half black too but transparent
    clear.paste((0, 0, 0, 0), (32, 0, 64, 48))
    turned = Image.Exif()
    turned[0x0112] = 6
    grey.save(folder / "grey.png")
    grey.convert("LA").save(folder / "grey with alpha.png")
    grey.convert("1").save(folder / "one bit.png")
    grey.convert("1").save(folder / "one bit.tif")
    Image.fromarray(values.astype(np.uint16) * 257).save(folder / "sixteen bit.png")
    Image.fromarray(values.astype(np.uint16) * 257).save(folder / "sixteen bit.tiff")
    rgb.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    rgb.quantize(4).save(folder / "palette.png")
    Image.fromarray(values // 255).save(folder / "transparent palette.gif", transparency=1)
    clear.save(folder / "transparent.png")
    clear.save(folder / "transparent.webp", lossless=True)
    # As stored the bright half is below; as seen, turned a quarter to the right, it is left.
    stored = Image.fromarray(half_bright(48, 64).T).convert("RGB")
    stored.save(folder / "held upright.jpg", exif=turned, quality=95)
    black = Image.new("RGB", rgb.size)
    moving = {"save_all": True, "append_images": [black]}
    rgb.save(folder / "moving.gif", **moving)
    rgb.save(folder / "moving png.png", **moving)
    rgb.save(folder / "moving.webp", lossless=True, **moving)
    rgb.save(folder / "pages.tif", **moving)
    rgb.save(folder / "phone with preview.jpg", format="MPO", quality=95, **moving)
    sizes = dict.fromkeys((path.name for path in folder.iterdir()), (64, 48))
    Image.new("RGB", (1, 1), "white").save(folder / "dot.png")
    Image.new("RGB", (1, 700), "white").save(folder / "thread.png")
    Image.new("RGB", (1200, 2), "white").save(folder / "wire.bmp")
    return sizes | {"dot.png": (1, 1), "thread.png": (1, 700), "wire.bmp": (1200, 2)}


def test_every_kind_of_photo_is_predicted_on(bright, capfd):
    photos = bright.folder / "photos"
    sizes = lay_out(photos)
    (photos / "notes.txt").touch()
    (photos / "more").mkdir()
    result = bright.inside("jobs/predict.py", *ARGS, "--batch-size", 7)
    assert result.returncode == 0, result.stderr

    table = {row["image"]: row for row in read_table(bright.folder / "out" / "predictions.csv")}
    assert {name: (row["width"], row["height"]) for name, row in table.items()} == sizes
    whole = {"dot.png", "thread.png", "wire.bmp"}
    for name, row in table.items():
        expected = 1.0 if name in whole else 0.5
        assert row["share[dent]"] == pytest.approx(expected, abs=0.06), name
    with Image.open(bright.folder / "out" / "held upright.png") as found:
        ids = np.asarray(found)
    assert ids[:, :24].all()
    assert not ids[:, 40:].any()

    said = result.stderr + capfd.readouterr().err
    for name in ("moving.gif", "moving png.png", "moving.webp", "pages.tif"):
        assert f"{name}: the first of its 2 frames is taken" in said
    assert "phone with preview.jpg: the first" not in said
    assert "what is not looked at: more/, notes.txt" in said


def test_a_mask_follows_the_photo_that_a_phone_turned(bright):
    """Drawn on the photo as it is seen, or on the file as it is stored: the same truth."""
    turned = Image.Exif()
    turned[0x0112] = 6
    stored = Image.fromarray(half_bright(48, 64).T)  # 48 wide, 64 high, the lower half bright
    seen = stored.transpose(Image.Transpose.ROTATE_270)
    for name, mask in (("as seen", seen), ("as stored", stored)):
        stored.convert("RGB").save(bright.folder / "photos" / f"{name}.png", exif=turned)
        mask.save(bright.folder / "masks" / f"task-{name}-annotation-1-by-1-tag-dent-0.png")
    bright.succeeds("jobs/predict.py", *ARGS, "--masks", "masks")
    for row in read_table(bright.folder / "out" / "predictions.csv"):
        assert row["drawn[dent]"] == 0.5
        assert row["dice"] > 0.9


def test_masks_of_two_classes_that_meet_are_counted(bright):
    save(bright.folder / "photos" / "a.png", np.full((32, 32), 255))
    for annotation, tag, columns in ((1, "scratch", slice(0, 20)), (2, "dent", slice(12, 32))):
        stroke = np.zeros((32, 32), np.uint8)
        stroke[:, columns] = 255
        name = f"task-a-annotation-{annotation}-by-1-tag-{tag}-0.png"
        Image.fromarray(stroke).save(bright.folder / "masks" / name)
    bright.succeeds("jobs/predict.py", *ARGS, "--masks", "masks")
    (row,) = read_table(bright.folder / "out" / "predictions.csv")
    assert row["overlapped_pixels"] == 8 * 32
    assert row["drawn[scratch]"] == 12 / 32  # the later annotation counts
    assert row["drawn[dent]"] == 20 / 32


def cut_short(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-3000])


BROKEN = {
    "cut.jpg": cut_short,
    "cut.png": cut_short,
    "cut.webp": cut_short,
    "cut.tif": cut_short,
    "empty.png": lambda path: path.touch(),
    "words.jpg": lambda path: path.write_text("<html>not found</html>"),
    "bomb.png": lambda path: path.write_bytes(b"P4 30000 30000\n" + bytes(99)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_photo_that_cannot_be_read_is_named(bright, refused, name):
    save(bright.folder / "photos" / "good.png", np.zeros((8, 8)))
    BROKEN[name](bright.folder / "photos" / name)
    line = refused(*ARGS)
    assert name in line
    assert "remove it" in line


def test_all_that_cannot_be_read_are_named_at_once(bright):
    for name in ("words.jpg", "empty.png"):
        BROKEN[name](bright.folder / "photos" / name)
    result = bright.inside("jobs/predict.py", *ARGS)
    assert result.returncode == 2
    assert "2 images cannot be used, first: photos/empty.png cannot be decoded" in result.stderr
    assert not (bright.folder / "out").exists()


def test_a_photo_of_a_kind_that_is_not_read_is_named(bright, refused):
    save(bright.folder / "photos" / "good.png", np.zeros((8, 8)))
    (bright.folder / "photos" / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    line = refused(*ARGS)
    assert "'IMG_0001.HEIC'; save them as JPEG or PNG" in line


def test_a_folder_of_folders_is_refused(bright, refused):
    (bright.folder / "photos" / "train").mkdir()
    save(bright.folder / "photos" / "train" / "a.png", np.zeros((8, 8)))
    line = refused(*ARGS)
    assert "photos holds no images; name the folder they lie in" in line
    assert "train/" in line
