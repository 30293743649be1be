"""The layouts and spellings of the tools that people really use, each on a few drawn photos."""

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cardamage.data.coco.export import read_export, scan_export
from cardamage.data.coco.masks import paint
from cardamage.data.coco.source import ImageSource
from cardamage.data.curation.split import split
from cardamage.data.shards.manifest import read_manifest
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import DataError
from cardamage.runs.paths import ShardPaths
from tests.helpers.laid_out import Tree, coco, jpeg, laid, name_of, photos, true_mask, zipped

CLASSES = {"scratch": ("scratch",), "dent": ("dent",)}
PACKING = {"classes": CLASSES, "image_size": (24, 32), "workers": 1}
NUMBERS = {"train": range(1, 7), "valid": range(7, 10), "test": range(10, 12)}


def by_split(make: Callable[[str, Any], Tree]) -> Tree:
    return {k: v for name, numbers in NUMBERS.items() for k, v in make(name, numbers).items()}


def folders(names: str, annotations: str, images: str = "{}/", before: str = "") -> Tree:
    """A layout by patterns, with the words for train, valid and test."""
    word = dict(zip(NUMBERS, names.split(), strict=True))
    return by_split(
        lambda name, numbers: {
            annotations.format(word[name]): coco(numbers, before.format(word[name])),
            **photos(images.format(word[name]), numbers),
        }
    )


WITH_SPLITS = {
    "roboflow": folders("train valid test", "{}/_annotations.coco.json"),
    "val": folders("train val test", "{}/_annotations.coco.json"),
    "validation": folders("training validation testing", "{}/_annotations.coco.json"),
    "capitals": folders("Train Valid Test", "{}/_annotations.coco.json"),
    "coco 2017": folders("train val test", "annotations/instances_{}2017.json", "{}2017/"),
    "cvat project": folders("Train Validation Test", "annotations/instances_{}.json", "images/{}/"),
    "cvat, names with subset": folders(
        "train val test", "annotations/instances_{}.json", "images/{}/", "{}/"
    ),
    "datumaro": folders("train val test", "annotations/instances_{}.json", "images/{}/"),
    "supervision": folders("train valid test", "{}/annotations.json", "{}/images/"),
    "fiftyone by split": folders("train val test", "{}/labels.json", "{}/data/"),
    "one image folder": folders("train val test", "{}.json", "images/"),
    "one image folder, named": folders("train val test", "{}.json", "images/", "images/"),
    "coco 2017, other files": {
        **folders("train val test", "annotations/instances_{}2017.json", "{}2017/"),
        "annotations/captions_train2017.json": {"images": [], "annotations": []},
        "annotations/person_keypoints_train2017.json": {
            **coco([1]),
            "categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}],
        },
        "annotations/panoptic_train2017.json": {
            **coco([1]),
            "annotations": [{"segments_info": [], "image_id": 1}],
        },
        "package.json": {"name": "viewer", "images": []},
        "unlabeled2017/x.jpg": jpeg(50),
    },
}
ALL = [number for numbers in NUMBERS.values() for number in numbers]
WITHOUT_SPLITS = {
    "roboflow, one folder": {"_annotations.coco.json": coco(ALL), **photos("", ALL)},
    "train only": {"train/_annotations.coco.json": coco(ALL), **photos("train/", ALL)},
    "cvat task": {
        "annotations/instances_default.json": coco(ALL),
        **photos("images/default/", ALL),
    },
    "label studio": {"result.json": coco(ALL, "images/"), **photos("images/", ALL)},
    "label studio, flat": {"result.json": coco(ALL), **photos("", ALL)},
    "label studio, windows": {
        "result.json": coco(ALL, "images/", lambda name: name.replace("/", "\\")),
        **photos("images/", ALL),
    },
    "fiftyone": {"labels.json": coco(ALL), **photos("data/", ALL)},
    "labelme2coco": {
        "annotations.json": coco(ALL, "JPEGImages/"),
        **photos("JPEGImages/", ALL),
        "JPEGImages/car 01.json": {"shapes": [], "imagePath": "car 01.jpg"},
    },
    "a folder that speaks of a test": {
        "crash test/annotations.json": coco(ALL),
        **photos("crash test/images/", ALL),
    },
}


def found(source: Path, **options: Any) -> dict[str, list[int]]:
    """The photos of each split; their bytes and masks are compared on the way."""
    export, files = read_export(source, **options), ImageSource(source, options.get("annotations"))
    ids = {c.id: [*CLASSES].index(c.name) + 1 for c in export.categories}
    numbers: dict[str, list[int]] = {}
    for name, part in export.splits.items():
        for image in part.images:
            number = next(n for n in ALL if files.read(name, image.file_name) == jpeg(n))
            np.testing.assert_array_equal(paint(image, ids).mask, true_mask(number))
            numbers.setdefault(name, []).append(number)
    files.close()
    return {name: sorted(group) for name, group in numbers.items()}


