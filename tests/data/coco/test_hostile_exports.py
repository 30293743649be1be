"""Exports made to climb out of their folder, to fill the memory, or to overrun a mask."""

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from cardamage.data.coco.export import read_export, scan_export
from cardamage.data.coco.masks import paint
from cardamage.data.coco.segmentation import (
    MAX_OUTLINE_PIXELS,
    SegmentationError,
    check_polygon,
    parse,
)
from cardamage.data.coco.source import MAX_FILE_BYTES, ImageSource
from cardamage.data.images import MAX_SIDE
from cardamage.data.shards.pack import pack
from cardamage.errors import DataError
from tests.helpers.spoilable_export import SpoilableExport, annotation


@pytest.fixture
def export(tmp_path: Path) -> SpoilableExport:
    return SpoilableExport(tmp_path / "an export")


def errors(source: Path) -> list[str]:
    return [f.kind for f in scan_export(source)[1] if f.severity == "error"]


# --- links


def test_a_link_to_what_is_no_photo(export, tmp_path):
    (tmp_path / "secret.txt").write_text("a secret")
    photo = export.folder / "train" / "b.jpg"
    photo.unlink()
    photo.symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DataError, match=r"train/b\.jpg cannot be decoded"):
        pack(
            export.folder,
            classes={"scratch": ["scratch"], "dent": ["dent"]},
            image_size=(16, 16),
            shards_dir=tmp_path,
        )


def test_a_link_to_a_folder_around_is_not_followed_for_ever(export):
    (export.folder / "train" / "more").symlink_to(export.folder)
    (export.folder / "train" / "even more").symlink_to(".")
    assert errors(export.folder) == []


def test_links_inside_a_split_and_linked_splits_are_good(export, tmp_path):
    train = export.folder / "train"
    train.rename(tmp_path / "kept elsewhere")
    train.symlink_to(tmp_path / "kept elsewhere")
    (train / "b.jpg").rename(train / "real.jpg")
    (train / "b.jpg").symlink_to("real.jpg")
    assert errors(export.folder) == []
    assert ImageSource(export.folder).read("train", "b.jpg") == (train / "real.jpg").read_bytes()


def test_links_that_lead_to_each_other(export):
    photo = export.folder / "train" / "b.jpg"
    photo.unlink()
    photo.symlink_to("c.jpg")
    (export.folder / "train" / "c.jpg").symlink_to("b.jpg")
    with pytest.raises(DataError, match="is missing"):
        ImageSource(export.folder).read("train", "b.jpg")


# --- zips


def add(archive: Path, name: str, content: bytes = b"evil", mode: int = 0o100644) -> None:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr(entry, content)


@pytest.mark.parametrize("name", ["../evil.jpg", "/evil.jpg", "train/../../evil.jpg", "C:\\evil"])
def test_zip_entries_that_climb_are_never_written(export, tmp_path, name):
    """Nothing is ever extracted, so such an entry is a file that no annotation can name."""
    archive = export.zipped(tmp_path / "cars.zip")
    add(archive, name)
    before = sorted(tmp_path.rglob("*"))
    assert errors(archive) == []
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(DataError, match=r"leaves its split's folder|is missing"):
        ImageSource(archive).read("train", name)


def test_a_link_in_a_zip_is_not_followed(export, tmp_path):
    archive = export.zipped(tmp_path / "cars.zip")
    add(archive, "train/link.jpg", b"/etc/passwd", 0o120777)
    assert ImageSource(archive).read("train", "link.jpg") == b"/etc/passwd"


def test_of_two_zip_entries_of_one_name_the_last_counts(export, tmp_path):
    archive = export.zipped(tmp_path / "cars.zip")
    with pytest.warns(UserWarning, match="Duplicate name"):
        add(archive, "train/b.jpg", b"the last")
    assert ImageSource(archive).read("train", "b.jpg") == b"the last"


