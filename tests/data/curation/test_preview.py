"""Previews: the files they make, and masks drawn where they are."""

import shutil

import numpy as np
import pytest
from PIL import Image

from cardamage.data.coco.records import Annotation, ImageRecord
from cardamage.data.curation.preview import choose, preview
from cardamage.errors import ConfigError, DataError
from cardamage.labels import colour
from tests.helpers.spoilable_export import SpoilableExport


@pytest.fixture
def export(tmp_path) -> SpoilableExport:
    return SpoilableExport(tmp_path / "an export")


def test_sheets_and_single_pictures(export, tmp_path):
    out = tmp_path / "out"
    assert preview(export.folder, out, splits=["train", "test"], images=5) == 4
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg")) == [
        "sheet-test-001.jpg",
        "sheet-train-001.jpg",
        "test/0000-a_photo.v1.jpg",
        "test/0001-b.jpg",
        "train/0000-a_photo.v1.jpg",
        "train/0001-b.jpg",
    ]


def test_the_mask_lies_where_it_is_annotated(export, tmp_path):
    """40 pixels are drawn 12 times larger, 8 from the left, under 62 + 8 + 26 of headings."""
    preview(export.folder, tmp_path / "out", splits=["train"], images=1)
    with Image.open(tmp_path / "out" / "train" / "0000-a_photo.v1.jpg") as picture:
        drawn = np.asarray(picture, dtype=int)
    photo, masked = drawn[96:456, 8:488], drawn[96:456, 496:976]
    assert photo.shape == masked.shape
    changed = np.abs(photo - masked).max(axis=2) > 40
    rows, columns = np.nonzero(changed)
    assert (rows.min() // 12, rows.max() // 12) == (2, 5)
    assert (columns.min() // 12, columns.max() // 12) == (2, 5)
    # Half the photo's grey, half the colour of the one scratch.
    expected = (photo[36, 36] + np.array(colour(1))) / 2
    assert np.abs(masked[48, 48] - expected).max() < 40


def test_names_and_chance_and_damage_choose():
    """Four images: nothing drawn, then 1, 9 and 4 of 100 pixels, that of 9 left as background."""

    def record(number, side, category):
        box = np.array([0, 0, side, 0, side, side, 0, side], float)
        annotations = (Annotation(number, category, (box,), None, iscrowd=False),) if side else ()
        return ImageRecord(number, f"{number}.jpg", 10, 10, annotations)

    records = [record(0, 0, 1), record(1, 1, 1), record(2, 3, 2), record(3, 2, 1)]

    def chosen(images, choice, seed=0):
        found = choose(records, images, choice, {1: 1, 2: 0}, seed)
        return [record.id for record in found]

    assert chosen(2, "spread") == [0, 2]
    assert chosen(9, "spread") == [0, 1, 2, 3]
    assert chosen(2, "damaged") == [3, 1]
    assert chosen(9, "damaged") == [3, 1, 0, 2]
    assert chosen(2, "random", 5) == chosen(2, "random", 5) == sorted(chosen(2, "random", 5))
    assert len({tuple(chosen(2, "random", seed)) for seed in range(20)}) > 3
    assert [choose([], 3, c, {}, 0) for c in ("spread", "random", "damaged")] == [[], [], []]


def test_a_zip_is_previewed_as_its_folder_is(export, tmp_path):
    shutil.make_archive(str(tmp_path / "cars"), "zip", export.folder)
    for source, out in ((export.folder, "a"), (tmp_path / "cars.zip", "b")):
        preview(source, tmp_path / out, splits=["valid"], images=5)
    names = sorted(path.name for path in (tmp_path / "a" / "valid").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b" / "valid").iterdir())
    pictures = [(tmp_path / folder / "valid" / names[0]).read_bytes() for folder in "ab"]
    assert pictures[0] == pictures[1]


def test_many_classes_with_long_names_make_no_sheet_wider(export, tmp_path):
    """The names go on in further rows, and are cut where a row is too short for one."""
    for content in export.json.values():
        content["categories"] += [
            {"id": number, "name": f"{number} " + "very long name " * 9, "supercategory": "none"}
            for number in range(100, 160)
        ]
    export.write()
    preview(export.folder, tmp_path / "out", splits=["train"], images=5)
    with Image.open(tmp_path / "out" / "sheet-train-001.jpg") as sheet:
        assert sheet.width < 900
        assert sheet.height > 60 * 28


def test_large_photos_are_made_smaller(export, tmp_path):
    for content in export.json.values():
        content["images"][0] |= {"width": 2400, "height": 30}
    export.write()
    for split in export.json:
        path = export.folder / split / export.json[split]["images"][0]["file_name"]
        Image.new("RGB", (2400, 30)).save(path)
    preview(export.folder, tmp_path / "out", splits=["train"], images=1)
    with Image.open(next((tmp_path / "out" / "train").iterdir())) as picture:
        assert picture.width == 8 + 2 * (960 + 8)


def test_a_limit_spreads_over_the_split(export, tmp_path):
    preview(export.folder, tmp_path / "out", splits=["train"], images=1)
    assert len(list((tmp_path / "out" / "train").iterdir())) == 1


def test_nothing_is_left_when_an_image_is_broken(export, tmp_path):
    (export.folder / "train" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.jpg cannot be decoded"):
        preview(export.folder, tmp_path / "out", splits=["train"], images=5)
    assert [path.name for path in tmp_path.iterdir()] == ["an export"]


def test_a_full_folder_is_refused(export, tmp_path):
    with pytest.raises(ConfigError, match="is not an empty folder"):
        preview(export.folder, export.folder, splits=["train"], images=5)


def test_a_category_is_looked_for_and_classes_are_drawn_as_packed(export, tmp_path):
    def drawn(out: str, **options) -> list[str]:
        preview(export.folder, tmp_path / out, splits=["train"], images=5, **options)
        return sorted(path.name for path in (tmp_path / out / "train").iterdir())

    assert drawn("dents", category="dent") == ["0000-b.jpg"]
    grouped = {"classes": {"damage": ["scratch"]}, "drop": ["dent"]}
    assert drawn("grouped", category="damage", **grouped) == ["0000-a_photo.v1.jpg"]
    with pytest.raises(DataError, match=r'no category "dint" \(did you mean "dent"\?\)'):
        drawn("none", category="dint")
    with Image.open(tmp_path / "grouped" / "train" / "0000-a_photo.v1.jpg") as picture:
        pixels = np.asarray(picture, dtype=int)
    photo, masked = pixels[96 + 48, 8 + 48], pixels[96 + 48, 496 + 48]
    assert np.abs(masked - (photo + np.array(colour(1))) / 2).max() < 40


def test_boxes_are_drawn_where_they_are_painted(export, tmp_path):
    for one in export.json["train"]["annotations"]:
        one.update(segmentation=[], bbox=[2, 2, 4, 4])
    export.write()
    pictures = []
    for boxes in ("refuse", "paint"):
        preview(export.folder, tmp_path / boxes, splits=["train"], images=1, boxes=boxes)
        (path,) = (tmp_path / boxes / "train").iterdir()
        with Image.open(path) as picture:
            pixels = np.asarray(picture, dtype=int)
        pictures.append(np.abs(pixels[96:456, 8:488] - pixels[96:456, 496:976]).max())
    assert pictures[0] < 20 < 40 < pictures[1]
