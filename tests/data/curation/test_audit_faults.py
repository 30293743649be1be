"""Faults planted into the files of a drawn export, and the audit that finds each and no other."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cardamage.data.curation.audit import audit
from cardamage.data.curation.synthetic import synthesize

ANNOTATIONS = "_annotations.coco.json"
BOX = [[2, 2, 9, 2, 9, 9, 2, 9]]


class Faulty:
    """A drawn export to spoil; what is planted in a split leaves its first image alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, split: str) -> dict[str, Any]:
        return json.loads((self.folder / split / ANNOTATIONS).read_text())

    def write(self, split: str, content: dict[str, Any]) -> None:
        (self.folder / split / ANNOTATIONS).write_text(json.dumps(content))

    def image(self, split: str, number: int) -> Path:
        return self.folder / split / self.read(split)["images"][number]["file_name"]

    def annotate(self, split: str, segmentation: Any = BOX, **fields: Any) -> None:
        """One more annotation, of image 1 and a category there is."""
        content = self.read(split)
        number = 1 + max(annotation["id"] for annotation in content["annotations"])
        annotation = {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0}
        content["annotations"].append({**annotation, "segmentation": segmentation, **fields})
        self.write(split, content)

    def change(self, split: str, number: int, **fields: Any) -> None:
        """Other values in the record of an image."""
        content = self.read(split)
        content["images"][number].update(fields)
        self.write(split, content)

    def rename(self, split: str, number: int, name: str) -> None:
        self.image(split, number).rename(self.folder / split / name)
        self.change(split, number, file_name=name)


# Each plants one fault and returns the split it is found in; None for the export as a whole.


def outside(export: Faulty) -> str:
    export.annotate("train", [[500, 500, 520, 500, 520, 520]])
    return "train"


def partly_outside(export: Faulty) -> str:
    export.annotate("train", [[40, 40, 90, 40, 90, 60, 40, 60]])
    return "train"


def two_points(export: Faulty) -> str:
    export.annotate("train", [[1, 1, 9, 9]])
    return "train"


def no_area(export: Faulty) -> str:
    export.annotate("train", [[3, 3, 20, 20, 10, 10]])
    return "train"


def rle_of_another_size(export: Faulty) -> str:
    export.annotate("train", {"size": [4, 4], "counts": [8, 8]})
    return "train"


def crowd(export: Faulty) -> str:
    export.annotate("valid", iscrowd=1)
    return "valid"


def no_segmentation(export: Faulty) -> str:
    export.annotate("valid", [])
    return "valid"


def not_numbers(export: Faulty) -> str:
    export.annotate("valid", [["a", 1, 2, 3, 4, 5]])
    return "valid"


def same_annotation(export: Faulty) -> str:
    export.annotate("train", [[30, 30, 40, 30, 40, 40]])
    export.annotate("train", [[30, 30, 40, 30, 40, 40]])
    return "train"


def same_annotation_id(export: Faulty) -> str:
    export.annotate("test", [[1, 50, 9, 50, 9, 60]], id=0)
    return "test"


def annotation_without_image(export: Faulty) -> str:
    export.annotate("valid", image_id=999)
    return "valid"


def unknown_category(export: Faulty) -> str:
    export.annotate("test", category_id=77)
    return "test"


def same_image_id(export: Faulty) -> str:
    content = export.read("test")
    content["images"].append({**content["images"][0], "file_name": "other.jpg"})
    export.write("test", content)
    Image.effect_noise((64, 64), 90).save(export.folder / "test" / "other.jpg")
    return "test"


def same_file_name(export: Faulty) -> str:
    content = export.read("train")
    content["images"].append({**content["images"][1], "id": 500})
    export.write("train", content)
    return "train"


def name_that_climbs(export: Faulty) -> str:
    content = export.read("train")
    content["images"].append({**content["images"][1], "id": 501, "file_name": "../../b.jpg"})
    export.write("train", content)
    return "train"


def file_missing(export: Faulty) -> str:
    export.image("train", 2).unlink()
    return "train"


def file_not_listed(export: Faulty) -> str:
    Image.effect_noise((64, 64), 80).save(export.folder / "train" / "stray.jpg")
    return "train"


def cut_short(export: Faulty) -> str:
    path = export.image("train", 3)
    path.write_bytes(path.read_bytes()[:400])
    return "train"


def other_size(export: Faulty) -> str:
    path = export.image("valid", 1)
    with Image.open(path) as image:
        smaller = image.resize((48, 64))
    smaller.save(path)
    return "valid"


def size_of_nothing(export: Faulty) -> str:
    export.change("train", 4, width=0)
    return "train"


def stored_turned(export: Faulty) -> str:
    path = export.image("train", 5)
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif, quality=90)
    return "train"


def tiny(export: Faulty) -> str:
    content = export.read("train")
    content["images"].append({"id": 502, "file_name": "dot.png", "width": 8, "height": 8})
    content["annotations"].append(
        {"id": 900, "image_id": 502, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5]]}
    )
    export.write("train", content)
    Image.effect_noise((8, 8), 70).save(export.folder / "train" / "dot.png")
    return "train"


def category_of_nothing(export: Faulty) -> None:
    for split in ("train", "valid", "test"):
        content = export.read(split)
        content["categories"].append({"id": 9, "name": "rust", "supercategory": "car-damage"})
        export.write(split, content)


def category_of_one_split(export: Faulty) -> None:
    content = export.read("train")
    content["categories"].append({"id": 9, "name": "rust", "supercategory": "car-damage"})
    export.write("train", content)
    export.annotate("train", [[20, 50, 30, 50, 30, 60]], category_id=9)


