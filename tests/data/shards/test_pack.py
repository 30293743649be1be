"""Packing: what becomes of an export, and that nothing is ever left half done."""

import io
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cardamage.data.coco.export import read_export
from cardamage.data.coco.masks import paint
from cardamage.data.coco.records import Annotation, ImageRecord
from cardamage.data.coco.subset import subset_of
from cardamage.data.images import resize_image, resize_mask
from cardamage.data.shards.fingerprint import dataset_name
from cardamage.data.shards.folder import held
from cardamage.data.shards.make import Recipe, make_sample
from cardamage.data.shards.manifest import read_manifest, write_manifest
from cardamage.data.shards.pack import make, pack, prepare
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import DataError
from cardamage.runs.paths import SPLITS, ShardPaths
from cardamage.system.console import EventLog, read_events
from tests.helpers.small_export import CLASSES, SIZES, encoded, packed_export, photo, write_export

OPTIONS = {"classes": CLASSES, "image_size": (16, 24)}
MANY = {"train": 90, "valid": 66, "test": 2}
"""Enough for two processes, and for two shards of two splits."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_export(tmp_path / "cars")


@pytest.fixture
def shards_dir(tmp_path: Path) -> Path:
    return tmp_path / "shards"


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    logging.getLogger("cardamage").propagate = True  # a program's start_logging turns it off
    return caplog


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_folder_of_shards(source: Path, shards_dir: Path) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    manifest = read_manifest(ShardPaths(folder))
    assert folder == shards_dir / f"cars-{manifest.fingerprint[:12]}"
    assert sorted(contents(folder)) == sorted(
        ["manifest.json"]
        + [f"{split}/{name}" for split in SPLITS for name in ("000000.tar", "index.npy")]
    )
    assert manifest.class_names == ["background", "scratch", "dent"]
    assert manifest.image_size == (16, 24)
    assert manifest.rasteriser.startswith("pycocotools 2.")
    assert {split: record.samples for split, record in manifest.splits.items()} == SIZES


def test_samples_are_the_images_and_painted_masks(source: Path, shards_dir: Path) -> None:
    folder = pack(source, shards_dir=shards_dir, image_format="png", **OPTIONS)
    export = read_export(source)
    for split in SPLITS:
        with ShardReader(folder, split) as reader:
            for number, record in enumerate(export.splits[split].images):
                read, info = reader.read(number), reader.info(number)
                image = Image.open(source / split / record.file_name)
                np.testing.assert_array_equal(read.image, resize_image(image, (16, 24)))
                mask = resize_mask(paint(record, {0: 0, 1: 1, 2: 2}).mask, (16, 24))
                np.testing.assert_array_equal(read.mask, mask)
                assert info["file_name"] == f"photo {number:03d}.v1.jpg"
                assert (info["width"], info["height"]) == (40, 32)
                assert info["pixels"] == np.bincount(mask.ravel(), minlength=3).tolist()


def test_pixels_by_hand(source: Path, shards_dir: Path) -> None:
    folder = pack(source, shards_dir=shards_dir, classes=CLASSES, image_size=(32, 40))
    with ShardReader(folder, "test") as reader:
        nothing, damaged = reader.info(0), reader.info(1)
        mask = reader.read(1).mask
        assert reader.shown().tolist() == [[True, False, False], [True, True, True]]
    # A 16x8 scratch from (4, 4), then a 16x16 dent from (12, 8): 8x4 pixels are in both.
    assert nothing["pixels"] == [40 * 32, 0, 0]
    assert damaged["pixels"] == [40 * 32 - 352, 16 * 8 - 8 * 4, 16 * 16]
    assert (nothing["overlapped_pixels"], damaged["overlapped_pixels"]) == (0, 8 * 4)
    assert (mask[4:8, 4:20] == 1).all()
    assert (mask[8:24, 12:28] == 2).all()
    record = read_manifest(ShardPaths(folder)).splits["test"]
    assert record.pixels == [2 * 40 * 32 - 352, 96, 256]
    assert record.overlapped_pixels == 32


def test_classes_group_and_drop(source: Path, shards_dir: Path) -> None:
    size = (32, 40)
    grouped = pack(
        source, classes={"any": ("dent", "scratch")}, image_size=size, shards_dir=shards_dir
    )
    with ShardReader(grouped, "test") as reader:
        assert reader.class_names == ("background", "any")
        assert reader.info(1)["pixels"] == [40 * 32 - 352, 352]
    dropped = pack(
        source,
        classes={"scratch": ("scratch",)},
        drop=["dent"],
        image_size=size,
        shards_dir=shards_dir,
    )
    with ShardReader(dropped, "test") as reader:
        assert reader.info(1)["pixels"] == [40 * 32 - 128, 128]


def sample_image(content: bytes, size: tuple[int, int] = (32, 40), image_format: str = "jpg"):
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    record = ImageRecord(0, "a.jpg", width, height, ())
    recipe = Recipe({}, 1, size, image_format)
    return make_sample(content, record, recipe, name="a.jpg")[image_format]


def test_a_jpeg_of_the_right_size_keeps_its_bytes() -> None:
    content = encoded(photo(3, 40, 32), quality=60)
    assert sample_image(content) == content


@pytest.mark.parametrize(
    "kind", ["other size", "png", "grey", "cmyk", "turned", "no end marker", "asked as png"]
)
def test_any_other_image_is_encoded_anew(kind: str) -> None:
    image, size, image_format = photo(3, 40, 32), (32, 40), "jpg"
    match kind:
        case "other size":
            content, size = encoded(image), (16, 24)
        case "png":
            content = encoded(image, "PNG")
        case "grey":
            content = encoded(image.convert("L"))
        case "cmyk":
            content = encoded(image.convert("CMYK"))
        case "turned":
            exif = Image.Exif()
            exif[0x0112] = 3
            content = encoded(image, exif=exif)
        case "no end marker":  # which other readers of the shard refuse
            content = encoded(image)[:-2]
        case "asked as png":
            content, image_format = encoded(image), "png"
    stored = sample_image(content, size, image_format)
    assert stored != content
    with Image.open(io.BytesIO(stored)) as read:
        assert (read.mode, read.size) == ("RGB", size[::-1])
        assert read.format == {"jpg": "JPEG", "png": "PNG"}[image_format]
        assert 0x0112 not in read.getexif()


def test_a_zip_packs_to_the_same_shards(source: Path, shards_dir: Path, tmp_path: Path) -> None:
    archive = tmp_path / "cars.v2.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for name, content in contents(source).items():
            stream.writestr(f"export/{name}", content)
    from_folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    from_zip = pack(archive, shards_dir=shards_dir, **OPTIONS)
    assert from_zip.name.startswith("cars.v2-")
    a, b = contents(from_folder), contents(from_zip)
    assert {k: v for k, v in a.items() if k != "manifest.json"} == {
        k: v for k, v in b.items() if k != "manifest.json"
    }
    fingerprints = {read_manifest(ShardPaths(f)).fingerprint for f in (from_folder, from_zip)}
    assert len(fingerprints) == 1


def test_two_processes_write_what_one_does(tmp_path: Path) -> None:
    source = write_export(tmp_path / "cars", sizes=MANY)
    one = pack(source, shards_dir=tmp_path / "one", workers=1, **OPTIONS)
    events = tmp_path / "events.jsonl"
    two = pack(source, shards_dir=tmp_path / "two", workers=2, events=EventLog(events), **OPTIONS)
    assert contents(one) == contents(two)
    assert len(list((two / "train").glob("*.tar"))) == 2
    last = read_events(events)[-1]
    assert (last["event"], last["stage"], last["unit"]) == ("progress", "pack", "images")
    assert last["done"] == last["total"] == sum(MANY.values())
    with ShardReader(two, "train") as reader:
        assert reader.info(89)["file_name"] == "photo 089.v1.jpg"


@pytest.mark.parametrize(
    ("subset", "count", "used"),
    [(1.0, 7, 7), (0.4, 7, 3), (0.5, 7, 4), (0.001, 7, 1), (0.4, 502, 201), (0.4, 68, 27)],
)
def test_a_subset_is_the_first_by_file_name(subset: float, count: int, used: int) -> None:
    assert subset_of(images(count), subset, "name") == images(count)[:used]


def images(count: int) -> tuple[ImageRecord, ...]:
    """By name; every fifth shows category 7, every other 1, the rest nothing."""
    shows = [{7} if n % 5 == 0 else {1} if n % 2 else set() for n in range(count)]
    return tuple(
        ImageRecord(
            n, f"{n:03d}.jpg", 8, 8, tuple(Annotation(0, c, (), None, False) for c in shown)
        )
        for n, shown in enumerate(shows)
    )


def test_a_stratified_subset_keeps_the_shares_of_the_categories() -> None:
    """Of 100 images 20 show category 7, 40 category 1 and 40 nothing."""
    before: set[str] = set()
    for share in (0.1, 0.2, 0.4, 0.75, 1.0):
        used = subset_of(images(100), share, "stratified")
        count = round(100 * share)
        names = [image.file_name for image in used]
        assert (len(names), names) == (count, sorted(names))
        shown = Counter(a.category_id for image in used for a in image.annotations)
        assert shown[7] == pytest.approx(0.2 * count, abs=1)
        assert shown[1] == pytest.approx(0.4 * count, abs=1)
        assert before < set(names)
        before = set(names)
    assert subset_of(images(3), 0.001, "stratified")


def test_how_a_subset_is_taken_is_part_of_the_fingerprint(source: Path, shards_dir: Path) -> None:
    def folder(**subset: Any) -> Path:
        return prepare(source, shards_dir=shards_dir, **OPTIONS, **subset).paths.root

    by_name = folder(subset=0.4, subset_by="name")
    assert by_name == folder(subset=0.4) != folder(subset=0.4, subset_by="stratified")
    assert folder(subset_by="stratified") == folder()


def test_a_subset_of_every_split(source: Path, shards_dir: Path) -> None:
    folder = pack(source, subset=0.4, shards_dir=shards_dir, **OPTIONS)
    splits = read_manifest(ShardPaths(folder)).splits
    assert {name: split.samples for name, split in splits.items()} == {
        "train": 3,
        "valid": 1,
        "test": 1,
    }


def test_the_fingerprint_is_of_everything_that_counts(source: Path, tmp_path: Path) -> None:
    def fingerprint(where: Path = source, **options: object) -> str:
        return prepare(where, shards_dir=tmp_path, **{**OPTIONS, **options}).fingerprint

    base = fingerprint()
    assert fingerprint(shutil.copytree(source, tmp_path / "elsewhere")) == base
    assert fingerprint(classes={"scratch": ["scratch"], "dent": ["dent"]}) == base
    others = [
        fingerprint(classes={"dent": ["dent"], "scratch": ["scratch"]}),
        fingerprint(classes={"scratch": ["scratch"], "bump": ["dent"]}),
        fingerprint(classes={"scratch": ["scratch"]}, drop=["dent"]),
        fingerprint(image_size=(24, 16)),
        fingerprint(subset=0.9),
        fingerprint(image_format="png"),
    ]
    image = source / "test" / "photo 001.v1.jpg"
    image.write_bytes(image.read_bytes() + b"\0")
    others.append(fingerprint())
    for name in ("another.jpg", ".DS_Store"):
        (source / "valid" / name).write_bytes(b"?")
    assert fingerprint() == others[-1]
    annotations = source / "train" / "_annotations.coco.json"
    annotations.write_text(annotations.read_text() + "\n")
    others.append(fingerprint())
    assert len({base, *others}) == len(others) + 1


@pytest.mark.skipif(version("pycocotools") != "2.0.11", reason="the rasteriser is part of it")
def test_the_fingerprint_never_changes(source: Path, tmp_path: Path) -> None:
    """Shards packed before stay found; a change here needs another VERSION of the layout."""
    for path in source.rglob("*.jpg"):
        path.write_bytes(b"12345678")
    packing = prepare(source, shards_dir=tmp_path, **OPTIONS)
    assert packing.fingerprint == (
        "12725410c54952dd37169a4480d44c16289667c9b296225542d97dd55b386ec0"
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [("car-damage", "car-damage"), ("Car Damages v5 (ü)", "Car-Damages-v5"), ("...", "dataset")],
)
def test_dataset_name(tmp_path: Path, name: str, expected: str) -> None:
    assert dataset_name(tmp_path / name) == expected


def test_packing_again_does_nothing(source: Path, shards_dir: Path) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    before = times(folder)
    packing = prepare(source, shards_dir=shards_dir, **OPTIONS)
    assert packing.complete
    assert packing.samples == SIZES
    assert make(packing) == folder
    assert times(folder) == before


def test_an_interrupted_packing_keeps_whole_shards(source: Path, shards_dir: Path) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    before, when = contents(folder), times(folder / "train")
    (folder / "manifest.json").unlink()
    (folder / "valid" / "index.npy").unlink()
    (folder / "test" / "000000.tar").unlink()
    part = folder / "test" / f".000000.tar.{socket.gethostname()}.1.part"
    part.write_bytes(b"half a shard")
    assert pack(source, shards_dir=shards_dir, **OPTIONS) == folder
    assert contents(folder) == before
    assert times(folder / "train")["000000.tar"] == when["000000.tar"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "index", "manifest", "not whole"])
def test_what_was_damaged_is_packed_again(
    source: Path, shards_dir: Path, damage: str, warnings: pytest.LogCaptureFixture
) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    before = contents(folder)
    shard = folder / "train" / "000000.tar"
    match damage:
        case "truncated":
            os.truncate(shard, 5000)
        case "missing":
            shard.unlink()
        case "index":
            (folder / "train" / "index.npy").write_bytes(b"?")
        case "manifest":
            (folder / "manifest.json").write_text("{")
        case "not whole":
            (folder / "manifest.json").unlink()
            os.truncate(shard, 5120)
    assert pack(source, shards_dir=shards_dir, **OPTIONS) == folder
    assert contents(folder) == before
    expected = {
        "truncated": "has 5000 bytes, not",
        "missing": "is missing",
        "manifest": "is damaged",
    }
    if damage in expected:
        assert expected[damage] in warnings.text


@pytest.mark.parametrize("where", ["header", "image", "end"])
def test_flipped_bits_are_found_on_request_and_that_shard_alone_is_packed_again(
    source: Path, shards_dir: Path, where: str, warnings: pytest.LogCaptureFixture
) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    before, when = contents(folder), times(folder / "valid")
    shard = folder / "train" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[{"header": 3, "image": 700, "end": -3}[where]] ^= 4
    shard.write_bytes(content)
    assert prepare(source, shards_dir=shards_dir, **OPTIONS).complete  # by its size
    packing = prepare(source, shards_dir=shards_dir, check=True, **OPTIONS)
    assert not packing.complete
    assert make(packing) == folder
    assert "train/000000.tar has other bytes than were packed" in warnings.text
    assert contents(folder) == before
    assert times(folder / "valid")["000000.tar"] == when["000000.tar"]
    assert prepare(source, shards_dir=shards_dir, check=True, **OPTIONS).complete


def test_a_stray_tar_is_named(
    source: Path, shards_dir: Path, warnings: pytest.LogCaptureFixture
) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    shutil.copy(folder / "train" / "000000.tar", folder / "train" / "000001.tar")
    pack(source, shards_dir=shards_dir, **OPTIONS)
    assert f"{folder / 'train' / '000001.tar'} is not in the manifest" in warnings.text
    with ShardReader(folder, "train") as reader:
        assert len(reader) == SIZES["train"]


def test_a_folder_of_another_fingerprint(source: Path, shards_dir: Path) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    paths = ShardPaths(folder)
    other = read_manifest(paths).model_copy(update={"fingerprint": "cd" * 32})
    write_manifest(paths, other)
    with pytest.raises(DataError, match=r"another fingerprint .*; delete that folder"):
        pack(source, shards_dir=shards_dir, **OPTIONS)


@pytest.mark.parametrize(
    ("damage", "workers"), [("broken", 1), ("truncated", 1), ("other size", 1), ("other size", 2)]
)
def test_a_broken_image_leaves_nothing(
    tmp_path: Path, shards_dir: Path, damage: str, workers: int
) -> None:
    source = write_export(tmp_path / "cars", sizes=MANY)
    path = source / "valid" / "photo 064.v1.jpg"
    match damage:
        case "broken":
            path.write_bytes(b"no image")
        case "truncated":
            path.write_bytes(path.read_bytes()[:-200])
        case "other size":
            path.write_bytes(encoded(photo(1, 39, 32)))
    with pytest.raises(DataError, match=r"valid/photo 064\.v1\.jpg") as caught:
        pack(source, shards_dir=shards_dir, workers=workers, **OPTIONS)
    assert "\n" not in str(caught.value)
    assert list(shards_dir.iterdir()) == []


def test_a_broken_image_spares_what_was_complete(source: Path, shards_dir: Path) -> None:
    folder = pack(source, shards_dir=shards_dir, **OPTIONS)
    path = source / "train" / "photo 001.v1.jpg"
    path.write_bytes(bytes(path.stat().st_size))
    (folder / "train" / "000000.tar").unlink()
    with pytest.raises(DataError, match="cannot be decoded"):
        pack(source, shards_dir=shards_dir, **OPTIONS)
    assert (folder / "valid" / "000000.tar").exists()
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"scratch": ["scratch"]}, r'neither data\.classes nor data\.drop names: \["dent"\]'),
        ({**CLASSES, "rust": ["rust"]}, 'data.classes names "rust", which the dataset does not'),
    ],
)
def test_classes_that_disagree_write_nothing(
    source: Path, shards_dir: Path, classes: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        pack(source, classes=classes, image_size=(16, 24), shards_dir=shards_dir)
    assert not shards_dir.exists()


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("", "does not exist"),
        ("valid", "valid"),
        ("test/_annotations.coco.json", r"test/_annotations\.coco\.json"),
        ("train/photo 003.v1.jpg", r"train: .*'photo 003\.v1\.jpg'"),
    ],
)
def test_a_source_that_lacks_something_writes_nothing(
    source: Path, shards_dir: Path, remove: str, message: str
) -> None:
    path = source / remove
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=message) as caught:
        pack(source, shards_dir=shards_dir, **OPTIONS)
    assert "\n" not in str(caught.value)
    assert not shards_dir.exists()


def test_shards_dir_is_a_file(source: Path, shards_dir: Path) -> None:
    shards_dir.write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be written .*data\.shards_dir"):
        pack(source, shards_dir=shards_dir, **OPTIONS)


def test_one_packs_and_the_other_waits(source: Path, shards_dir: Path) -> None:
    packing = prepare(source, shards_dir=shards_dir, **OPTIONS)
    waiting = threading.Thread(target=make, args=(packing,))
    with held(packing.paths.root):
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
        assert list(packing.paths.root.iterdir()) == []
    waiting.join(60)
    assert packing.paths.manifest.exists()


def test_a_lock_on_a_removed_folder_is_no_lock(tmp_path: Path) -> None:
    folder, order = tmp_path / "shards", []

    def second() -> None:
        with held(folder):
            order.append(folder.is_dir())

    waiting = threading.Thread(target=second)
    with held(folder):
        waiting.start()
        time.sleep(0.2)
        folder.rmdir()
    waiting.join(60)
    assert order == [True]


def test_packed_export_is_what_other_tests_take_it_for(tmp_path: Path) -> None:
    with ShardReader(packed_export(tmp_path), "train") as reader:
        assert len({reader.read(number).image.tobytes() for number in range(7)}) == 7


def test_packing_imports_no_torch_and_leaves_webdataset_whole(tmp_path: Path) -> None:
    source = write_export(tmp_path / "cars")
    code = f"""
import sys
from pathlib import Path
from cardamage.data.shards.pack import pack
pack(Path({str(source)!r}), shards_dir=Path({str(tmp_path / "shards")!r}), **{OPTIONS!r})
assert "torch" not in sys.modules
import torch, webdataset
assert issubclass(webdataset.WebDataset, torch.utils.data.IterableDataset)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
