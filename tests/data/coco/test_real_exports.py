"""What people's exports are really like: what is read, refused, or said to be lost.

Masks are compared, pixel for pixel, with those that pycocotools draws of the plain annotations.
"""

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from cardamage.data.coco.boxes import FEW
from cardamage.data.coco.export import read_export
from cardamage.data.curation.audit import audit
from cardamage.data.curation.split import split as resplit
from cardamage.data.shards.manifest import SplitRecord, read_manifest
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import DataError
from cardamage.runs.paths import ShardPaths
from tests.helpers.spoilable_export import SQUARE, SpoilableExport, annotation, jpeg

CLASSES = {"scratch": ["scratch"], "dent": ["dent"]}
HEIGHT, WIDTH = 30, 40
BOX = [2, 3, 10, 5]
Spoil = Callable[[SpoilableExport], None]


@pytest.fixture
def export(tmp_path: Path) -> SpoilableExport:
    return SpoilableExport(tmp_path / "an export")


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    logging.getLogger("cardamage").propagate = True  # a program's start_logging turns it off
    return caplog


def packed(export: SpoilableExport, **options: Any) -> Path:
    given = {"classes": CLASSES, "image_size": (HEIGHT, WIDTH), "image_format": "png", **options}
    return pack(export.folder, shards_dir=export.folder.parent / "shards", **given)


def train_of(folder: Path) -> SplitRecord:
    return read_manifest(ShardPaths(folder)).splits["train"]