def test_a_zip_inside_a_zip_stays_closed(export, tmp_path):
    inner = export.zipped(tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as outer:
        outer.write(inner, "cars.zip")
    assert errors(tmp_path / "outer.zip") == ["unreadable source"]


def test_a_zip64_archive_reads_as_any(export, tmp_path):
    archive = tmp_path / "cars.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for file in sorted(p for p in export.folder.rglob("*") if p.is_file()):
            name = file.relative_to(export.folder).as_posix()
            with opened.open(name, "w", force_zip64=True) as stream:
                stream.write(file.read_bytes())
    assert errors(archive) == []
    assert len(read_export(archive).splits["train"].images) == 2


def patch_directory(archive: Path, name: str, offset: int, value: bytes) -> None:
    """Change a field of an entry in the central directory, the list at a zip's end."""
    content = bytearray(archive.read_bytes())
    at = content.rindex(name.encode()) - 46
    assert content[at : at + 4] == b"PK\x01\x02"
    content[at + offset : at + offset + len(value)] = value
    archive.write_bytes(content)


def test_an_encrypted_entry(export, tmp_path):
    archive = export.zipped(tmp_path / "cars.zip")
    patch_directory(archive, "train/b.jpg", 8, struct.pack("<H", 1))
    with pytest.raises(DataError, match=r"train/b\.jpg cannot be read .*(encrypted|password)"):
        ImageSource(archive).read("train", "b.jpg")


def test_a_zip_entry_that_would_fill_the_memory(export, tmp_path):
    archive = export.zipped(tmp_path / "cars.zip")
    patch_directory(archive, "train/b.jpg", 24, struct.pack("<I", MAX_FILE_BYTES + 1))
    with pytest.raises(DataError, match=r"train/b\.jpg is larger than 1024 MiB"):
        ImageSource(archive).read("train", "b.jpg")


def test_a_zip_entry_that_is_larger_than_it_says(export, tmp_path):
    """20 MB of zeros in 20 kB, which claim to be 100 bytes: no more than those come out."""
    archive = export.zipped(tmp_path / "cars.zip")
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("train/bomb.jpg", bytes(20_000_000))
    patch_directory(archive, "train/bomb.jpg", 24, struct.pack("<I", 100))
    source = ImageSource(archive)
    assert source.size("train", "bomb.jpg") == 100
    try:
        assert len(source.read("train", "bomb.jpg")) <= 100
    except DataError as error:
        assert "cannot be read" in str(error)  # noqa: PT017 - either is fine


def test_a_zip_entry_without_a_name(export, tmp_path):
    archive = export.zipped(tmp_path / "cars.zip")
    add(archive, "x")
    content = archive.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    nameless = content[at : at + 28] + b"\0\0" + content[at + 30 : at + 46]
    end = bytearray(content[content.rindex(b"PK\x05\x06") :])
    size = struct.unpack("<I", end[12:16])[0]
    end[12:16] = struct.pack("<I", size - 1)
    archive.write_bytes(content[:at] + nameless + bytes(end))
    assert errors(archive) in ([], ["unreadable source"])


# --- annotations that ask for memory


@pytest.mark.parametrize("size", [(MAX_SIDE + 1, 1), (1, 10**8), (20_000, 20_000)])
def test_a_size_that_would_fill_the_memory(export, size):
    export.json["train"]["images"][1].update(width=size[0], height=size[1])
    export.write()
    assert "impossible size" in errors(export.folder)


def test_an_outline_that_would_fill_the_memory():
    """Few numbers, long ways: back and forth over 600,000 pixels, ten sides beyond the image."""
    far = [0.0, 0.0, 600_000.0, 1.0]
    assert not check_polygon(np.array(far * 3), 60_000, 100)
    times = MAX_OUTLINE_PIXELS // 1_200_000 + 1
    with pytest.raises(SegmentationError, match="the outline is longer than 4000000 pixels"):
        check_polygon(np.array(far * times), 60_000, 100)


@pytest.mark.parametrize("size", [[1 << 16, 1 << 15], [0, 5], [-1, -1], [1 << 70, 1]])
def test_an_rle_of_an_impossible_size(size):
    with pytest.raises(SegmentationError, match="pixels cannot be"):
        parse({"size": size, "counts": [size[0] * size[1]]})


def compressed(runs: list[int], groups: int) -> str:
    """COCO's letters for ``runs``, each number in as many groups of 5 bits, needed or not."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        for group in range(groups):
            bits = (value >> (5 * group)) & 0x1F
            text += chr(48 + bits + (0x20 if group < groups - 1 else 0))
    return text


@pytest.mark.parametrize("counts", ["\ud800", "é", "04\ud83d0", " "])
def test_counts_of_other_letters(counts):
    with pytest.raises(SegmentationError, match="not in COCO's letters"):
        parse({"size": [30, 40], "counts": counts})


@pytest.mark.parametrize("groups", [3, 6, 7, 8, 9])
def test_letters_that_the_c_code_reads_otherwise(export, groups):
    """With 7 groups and more its 32-bit shifts give other runs, which would overrun the mask."""
    runs = [600, 300, 200, 100]
    rle = {"size": [30, 40], "counts": compressed(runs, groups)}
    export.json["train"]["annotations"] = [annotation(0, rle), annotation(1)]
    export.write()
    image = read_export(export.folder).splits["train"].images[0]
    expected = np.repeat([0, 1, 0, 1], runs).reshape((30, 40), order="F")
    assert (coco_mask.decode(image.annotations[0].rle) == expected).all()
    assert (paint(image, {1: 1}).mask == expected).all()
