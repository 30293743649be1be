"""Reading exports: what is kept, what is found wrong, and that garbage never escapes as a crash."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from cardamage.data.coco.categories import Category
from cardamage.data.coco.export import read_export, scan_export
from cardamage.data.coco.source import ImageSource
from cardamage.errors import DataError
from tests.helpers.spoilable_export import SQUARE, SpoilableExport, annotation


@pytest.fixture
def export(tmp_path: Path) -> SpoilableExport:
    return SpoilableExport(tmp_path / "an export")


def kinds(source: Path) -> dict[str, int]:
    """How often each kind of finding occurs, apart from the root that every test has."""
    _, findings = scan_export(source)
    found: dict[str, int] = {}
    for finding in findings:
        assert len(finding.message.splitlines()) == 1
        found[finding.kind] = found.get(finding.kind, 0) + finding.count
    found.pop("unused root", None)
    return found


def refusal(source: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_export(source)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_a_good_export_is_read_whole(export):
    read = read_export(export.folder)
    assert list(read.splits) == ["train", "valid", "test"]
    assert read.categories[0] == Category(0, "car-damage", "none")
    assert [c.name for c in read.categories] == ["car-damage", "scratch", "dent"]
    assert read.used_categories() == {1, 2}
    first, second = read.splits["train"].images
    assert (first.file_name, first.width, first.height) == ("a photo.v1.jpg", 40, 30)
    assert second.annotations[0].category_id == 2
    (polygon,) = first.annotations[0].polygons
    assert polygon.dtype == np.float64
    assert polygon.tolist() == SQUARE
    assert kinds(export.folder) == {}


def test_images_come_by_name_and_annotations_in_the_order_of_the_file(export):
    train = export.json["train"]
    train["images"].reverse()
    train["annotations"] = [annotation(1, id=7), annotation(0, id=9), annotation(0, id=3)]
    export.write()
    first, second = read_export(export.folder).splits["train"].images
    assert first.file_name < second.file_name
    assert [a.id for a in first.annotations] == [9, 3]


def test_lists_may_come_in_any_order_and_with_a_byte_order_mark(export):
    train = export.json["train"]
    turned = {key: train[key] for key in ("annotations", "categories", "info", "images")}
    export.write(text=b"\xef\xbb\xbf" + json.dumps(turned, indent=3).encode())
    assert len(read_export(export.folder).splits["train"].images[0].annotations) == 1


@pytest.mark.parametrize("around", ["", "Car Damages.v5/"])
def test_a_zip_reads_as_its_folder(export, tmp_path, around):
    archive = export.zipped(tmp_path / "cars.zip", around)
    folder, zipped = read_export(export.folder), read_export(archive)
    for split in folder.splits:
        assert [i.file_name for i in folder.splits[split].images] == [
            i.file_name for i in zipped.splits[split].images
        ]
    from_zip, from_folder = ImageSource(archive), ImageSource(export.folder)
    assert from_zip.read("train", "b.jpg") == from_folder.read("train", "b.jpg")
    assert from_zip.names("valid") == from_folder.names("valid") == {"a photo.v1.jpg", "b.jpg"}
    assert from_zip.size("test", "b.jpg") == len(from_folder.read("test", "b.jpg"))
    elsewhere = pickle.loads(pickle.dumps(from_zip))
    assert elsewhere.read("train", "b.jpg") == from_zip.read("train", "b.jpg")
    from_zip.close()
    elsewhere.close()


def test_names_with_unicode_and_folders(export, tmp_path):
    name = "sub folder/über 車.jpg"
    (export.folder / "train" / "sub folder").mkdir()
    (export.folder / "train" / "b.jpg").rename(export.folder / "train" / name)
    export.json["train"]["images"][1]["file_name"] = f"./{name}"
    export.write()
    for source in (export.folder, export.zipped(tmp_path / "a.zip")):
        assert read_export(source).splits["train"].images[1].file_name == name
        assert ImageSource(source).read("train", name)


@pytest.mark.parametrize("counts", [[600, 600], "hb0hb0"])
def test_rle_plain_and_compressed(export, counts):
    """Both are: the left half off, the right half on."""
    rle = {"size": [30, 40], "counts": counts}
    export.json["train"]["annotations"] = [annotation(0, rle), annotation(1)]
    export.write()
    kept = read_export(export.folder).splits["train"].images[0].annotations[0]
    assert kept.polygons == ()
    mask = coco_mask.decode(kept.rle)
    assert not mask[:, :20].any()
    assert mask[:, 20:].all()


def test_compressed_rle_of_any_mask_survives(export):
    generator = np.random.default_rng(0)
    mask = np.asfortranarray((generator.random((30, 40)) < 0.5).astype(np.uint8))
    rle = coco_mask.encode(mask)
    segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    export.json["train"]["annotations"] = [annotation(0, segmentation), annotation(1)]
    export.write()
    kept = read_export(export.folder).splits["train"].images[0].annotations[0]
    assert (coco_mask.decode(kept.rle) == mask).all()


# --- the structure


def test_a_missing_folder(tmp_path):
    assert "nowhere does not exist; give a folder or a .zip" in refusal(tmp_path / "nowhere")


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "cars.zip").write_bytes(b"not a zip at all")
    assert "cannot be read as a .zip" in refusal(tmp_path / "cars.zip")


def test_a_missing_split(export):
    shutil.rmtree(export.folder / "valid")
    assert kinds(export.folder) == {"missing split": 1}
    assert "valid_share" in refusal(export.folder)
    shutil.rmtree(export.folder / "test")
    assert "cardamage split" in refusal(export.folder)


def test_a_split_without_json(export):
    (export.folder / "test" / "_annotations.coco.json").unlink()
    assert kinds(export.folder) == {"missing annotations": 1}
    assert "test: the folder has no annotation file" in refusal(export.folder)


def test_an_empty_split(export):
    export.json["valid"].update(images=[], annotations=[])
    export.write("valid")
    assert kinds(export.folder) == {"empty split": 1, "unlisted file": 2}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"images": []}',
        '{"images": {}, "annotations": [], "categories": []}',
        '{"images": [], "images": [], "annotations": [], "categories": []}',
        '{"images": [,], "annotations": [], "categories": []}',
        '{"images": [], "annotations": [], "categories": []} more',
        '{"images": [' + "[" * 100_000,
        '{"images": [' + "9" * 5000 + "]",
        b"\xff\xfe\x00",
        b'{"images": ["\xff"]}',
        b"\x00" * 100,
    ],
)
def test_text_that_is_not_a_coco_file(export, text):
    export.write(text=text)
    assert kinds(export.folder) == {"broken annotations": 1}
    assert "train: the annotation file cannot be used" in refusal(export.folder)


def test_items_longer_than_one_read(export):
    """The reader works in pieces of a million characters; items and numbers may straddle them."""
    corners = [float(n % 30) + 0.125 for n in range(300_000)]
    train = export.json["train"]
    train["annotations"] = [annotation(0, [corners]), annotation(1, [SQUARE])]
    export.write()
    image = read_export(export.folder).splits["train"].images[0]
    assert image.annotations[0].polygons[0].tolist() == corners


@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_a_damaged_zip_member(export, tmp_path, damage):
    archive = export.zipped(tmp_path / "cars.zip")
    content = bytearray(archive.read_bytes())
    start = content.index(b"_annotations.coco.json") + 60
    if damage == "garbled":
        content[start : start + 20] = b"\xff" * 20
    else:
        del content[start:]
    archive.write_bytes(content)
    assert "cannot be read" in refusal(archive)


# --- records


def spoil(part: str, number: int, **fields: object):
    def apply(split: dict) -> None:
        split[part][number].update(fields)

    return apply


@pytest.mark.parametrize(
    ("apply", "kind", "named"),
    [
        (spoil("annotations", 0, image_id=99), "missing image", "names image 99"),
        (spoil("annotations", 0, category_id=99), "unknown category", "names category 99"),
        (spoil("annotations", 0, image_id=[0]), "malformed record", "annotations[0]"),
        (spoil("annotations", 0, category_id=True), "malformed record", "is True"),
        (spoil("images", 1, id=0), "duplicate id", "image 0"),
        (spoil("categories", 2, id=1), "duplicate id", "category 1"),
        (spoil("categories", 2, name=" "), "malformed record", "categories[2]"),
        (spoil("categories", 2, name="two\nlines"), "malformed record", "text on one line"),
        (spoil("images", 1, file_name="a photo.v1.jpg"), "duplicate file name", "a photo.v1.jpg"),
        (spoil("images", 1, file_name="./a photo.v1.jpg"), "duplicate file name", "a photo"),
        (spoil("images", 1, file_name="gone.jpg"), "missing file", "gone.jpg"),
        (spoil("images", 1, width=0), "impossible size", "is 0x30"),
        (spoil("images", 1, height=-5), "impossible size", "is 40x-5"),
        (spoil("images", 1, height=10**9), "impossible size", "200 megapixels"),
        (spoil("images", 1, width="wide"), "malformed record", '"width" is'),
        (spoil("images", 1, width=40.5), "malformed record", '"width" is 40.5'),
        (spoil("images", 1, file_name=["b.jpg"]), "malformed record", '"file_name" is'),
    ],
)
def test_a_record_that_is_wrong(export, apply, kind, named):
    apply(export.json["train"])
    export.write()
    assert kinds(export.folder)[kind] == 1
    assert named in next(
        finding.message for finding in scan_export(export.folder)[1] if finding.kind == kind
    )
    assert str(export.folder) in refusal(export.folder)


@pytest.mark.parametrize(
    "name",
    ["../../x.jpg", "..", "a/../../x", "/etc/passwd", "C:\\x.jpg", "C:x.jpg", "a\\x.jpg", "", "."],
)
def test_a_file_name_that_leaves_its_folder(export, name):
    outside = export.folder.parent / "x.jpg"
    outside.write_bytes(b"a secret")
    export.json["train"]["images"][1]["file_name"] = name
    export.write()
    message = refusal(export.folder)
    assert "unsafe" in "".join(kinds(export.folder)) or '"file_name" is' in message
    with pytest.raises(DataError):
        ImageSource(export.folder).read("train", name)


@pytest.mark.parametrize("name", ["a\x00.jpg", "a\n.jpg", "\ud800.jpg"])
def test_a_file_name_that_is_no_text(export, name):
    export.json["train"]["images"][1]["file_name"] = name
    export.write()
    assert kinds(export.folder)["malformed record"] == 1


def test_categories_that_differ_between_splits(export):
    export.json["test"]["categories"][2]["name"] = "hail"
    export.write("test")
    assert kinds(export.folder) == {"other category ids": 1}
    read = read_export(export.folder)
    assert [(c.id, c.name) for c in read.categories] == [
        (0, "car-damage"),
        (1, "scratch"),
        (2, "dent"),
        (3, "hail"),
    ]
    used = {split: part.images[1].annotations[0].category_id for split, part in read.splits.items()}
    assert used == {"train": 2, "valid": 2, "test": 3}


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        ([[1, 2, 3, 4, 5, 6, 7]], "impossible coordinates"),
        ([[1, 2, float("nan"), 4, 5, 6]], "impossible coordinates"),
        ([[1, 2, 10**400, 4, 5, 6]], "impossible coordinates"),
        ([[1, 2, float("inf"), 4, 5, 6]], "impossible coordinates"),
        ([[1, 2, 10_000, 4, 5, 6]], "impossible coordinates"),
        ([[1, 2, "3", 4, 5, 6]], "malformed segmentation"),
        ([1, 2, "3", 4, 5, 6], "malformed segmentation"),
        ("mask", "malformed segmentation"),
        ({}, "malformed RLE"),
        ({"size": [40, 30], "counts": [1200]}, "malformed RLE"),
        ({"size": [30, 40], "counts": [1199]}, "malformed RLE"),
        ({"size": [30, 40], "counts": [1201, -1]}, "malformed RLE"),
        ({"size": [30, 40], "counts": "hb0hb"}, "malformed RLE"),
        ({"size": [30, 40], "counts": "hb0hb0hb0"}, "malformed RLE"),
        ({"size": [30, 40], "counts": "~~~"}, "malformed RLE"),
        ({"size": [30, 40], "counts": 7}, "malformed RLE"),
        ({"size": [1 << 40, 1 << 40], "counts": [1 << 80]}, "malformed RLE"),
    ],
)
def test_a_segmentation_that_cannot_be_painted(export, segmentation, kind):
    export.json["train"]["annotations"].append(annotation(0, segmentation, id=77))
    export.write()
    assert kinds(export.folder) == {kind: 1}
    assert "annotation 77" in refusal(export.folder)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"segmentation": [[-3, 2, 6, 2, 6, 6]]}, {"polygon partly outside": 1}),
        ({"segmentation": [[41, 2, 45, 2, 45, 6]]}, {"polygon outside": 1}),
        ({"segmentation": [[2, -9, 6, -9, 6, -1]]}, {"polygon outside": 1}),
        ({"segmentation": [SQUARE, [2, 31, 6, 31, 6, 35]]}, {"polygon outside": 1}),
        ({"segmentation": [[2, 2, 6, 6]]}, {"short polygon": 1}),
        ({"segmentation": []}, {"no segmentation": 1}),
        ({"segmentation": [[]]}, {"no segmentation": 1}),
        ({"iscrowd": 1}, {"crowd": 1}),
        ({"segmentation": [[0, 0, 40, 0, 40, 30, 0, 30]]}, {}),
    ],
)
def test_what_is_odd_but_can_be_packed(export, fields, expected):
    export.json["train"]["annotations"].append({**annotation(0), "id": 77, **fields})
    export.write()
    assert kinds(export.folder) == expected
    assert len(read_export(export.folder).splits["train"].images[0].annotations) == 2


def test_warnings_about_images_files_and_categories(export):
    train = export.json["train"]
    train["annotations"] = train["annotations"][:1]
    for split in ("train", "valid", "test"):
        export.json[split]["categories"].append({"id": 3, "name": "hail", "supercategory": "x"})
        export.write(split)
    (export.folder / "train" / "new.jpg").write_bytes(b"?")
    assert kinds(export.folder) == {
        "image without annotations": 1,
        "unlisted file": 1,
        "unused category": 1,
    }
    read_export(export.folder)


def test_every_fault_is_found_in_one_go_and_the_rest_is_kept(export):
    train = export.json["train"]
    train["images"].append({"id": 2, "file_name": "gone.jpg", "width": 40, "height": 30})
    train["annotations"] += [annotation(99), annotation(2), annotation(0, [[1, 2, 3]])]
    export.write()
    (export.folder / "valid" / "_annotations.coco.json").unlink()
    read, findings = scan_export(export.folder)
    errors = {f.kind: f for f in findings if f.severity == "error"}
    assert set(errors) == {
        "missing file",
        "missing image",
        "impossible coordinates",
        "missing annotations",
    }
    assert [f.severity for f in findings] == sorted(f.severity for f in findings)
    assert [i.file_name for i in read.splits["train"].images] == ["a photo.v1.jpg", "b.jpg"]
    assert "3 more kinds of error" in refusal(export.folder)


def test_a_count_and_the_first_examples_are_told(export):
    export.json["train"]["annotations"] = [annotation(100 + n) for n in range(1200)]
    export.write()
    _, findings = scan_export(export.folder)
    finding = next(f for f in findings if f.kind == "missing image")
    assert finding.count == 1200
    assert len(finding.examples) == 5
    assert "names image 100 (1,200 in all)" in finding.message


# --- garbage

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from(["a photo.v1.jpg", "b.jpg", "hb0hb0", "../x", "\ud800", ""])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner)
    ),
    max_leaves=8,
)
RECORD = st.dictionaries(
    st.sampled_from(
        ["id", "file_name", "width", "height", "name", "image_id", "category_id", "segmentation"]
    ),
    JSON | st.integers(0, 2),
)


@given(
    content=st.fixed_dictionaries(
        {
            key: st.lists(RECORD | JSON, max_size=4) | JSON
            for key in ("images", "annotations", "categories")
        }
    ),
    cut=st.none() | st.integers(0, 200),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_garbage_is_a_finding_and_never_a_crash(export, content, cut):
    text = json.dumps(content).encode("utf-8", "surrogatepass")
    export.write(text=text if cut is None else text[:cut])
    kinds(export.folder)
    refusal(export.folder)