def drawn(annotations: list[dict[str, Any]], image_id: object) -> np.ndarray:
    """What pycocotools makes of an image's annotations, later over earlier."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for one in annotations:
        if one["image_id"] == image_id and one["segmentation"]:
            rles = coco_mask.frPyObjects(one["segmentation"], HEIGHT, WIDTH)
            merged = coco_mask.merge(rles) if isinstance(rles, list) else rles
            mask[coco_mask.decode(merged) == 1] = one["category_id"]
    return mask


def every_record(export: SpoilableExport, part: str, **change: Callable[[Any], Any]) -> None:
    for split in export.json:
        for record in export.json[split][part]:
            record.update({key: how(record[key]) for key, how in change.items()})
        export.write(split)


# --- read as they are meant: each says what the annotations of the training images should be


def ids(of_image: Callable[[Any], Any], of_category: Callable[[Any], Any] = int) -> Spoil:
    def spoil(export: SpoilableExport) -> None:
        every_record(export, "images", id=of_image)
        every_record(export, "categories", id=of_category)
        every_record(export, "annotations", image_id=of_image, category_id=of_category, id=str)

    return spoil


def mixed_ids(export: SpoilableExport) -> None:
    every_record(export, "images", id=str)


def sides(**change: Callable[[Any], Any]) -> Spoil:
    return lambda export: every_record(export, "images", **change)


def no_sides(export: SpoilableExport) -> None:
    for split in export.json:
        for image in export.json[split]["images"]:
            del image["width"], image["height"]
        export.write(split)


def shape(change: Callable[[Any], Any]) -> Spoil:
    return lambda export: every_record(export, "annotations", segmentation=change)


def rle_of(polygons: Any) -> Any:
    (rle,) = coco_mask.frPyObjects(polygons, HEIGHT, WIDTH)
    return rle


def text_rle(polygons: Any) -> Any:
    rle = rle_of(polygons)
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def list_rle(polygons: Any, number: Callable[[Any], Any] = int) -> Any:
    flat = coco_mask.decode(rle_of(polygons)).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]]))
    return {"size": [number(HEIGHT), number(WIDTH)], "counts": [number(run) for run in runs]}


def twice(part: str) -> Spoil:
    def spoil(export: SpoilableExport) -> None:
        export.json["train"][part].append(dict(export.json["train"][part][1]))
        export.write()

    return spoil


def more(*segmentations: Any) -> Spoil:
    """Further annotations of the first training image; of a dent, over its scratch."""

    def spoil(export: SpoilableExport) -> None:
        made = [annotation(0, s, category_id=2, id=9, bbox=BOX) for s in segmentations]
        export.json["train"]["annotations"] += made
        export.write()

    return spoil


def null_extras(export: SpoilableExport) -> None:
    export.json["train"].update(info=None, licenses=None)
    export.json["train"]["annotations"][0].update(area=float("nan"), attributes=None)
    export.write()


def without_end(content: bytes) -> bytes:
    assert content.endswith(b"\xff\xd9")
    return content[:-2]


def file(change: Callable[[bytes], bytes], name: str = "b.jpg") -> Spoil:
    def spoil(export: SpoilableExport) -> None:
        path = export.folder / "train" / name
        path.write_bytes(change(path.read_bytes()))

    return spoil


READ: dict[str, Spoil] = {
    "text ids": ids(str),
    "names as ids": ids(lambda i: f"img-{i}", lambda i: f"category {i}"),
    "uuids": ids(lambda i: f"6f9619ff-8b86-d011-b42d-00c04fc964f{i}"),
    "float ids": ids(float, float),
    "text ids of images, numbers of annotations": mixed_ids,
    "no sizes": no_sides,
    "null sizes": sides(width=lambda _: None),
    "text sizes": sides(width=str, height=lambda side: f" {side}.0"),
    "float sizes": sides(width=float),
    "flat polygons": shape(lambda polygons: polygons[0]),
    "rle of text": shape(text_rle),
    "rle of numbers": shape(list_rle),
    "rle of whole floats": shape(lambda polygons: list_rle(polygons, float)),
    "rle in a list": shape(lambda polygons: [text_rle(polygons)]),
    "the same image twice": twice("images"),
    "the same category twice": twice("categories"),
    "a hole": more([[5, 5, 30, 5, 30, 25, 5, 25], [10, 10, 20, 10, 20, 20, 10, 20]]),
    "overlaps": more([SQUARE], [[4, 4, 20, 4, 20, 20]], [[3, 3, 9, 3, 9, 9]]),
    "degenerate": more(
        [[3, 3, 20, 20, 10, 10]], [[5, 5, 5, 5, 5, 5]], [[0, 0, 20, 20, 20, 0, 0, 20]]
    ),
    "outside": more([[50, 2, 60, 2, 60, 9]], [[2, -9, 6, -9, 6, -1]], [[99, 99, 120, 99, 99, 110]]),
    "just outside": more([[40.4, 2, 45, 2, 45, 6]], [[2, 30.4, 6, 30.4, 6, 31]]),
    "partly outside": more([[-5, -5, 10, -5, 10, 50]]),
    "two points": more([[5, 5, 30, 20]]),
    "nulls and NaN beside": null_extras,
    "a jpeg without its end marker": file(without_end),
    "bytes behind the end marker": file(lambda content: content + bytes(300)),
}


@pytest.mark.parametrize("name", READ)
def test_read_as_it_is_meant(export: SpoilableExport, name: str):
    spoil = READ[name]
    plain = SpoilableExport(export.folder.parent / "plain").json["train"]["annotations"]
    if spoil.__qualname__.startswith("more"):
        spoil(export)
        plain = json.loads(json.dumps(export.json["train"]["annotations"]))
        for one in plain:  # of 4 numbers pycocotools makes a box
            one["segmentation"] = [p for p in one["segmentation"] if len(p) >= 6]
    else:
        spoil(export)
    folder = packed(export)
    with ShardReader(folder, "train") as reader:
        for number in range(2):
            assert (reader.read(number).mask == drawn(plain, number)).all()
            name = ("a photo.v1.jpg", "b.jpg")[number]
            image = Image.open(io.BytesIO(jpeg(shade=20 * number)))
            assert reader.info(number)["file_name"] == name
            assert (reader.read(number).image == np.asarray(image)).all()
    assert audit(export.folder, workers=1).errors == []


# --- refused, with what to do


def normalised(export: SpoilableExport) -> None:
    every_record(export, "annotations", segmentation=lambda _: [[0.1, 0.1, 0.6, 0.1, 0.6, 0.7]])


def boxes(count: int, split: str = "train") -> Spoil:
    """``count`` annotations of the first image with a box and no outline."""

    def spoil(export: SpoilableExport) -> None:
        export.json[split]["annotations"] += [
            annotation(0, [], bbox=[2 + n, *BOX[1:]], id=10 + n) for n in range(count)
        ]
        export.write(split)

    return spoil


def nothing_but_boxes(export: SpoilableExport) -> None:
    for split in export.json:
        for one in export.json[split]["annotations"]:
            one.update(segmentation=[], bbox=BOX, keypoints=[3, 3, 2], num_keypoints=1)
        export.write(split)


def nothing_in_test(export: SpoilableExport) -> None:
    export.json["test"]["annotations"] = []
    export.write("test")


def gone(export: SpoilableExport) -> None:
    (export.folder / "train" / "b.jpg").unlink()


REFUSED: dict[str, tuple[Spoil, list[str]]] = {
    "normalised coordinates": (normalised, ["from 0 to 1", "2 of 2", "multiply"]),
    "boxes": (boxes(2), ["2 of 8 annotations", "on 1 of 6 images", "boxes: paint", "drop_image"]),
    "nothing but boxes": (nothing_but_boxes, ["none of the 6 annotations", "COCO Segmentation"]),
    "a split without anything": (nothing_in_test, ["test", "2 images", "cardamage split"]),
    "a split of lines": (shape(lambda _: [[5, 5, 30, 20]]), ["train", "all 2 annotations are"]),
    "swapped sides": (
        sides(width=lambda _: HEIGHT, height=lambda _: WIDTH),
        ["40x30", "30x40", "swap width and height"],
    ),
    "a size that is none": (sides(width=lambda _: "wide"), ['"width"', "'wide'"]),
    "two images of one id": (
        lambda export: every_record(export, "images", id=lambda _: "one"),
        ["'one'"],
    ),
    "rle of the sides swapped": (
        shape(lambda polygons: {**text_rle(polygons), "size": [WIDTH, HEIGHT]}),
        ["30x40"],
    ),
    "rle too long": (more({"size": [HEIGHT, WIDTH], "counts": [1200, 1]}), ["do not fill"]),
    "NaN": (more([[1, 2, float("nan"), 4, 5, 6]]), ["not finite", "give finite pixels"]),
    "an odd number": (more([[1, 2, 3, 4, 5, 6, 7]]), ["7 numbers"]),
    "a jpeg cut short": (file(lambda content: content[:-60]), ["b.jpg", "data.skip_broken: true"]),
    "a missing image": (gone, ["b.jpg", "data.skip_broken: true"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_one_line_with_a_remedy(export: SpoilableExport, name: str):
    spoil, parts = REFUSED[name]
    spoil(export)
    with pytest.raises(DataError) as caught:
        packed(export)
    (line,) = str(caught.value).splitlines()
    for part in parts:
        assert part in line
    assert not list((export.folder.parent / "shards").glob("*/manifest.json"))
    assert audit(export.folder, workers=1).errors


@pytest.mark.parametrize("name", ["NaN", "rle too long", "a jpeg cut short", "a missing image"])
def test_what_is_broken_is_left_out_and_listed(export: SpoilableExport, name: str, said):
    REFUSED[name][0](export)
    record = train_of(packed(export, skip_broken=True))
    (left_out,) = record.left_out
    assert left_out == ("b.jpg" if "jpeg" in name or "image" in name else "a photo.v1.jpg")
    assert record.samples == 1
    assert "1 image left out" in said.text
    assert audit(export.folder, skip_broken=True, workers=1).errors == []


# --- lost, and said


def hiding(export: SpoilableExport) -> None:
    """A dent over all of the scratch of the first image."""
    more([[0, 0, 20, 0, 20, 20, 0, 20]])(export)


def thin(export: SpoilableExport) -> None:
    """A scratch of one row that no row of half as many looks at, over a dent that stays."""
    export.json["train"]["annotations"][0]["segmentation"] = [[2, 2, 30, 2, 30, 3, 2, 3]]
    more([[10, 10, 30, 10, 30, 25]])(export)


@pytest.mark.parametrize(
    ("spoil", "options", "lost", "remedy"),
    [
        (hiding, {}, {"scratch": {"hidden": 1, "pixels": 16}}, "data.paint_order: large_first"),
        (hiding, {"paint_order": "large_first"}, {}, ""),
        (
            thin,
            {"image_size": (HEIGHT // 2, WIDTH // 2)},
            {"scratch": {"too_thin": 1, "pixels": 28}},
            "data.image_size",
        ),
        (thin, {}, {}, ""),
        (more([[50, 2, 60, 2, 60, 9]]), {}, {"dent": {"no_outline": 1}}, "cardamage audit"),
        (more([[3, 3, 20, 20, 10, 10]]), {}, {"dent": {"no_area": 1}}, "cardamage audit"),
    ],
)
def test_what_is_lost_is_counted_and_said(export, said, spoil, options, lost, remedy):
    spoil(export)
    folder = packed(export, **options)
    found = train_of(folder).lost
    counts = {"images": 1, "annotations": 1}
    assert {name: one.model_dump(exclude_defaults=True) for name, one in found.items()} == {
        name: {**counts, **ways, "annotations": 2 if name == "dent" else 1}
        for name, ways in lost.items()
    }
    assert remedy in said.text
    with ShardReader(folder, "train") as reader:
        by_id = {i: ways for i, ways in ((1, lost.get("scratch")), (2, lost.get("dent"))) if ways}
        assert reader.info(0).get("lost", {}) == {str(i): ways for i, ways in by_id.items()}
        assert "lost" not in reader.info(1)
    wanted = {"paint_order": "file", "image_size": None, **options}
    counted = audit(export.folder, classes=CLASSES, workers=1, **wanted).splits["train"].lost
    assert {n: {w: c for w, c in vars(one).items() if c} for n, one in counted.items()} == lost


def test_boxes_are_painted_or_their_images_left_out(export: SpoilableExport):
    boxes(2)(export)
    plain = json.loads(json.dumps(export.json["train"]["annotations"]))
    for one in plain[2:]:
        x, y, width, height = one["bbox"]
        one["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    with ShardReader(packed(export, boxes="paint"), "train") as reader:
        assert (reader.read(0).mask == drawn(plain, 0)).all()
    record = train_of(packed(export, boxes="drop_image"))
    assert list(record.left_out) == ["a photo.v1.jpg"]
    assert record.samples == 1


def test_a_few_boxes_are_lost_and_do_not_stop(export: SpoilableExport):
    """One box among 120 annotations is less than one in a hundred."""
    shapes = [[[n % 30, n % 20, n % 30 + 4, n % 20, n % 30 + 4, n % 20 + 4]] for n in range(120)]
    more(*shapes)(export)
    boxes(1)(export)
    assert FEW > 1 / 127
    assert train_of(packed(export)).lost["scratch"].no_outline == 1
    boxes(1)(export)
    with pytest.raises(DataError, match="2 of 128 annotations"):
        packed(export)


def test_images_that_become_background_are_counted(export: SpoilableExport):
    nothing_but_boxes(export)
    result = audit(export.folder, workers=1)
    counts = result.splits["train"]
    assert (counts.images_without_annotations, counts.background_images) == (0, 2)
    assert {"boxes only", "nothing painted"} == {error.kind for error in result.errors}


def test_two_different_boxes_are_no_duplicates(export: SpoilableExport):
    boxes(2)(export)
    assert "duplicate annotation" not in {f.kind for f in audit(export.folder, workers=1).findings}


def test_a_float_tiff_is_as_bright_as_it_was(export: SpoilableExport):
    ramp = np.linspace(0, 1, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    stream = io.BytesIO()
    Image.fromarray(ramp).save(stream, "TIFF")
    (export.folder / "train" / "b.jpg").write_bytes(stream.getvalue())
    with ShardReader(packed(export), "train") as reader:
        assert (reader.read(1).image[..., 0] == np.round(ramp * 255)).all()


def name_apart(export: SpoilableExport) -> None:
    """Images of one name in several splits could not be put together."""
    for split in ("valid", "test"):
        for image in export.json[split]["images"]:
            path = export.folder / split / image["file_name"]
            image["file_name"] = f"{split} {path.name}"
            path.rename(path.with_name(image["file_name"]))
        export.write(split)


@pytest.mark.parametrize("name", ["names as ids", "the same image twice", "mixed"])
def test_what_is_read_can_be_split_again(export: SpoilableExport, name: str, tmp_path: Path):
    spoil = READ["text ids of images, numbers of annotations" if name == "mixed" else name]
    spoil(export)
    name_apart(export)
    resplit(export.folder, tmp_path / "again", shares=[0.4, 0.3, 0.3], workers=1)
    images = [i for s in read_export(tmp_path / "again").splits.values() for i in s.images]
    assert len(images) == 6
    assert {a.category_id for i in images for a in i.annotations} == set(
        read_export(export.folder).used_categories()
    )


def test_what_is_broken_is_left_out_of_new_splits_too(export: SpoilableExport):
    for number, path in enumerate(sorted(export.folder.rglob("*.jpg"))):  # of other looks each
        blocks = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(blocks).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
        picture.save(path, quality=95)
    REFUSED["a jpeg cut short"][0](export)
    name_apart(export)
    folder = packed(export, skip_broken=True, shares=[0.4, 0.3, 0.3])
    splits = read_manifest(ShardPaths(folder)).splits
    assert sum(record.samples for record in splits.values()) == 5
    assert [name for record in splits.values() for name in record.left_out] == ["b.jpg"]