def notes(source: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for finding in scan_export(source)[1]:
        counts[finding.kind] = counts.get(finding.kind, 0) + finding.count
    return counts


EXPECTED = {name: [*numbers] for name, numbers in NUMBERS.items()}
CARRIERS: dict[str, Callable[[Path, Tree], Path]] = {
    "folder": lambda place, tree: laid(place / "my cars", tree),
    "two folders around": lambda place, tree: laid(
        place, {f"a b/c/{k}": v for k, v in tree.items()}
    ),
    "zip": lambda place, tree: zipped(place / "a.zip", tree),
    "zip of windows": lambda place, tree: zipped(place / "a.zip", tree, separator="\\"),
    "zip of macOS": lambda place, tree: zipped(
        place / "a.zip", {**tree, "__MACOSX/train/._a.jpg": b"?", ".DS_Store": b"?"}, around="cars/"
    ),
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("layout", WITH_SPLITS)
def test_a_layout_with_splits_is_read_as_it_is(tmp_path, layout, carrier):
    source = CARRIERS[carrier](tmp_path, WITH_SPLITS[layout])
    assert found(source) == EXPECTED
    told = notes(source)
    others = {"layout", "unused folder"}  # what was taken is said, and nothing is amiss
    assert told.keys() <= others
    assert ("unused folder" in told) == ("unlabeled2017/x.jpg" in WITH_SPLITS[layout])


@pytest.mark.parametrize("layout", WITHOUT_SPLITS)
def test_a_layout_without_splits_can_be_split(tmp_path, layout):
    tree = WITHOUT_SPLITS[layout]
    source = laid(tmp_path / "my cars", tree)
    annotations = next(path for path in tree if path.endswith(".json"))
    with pytest.raises(DataError, match=f"found {annotations}.*cardamage split '.*my cars' OUT"):
        read_export(source)
    counts = split(source, tmp_path / "out", shares=(0.5, 0.3, 0.2), workers=1)
    assert sum(counts.images.values()) == len(ALL)
    assert sorted(n for group in found(tmp_path / "out").values() for n in group) == ALL
    assert found(zipped(tmp_path / "a.zip", tree), may_lack=("valid", "test")) == {"train": ALL}


def contents(shards: Path) -> dict[str, list[tuple[str, list[int]]]]:
    listed = {}
    for name in read_manifest(ShardPaths(shards)).splits:
        with ShardReader(shards, name) as reader:
            infos = [reader.info(number) for number in range(len(reader))]
        listed[name] = [(Path(i["file_name"]).name, i["pixels"]) for i in infos]
    return listed


def test_split_in_the_experiment_is_that_of_cardamage_split(tmp_path):
    source = laid(tmp_path / "cars", WITHOUT_SPLITS["label studio"])
    shares = (0.5, 0.3, 0.2)
    split(source, tmp_path / "copy", shares=shares, seed=3, workers=1)
    copied = pack(tmp_path / "copy", shards_dir=tmp_path, **PACKING)
    direct = pack(source, shards_dir=tmp_path, shares=shares, seed=3, **PACKING)
    assert contents(direct) == contents(copied)
    other = pack(source, shards_dir=tmp_path, shares=shares, seed=4, **PACKING)
    assert other != direct


def test_train_and_valid_only(tmp_path):
    tree = {k: v for k, v in WITH_SPLITS["val"].items() if not k.startswith("test")}
    source = laid(tmp_path / "cars", tree)
    assert notes(source) == {"no test split": 1}
    assert found(source) == {k: v for k, v in EXPECTED.items() if k != "test"}
    shards = pack(source, shards_dir=tmp_path, **PACKING)
    assert [len(part) for part in contents(shards).values()] == [6, 3]
    before = shards.stat().st_mtime_ns
    assert pack(source, shards_dir=tmp_path, **PACKING) == shards
    assert shards.stat().st_mtime_ns == before


def test_valid_is_taken_out_of_train_by_photo(tmp_path):
    """Two of train's photos are copies by name; test is as it was."""
    tree = {k: v for k, v in WITH_SPLITS["roboflow"].items() if not k.startswith("valid")}
    train = tree["train/_annotations.coco.json"] = coco(NUMBERS["train"])
    for image, copy in zip(train["images"][:2], "ab", strict=True):
        tree[f"train/x.rf.{copy}.jpg"] = tree.pop(f"train/{image['file_name']}")
        image["file_name"] = f"x.rf.{copy}.jpg"
    source = laid(tmp_path / "cars", tree)
    with pytest.raises(DataError, match="valid_share"):
        read_export(source)
    listed = contents(pack(source, shards_dir=tmp_path, valid_share=0.4, **PACKING))
    names = {name: {file for file, _ in part} for name, part in listed.items()}
    assert [*names] == ["train", "valid", "test"]
    assert names["test"] == {name_of(number) for number in NUMBERS["test"]}
    assert names["train"].isdisjoint(names["valid"])
    assert len(names["train"] | names["valid"]) == 6
    assert 2 <= len(names["valid"]) <= 3
    copies = {"x.rf.a.jpg", "x.rf.b.jpg"}
    assert copies <= names["train"] or copies <= names["valid"]
    full = laid(tmp_path / "full", WITH_SPLITS["val"])
    with pytest.raises(DataError, match=r"data\.valid_share: .*leave the key out"):
        pack(full, shards_dir=tmp_path, valid_share=0.4, **PACKING)


def test_folds_deal_train_and_valid_by_photo_and_leave_test(tmp_path):
    """Every photo is valid in one fold and trained on in the others."""
    tree = dict(WITH_SPLITS["roboflow"])
    train = tree["train/_annotations.coco.json"] = coco(NUMBERS["train"])
    for image, copy in zip(train["images"][:2], "ab", strict=True):
        tree[f"train/x.rf.{copy}.jpg"] = tree.pop(f"train/{image['file_name']}")
        image["file_name"] = f"x.rf.{copy}.jpg"
    source = laid(tmp_path / "cars", tree)
    valid: list[str] = []
    for fold in range(3):
        listed = contents(pack(source, shards_dir=tmp_path, folds=(3, fold), **PACKING))
        names = {name: [file for file, _ in part] for name, part in listed.items()}
        assert set(names["test"]) == {name_of(number) for number in NUMBERS["test"]}
        assert len(names["train"]) + len(names["valid"]) == 9
        assert set(names["train"]).isdisjoint(names["valid"])
        valid += names["valid"]
        copies = {"x.rf.a.jpg", "x.rf.b.jpg"}
        assert copies <= set(names["train"]) or copies <= set(names["valid"])
    assert len(valid) == len(set(valid)) == 9


def test_several_files_for_a_split_are_named_and_one_is_chosen(tmp_path):
    tree = WITH_SPLITS["roboflow"]
    tree = {k: v for k, v in tree.items() if not k.endswith(".json")}
    for name in ("train", "val"):
        numbers = NUMBERS["train" if name == "train" else "valid"]
        tree[f"{name}/COCO_{name}_annos.json"] = coco(numbers)
        tree[f"{name}/COCO_mul_{name}_annos.json"] = {**coco(numbers), "annotations": []}
        tree |= photos(f"{name}/", numbers)
    tree = {k: v for k, v in tree.items() if not k.startswith("valid/")}
    source = laid(tmp_path / "cars", tree)
    with pytest.raises(DataError) as caught:
        read_export(source)
    for expected in ("train/COCO_train_annos.json", "train/COCO_mul_train_annos.json"):
        assert expected in str(caught.value)
    assert "data.annotations: {train: train/COCO_" in str(caught.value)
    chosen = {
        name: f"{folder}/COCO_{folder}_annos.json"
        for name, folder in (("train", "train"), ("valid", "val"))
    }
    assert found(source, annotations=chosen) == {
        name: numbers for name, numbers in EXPECTED.items() if name != "test"
    }
    with pytest.raises(DataError, match=r"tain/COCO_train_annos.json.*did you mean \"train/COCO"):
        read_export(source, {"train": "tain/COCO_train_annos.json"})


@pytest.mark.parametrize("folder", ["holdout", "val", "extra/train"])
def test_an_annotated_folder_is_never_left_out(tmp_path, folder):
    tree = {**WITH_SPLITS["roboflow"], f"{folder}/_annotations.coco.json": coco([20])}
    source = laid(tmp_path / "cars", {**tree, f"{folder}/{name_of(20)}": jpeg(20)})
    for read in (read_export, lambda place: split(place, tmp_path / "out", shares=(0.6, 0.2, 0.2))):
        with pytest.raises(DataError, match=f"{folder}/_annotations.coco.json"):
            read(source)


@pytest.mark.parametrize(
    "tree",
    [
        {"a.jpg": b"?"},
        {"package.json": {"images": []}, "a.jpg": b"?"},
        {"a.json": {**coco([1]), "annotations": [{"segments_info": []}]}, "a b.jpg": b"?"},
        {"cars.zip": b"?"},
    ],
)
def test_what_is_no_coco_export(tmp_path, tree):
    with pytest.raises(DataError, match=r"holds no COCO annotation file.*export"):
        read_export(laid(tmp_path / "cars", tree))


@pytest.mark.parametrize(
    ("listed", "file", "step"),
    [
        ("images\\car.jpg", "images/car.jpg", "backslashes"),
        ("%C3%B6n%20kap%C4%9F.jpg", "ön kapğ.jpg", "percent-encoded"),
        ("100%.jpg", "100%25.jpg", "percent-encoded"),
        (unicodedata.normalize("NFD", "Tür.jpg"), "Tür.jpg", "Unicode form"),
        ("Tür.jpg", unicodedata.normalize("NFD", "Tür.jpg"), "Unicode form"),
        ("IMG_1.jpg", "IMG_1.JPG", "upper and lower case"),
        ("Images\\T%C3%BCr.JPG", unicodedata.normalize("NFD", "images/Tür.jpg"), None),
        ("Tür ağar.jpg", "Tür ağar.jpg".encode("cp857").decode("cp437"), "code page"),
        ("傷.jpg", "傷.jpg".encode("cp932").decode("cp437", "ignore"), "code page"),
        ("Tür.jpg", "Tür.jpg".encode().decode("cp1252"), "code page"),
        ("car.jpg", "images/car.jpg", "folder"),
        ("train/car.jpg", "car.jpg", "folder"),
        ("../images/car.jpg", "images/car.jpg", "folder"),
        ("C:\\Users\\me\\car.jpg", "car.jpg", "folder"),
        ("/data/upload/1/car.jpg", "car.jpg", "folder"),
        ("a/car.jpg", "b/a/car.jpg", "folder"),
    ],
)
def test_a_file_name_spelled_otherwise_is_found_and_told(tmp_path, listed, file, step):
    tree = {**WITH_SPLITS["roboflow"], f"train/{file}": jpeg(1)}
    content = coco(NUMBERS["train"])
    content["images"][0]["file_name"] = listed
    del tree[f"train/{name_of(1)}"]
    source = laid(tmp_path / "cars", {**tree, "train/_annotations.coco.json": content})
    assert found(source) == EXPECTED
    (told,) = (finding for finding in scan_export(source)[1] if finding.kind != "layout")
    assert told.kind.startswith("file name: ")
    assert step is None or told.kind == f"file name: {step}"
    assert told.count == 1
    split(source, tmp_path / "out", shares=(0.6, 0.2, 0.2), workers=1)
    assert sorted(n for group in found(tmp_path / "out").values() for n in group) == ALL


@pytest.mark.parametrize("listed", ["car.jpg", "x/gone.jpg", "../../secret.jpg", "Car 02.JPG"])
def test_a_file_name_that_fits_none_or_two_files_stays_missing(tmp_path, listed):
    """Nor does it get the file that another name has, or one from outside."""
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    tree = {**WITH_SPLITS["roboflow"], "train/a/car.jpg": jpeg(1), "train/b/car.jpg": jpeg(1)}
    content = coco(NUMBERS["train"])
    content["images"][0]["file_name"] = listed
    source = laid(tmp_path / "cars", {**tree, "train/_annotations.coco.json": content})
    kinds = {finding.kind: finding for finding in scan_export(source)[1]}
    missing = kinds.get("missing file") or kinds["unsafe file name"]
    assert missing.count == 1
    if listed == "car.jpg":
        assert "a/car.jpg" in missing.message
        assert "b/car.jpg" in missing.message


def test_categories_go_by_name(tmp_path):
    tree = dict(WITH_SPLITS["roboflow"])
    turned = {1: 2, 2: 1}
    valid = coco(NUMBERS["valid"])
    valid["categories"] = [{"id": turned[c["id"]], "name": c["name"]} for c in valid["categories"]]
    for annotation in valid["annotations"]:
        annotation["category_id"] = turned[annotation["category_id"]]
    test = coco(NUMBERS["test"])
    test["categories"] = [*test["categories"], test["categories"][0]]  # twice the same
    test["categories"][1] = {"id": 2, "name": " dent "}
    tree |= {"valid/_annotations.coco.json": valid, "test/_annotations.coco.json": test}
    source = laid(tmp_path / "cars", tree)
    assert found(source) == EXPECTED
    assert notes(source) == {"other category ids": 2, "category name": 1}
    split(source, tmp_path / "out", shares=(0.6, 0.2, 0.2), workers=1)
    assert sorted(n for group in found(tmp_path / "out").values() for n in group) == ALL


def test_links_are_read_in_folders(tmp_path):
    """As DVC, the caches of Hugging Face and scratch disks have it: photos and whole folders."""
    source = laid(tmp_path / "cars", WITH_SPLITS["coco 2017"])
    shutil.move(source / "val2017", tmp_path / "scratch")
    (source / "val2017").symlink_to(tmp_path / "scratch")
    for number, path in enumerate(sorted((source / "train2017").iterdir())):
        cached = path.rename(tmp_path / f"blob{number}")
        path.symlink_to(os.path.relpath(cached, path.parent))
    assert found(source) == EXPECTED
    (tmp_path / "blob0").unlink()
    assert notes(source)["missing file"] == 1