def category_without_examples(export: Faulty) -> str:
    content = export.read("valid")
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] != 3]
    export.write("valid", content)
    return "valid"


def promise_broken(export: Faulty) -> None:
    text = (
        "Cars - v1\n\nThe dataset includes 1,240 images.\nDamages are annotated in COCO format.\n"
    )
    (export.folder / "README.roboflow.txt").write_text(text)


def one_photo_in_two_splits(export: Faulty) -> None:
    export.rename("train", 6, "street_jpg.rf.0123456789abcdef.jpg")
    export.rename("valid", 0, "street_jpg.rf.fedcba9876543210.jpg")


def one_file_in_two_splits(export: Faulty) -> None:
    shutil.copy(export.image("train", 7), export.image("test", 1))


def one_file_twice(export: Faulty) -> str:
    shutil.copy(export.image("train", 8), export.image("train", 9))
    return "train"


def one_photo_saved_anew(export: Faulty) -> None:
    with Image.open(export.image("train", 10)) as image:
        image.save(export.image("valid", 2), quality=70)


def empty_split(export: Faulty) -> str:
    export.write("test", {**export.read("test"), "images": [], "annotations": []})
    for path in (export.folder / "test").glob("*.jpg"):
        path.unlink()
    return "test"


def missing_split(export: Faulty) -> None:
    shutil.rmtree(export.folder / "valid")


def broken_json(export: Faulty) -> str:
    path = export.folder / "test" / ANNOTATIONS
    path.write_text(path.read_text()[:-40])
    return "test"


FAULTS = {
    outside: "polygon outside",
    partly_outside: "polygon partly outside",
    two_points: "short polygon",
    no_area: "no area",
    rle_of_another_size: "malformed RLE",
    crowd: "crowd",
    no_segmentation: "no segmentation",
    not_numbers: "malformed segmentation",
    same_annotation: "duplicate annotation",
    same_annotation_id: "duplicate annotation id",
    annotation_without_image: "missing image",
    unknown_category: "unknown category",
    same_image_id: "duplicate id",
    same_file_name: "duplicate file name",
    name_that_climbs: "unsafe file name",
    file_missing: "missing file",
    file_not_listed: "unlisted file",
    cut_short: "broken image",
    other_size: "size mismatch",
    size_of_nothing: "impossible size",
    stored_turned: "EXIF orientation",
    tiny: "tiny image",
    category_of_nothing: "unused category",
    promise_broken: "other number of images",
    one_photo_in_two_splits: "same stem in splits",
    one_file_in_two_splits: "same content in splits",
    one_file_twice: "same content in a split",
    one_photo_saved_anew: "same look in splits",
    category_without_examples: "category without examples",
    missing_split: "missing split",
    broken_json: "broken annotations",
}
FIFTEEN = (
    partly_outside,
    two_points,
    no_area,
    crowd,
    annotation_without_image,
    unknown_category,
    same_file_name,
    file_missing,
    file_not_listed,
    cut_short,
    other_size,
    stored_turned,
    promise_broken,
    one_photo_in_two_splits,
    one_file_in_two_splits,
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "cars"
    synthesize(folder, images=24, size=64, seed=0)
    return folder


@pytest.fixture
def export(drawn, tmp_path) -> Faulty:
    return Faulty(Path(shutil.copytree(drawn, tmp_path / "faulty cars")))


def found(export: Faulty) -> set[tuple[str, str | None]]:
    """Kind and split of what is wrong; notes are not."""
    result = audit(export.folder, workers=1)
    for finding in result.findings:
        assert finding.message.count("\n") == 0
        assert finding.count >= 1
        assert finding.examples or finding.kind in ("missing split", "empty split")
    return {(f.kind, f.split) for f in result.findings if f.severity != "note"}


def test_the_export_is_clean_before(export):
    assert found(export) == set()


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_one_fault_is_found_and_no_other(export, plant):
    split = plant(export)
    assert found(export) == {(FAULTS[plant], split)}


def test_fifteen_faults_are_found_and_no_other(export, program):
    planted = {(FAULTS[plant], plant(export)) for plant in FIFTEEN}
    assert len({kind for kind, _ in planted}) == 15
    assert found(export) == planted
    result = program.inside("jobs/audit.py", export.folder, "--json")
    printed = json.loads(result.stdout)["findings"]
    assert {(f["kind"], f["split"]) for f in printed if f["severity"] != "note"} == planted
    assert result.returncode == 2


def test_an_empty_split(export):
    """It lacks examples of every category, too."""
    split = empty_split(export)
    expected = {("empty split", split), ("category without examples", split)}
    assert found(export) == expected


def test_a_category_that_one_split_lists(export):
    category_of_one_split(export)
    expected = {("category not listed", "valid"), ("category not listed", "test")}
    assert found(export) == expected


def test_a_promise_that_is_kept(export):
    (export.folder / "README.dataset.txt").write_text("It includes 24 images.")
    assert found(export) == set()


def test_usual_things_are_notes(export):
    export.rename("train", 6, "street_jpg.rf.0123456789abcdef.jpg")
    export.rename("train", 7, "street_jpg.rf.fedcba9876543210.jpg")
    notes = {(f.kind, f.split): f for f in audit(export.folder, workers=1).findings}
    assert {kind for kind, _ in notes} == {
        "unused root",
        "overlap",
        "RLE mask",
        "image without annotations",
        "same stem in a split",
    }
    assert "'street_jpg.rf.0123" in notes["same stem in a split", "train"].message
