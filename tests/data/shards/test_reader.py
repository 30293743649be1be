"""Shards: what is packed is what is read, and what was damaged afterwards is noticed."""

import io
import json
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.data.shards.manifest import (
    Manifest,
    ShardRecord,
    SplitRecord,
    read_manifest,
    write_manifest,
)
from cardamage.data.shards.reader import ShardReader
from cardamage.data.shards.tar import INDEX_DTYPE, read_shard, write_shard
from cardamage.errors import DataError
from cardamage.runs.paths import ShardPaths
from cardamage.system.files import sha256_of, write_bytes
from tests.helpers.small_export import packed_export

HEIGHT, WIDTH = 6, 10


def arrays(number: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(number)
    image = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return image, generator.integers(0, 3, (HEIGHT, WIDTH), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def sample(number: int) -> dict[str, bytes]:
    image, mask = arrays(number)
    info = json.dumps({"file_name": f"photo {number}.ü.jpg"}, ensure_ascii=False).encode()
    return {"png": png(image), "json": info, "seg.png": png(mask)}


def write_folder(folder: Path, shards: tuple[int, ...] = (3, 2), sample_of=sample) -> Path:
    """A folder whose train split has shards of so many samples."""
    folder.mkdir(exist_ok=True)
    paths = ShardPaths(folder)
    records, indices, first = [], [], 0
    for number, count in enumerate(shards):
        path = paths.shard("train", number)
        samples = (sample_of(first + i) for i in range(count))
        indices.append(write_shard(path, first, samples, shard=number).index)
        records.append(
            ShardRecord(samples=count, bytes=path.stat().st_size, sha256=sha256_of(path))
        )
        first += count
    stream = io.BytesIO()
    np.save(stream, np.concatenate(indices))
    write_bytes(paths.index("train"), stream.getvalue())
    split = SplitRecord(
        samples=first,
        shards=records,
        index_sha256=sha256_of(paths.index("train")),
        pixels=[1, 2, 3],
        overlapped_pixels=0,
    )
    manifest = Manifest(
        version=1,
        dataset="cars",
        fingerprint="ab" * 32,
        class_names=["background", "scratch", "dent"],
        options={},
        image_size=(HEIGHT, WIDTH),
        rasteriser="by hand",
        encoder="by hand",
        splits={"train": split},
    )
    write_manifest(paths, manifest)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "cars-ab")


def flip_byte(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0xFF
    path.write_bytes(content)


def test_reads_what_was_written(folder: Path) -> None:
    with ShardReader(folder, "train") as reader:
        assert len(reader) == 5
        assert reader.class_names == ("background", "scratch", "dent")
        assert reader.image_size == (HEIGHT, WIDTH)
        assert reader.fingerprint == "ab" * 32
        assert reader.keys.tolist() == [f"0000000{i}" for i in range(5)]
        for number in (4, 0, 3, 1, 2):
            image, mask = arrays(number)
            read = reader.read(number)
            assert read.key == f"0000000{number}"
            assert read.image.dtype == read.mask.dtype == np.uint8
            np.testing.assert_array_equal(read.image, image)
            np.testing.assert_array_equal(read.mask, mask)
            assert reader.info(number) == {"file_name": f"photo {number}.ü.jpg"}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2, "progressive": True}])
def test_jpeg_has_the_pixels_that_pillow_gives(tmp_path: Path, mode: str, options: dict) -> None:
    noise = Image.fromarray(arrays(0)[0]).resize((WIDTH, HEIGHT)).convert(mode)
    stream = io.BytesIO()
    noise.save(stream, "JPEG", quality=85, **options)

    def with_jpeg(number: int) -> dict[str, bytes]:
        others = sample(number)
        return {"jpg": stream.getvalue(), "json": others["json"], "seg.png": others["seg.png"]}

    folder = write_folder(tmp_path / "cars-ab", sample_of=with_jpeg)
    with ShardReader(folder, "train") as reader:
        if mode == "RGB":
            np.testing.assert_array_equal(reader.read(0).image, np.asarray(Image.open(stream)))
        else:
            with pytest.raises(DataError, match=f"of mode {mode}"):
                reader.read(0)


@pytest.mark.parametrize("number", [-1, 5])
def test_there_is_no_such_sample(folder: Path, number: int) -> None:
    with ShardReader(folder, "train") as reader, pytest.raises(IndexError, match="of 5"):
        reader.read(number)


def test_one_shard_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, 0, (sample(i) for i in range(3)))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == [
        f"0000000{i}.{suffix}" for i in range(3) for suffix in ("json", "png", "seg.png")
    ]
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
        assert member.mode == 0o644


def test_what_is_noted_while_writing_is_what_lies_there(tmp_path: Path) -> None:
    path = tmp_path / "000003.tar"
    noted = write_shard(path, 5, (sample(i) for i in range(5, 9)), shard=3)
    read = read_shard(path, shard=3, first=5, samples=4)
    assert noted.index.tolist() == read.index.tolist()
    assert (noted.infos, noted.bytes) == (read.infos, path.stat().st_size)
    assert noted.sha256 == read.sha256 == sha256_of(path)


def test_a_shard_of_an_earlier_version_is_whole(tmp_path: Path) -> None:
    """It had the image first, also where that is a PNG."""
    path = tmp_path / "000000.tar"
    index = write_shard(path, 0, [sample(0)]).index
    with tarfile.open(path) as archive:
        parts = {m.name: archive.extractfile(m).read() for m in archive.getmembers()}
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for suffix in ("png", "json", "seg.png"):
            member = tarfile.TarInfo(f"00000000.{suffix}")
            member.size = len(parts[member.name])
            archive.addfile(member, io.BytesIO(parts[member.name]))
    read = read_shard(path, shard=0, first=0, samples=1).index
    assert read["image_offset"][0] == 512 < index["image_offset"][0]
    assert read["image_crc32"] == index["image_crc32"]


def test_an_error_while_writing_leaves_no_shard(tmp_path: Path) -> None:
    def samples():
        yield sample(0)
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        write_shard(tmp_path / "train" / "000000.tar", 0, samples())
    assert list((tmp_path / "train").iterdir()) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves tars open
def test_stock_webdataset_reads_the_shards(tmp_path: Path) -> None:
    import webdataset

    folder = packed_export(tmp_path)
    urls = [str(path) for path in sorted((folder / "train").glob("*.tar"))]
    with ShardReader(folder, "train") as reader:
        stock = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
        assert [item["__key__"] for item in stock] == reader.keys.tolist()
        for number, item in enumerate(stock):
            read = reader.read(number)
            np.testing.assert_array_equal(np.asarray(item["jpg"]), read.image)
            np.testing.assert_array_equal(np.asarray(item["seg.png"].convert("L")), read.mask)
            assert item["json"] == reader.info(number)


def test_masks_are_8_bit_grey(tmp_path: Path) -> None:
    folder = packed_export(tmp_path)
    with tarfile.open(folder / "test" / "000000.tar") as archive:
        stream = archive.extractfile("00000001.seg.png")
        assert stream is not None
        content = stream.read()
    assert Image.open(io.BytesIO(content)).mode == "L"
    assert content[24] == 8  # bits per channel, in the PNG's header


def test_many_threads_on_few_open_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "cars-ab", shards=(1,) * 12)
    with ShardReader(folder, "train", open_shards=2) as reader, ThreadPoolExecutor(8) as threads:
        numbers = np.random.default_rng(0).integers(0, 12, 400).tolist()
        for number, read in zip(numbers, threads.map(reader.read, numbers), strict=True):
            np.testing.assert_array_equal(read.image, arrays(number)[0])
        assert open_descriptors(folder) == 2
    assert open_descriptors(folder) == 0


def open_descriptors(folder: Path) -> int:
    links = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sum(link.startswith(str(folder)) for link in links)


def test_reading_after_close_is_refused(folder: Path) -> None:
    reader = ShardReader(folder, "train")
    reader.close()
    with pytest.raises(ValueError, match="close"):
        reader.read(0)


def test_a_truncated_shard(folder: Path) -> None:
    path = folder / "train" / "000001.tar"
    size = path.stat().st_size
    os.truncate(path, size - 512)
    message = rf"000001\.tar has {size - 512} bytes, not {size}; pack again"
    with pytest.raises(DataError, match=message):
        ShardReader(folder, "train")


def test_a_missing_shard(folder: Path) -> None:
    (folder / "train" / "000000.tar").unlink()
    with pytest.raises(DataError, match=r"000000\.tar is missing; pack again"):
        ShardReader(folder, "train")


@pytest.mark.parametrize("part", ["image", "mask"])
def test_a_flipped_byte_is_noticed_when_read(folder: Path, part: str) -> None:
    index = np.load(folder / "train" / "index.npy")
    flip_byte(folder / "train" / "000001.tar", int(index[4][f"{part}_offset"]) + 20)
    with ShardReader(folder, "train") as reader:
        reader.read(3)
        with pytest.raises(DataError, match=rf"000001\.tar: sample 00000004 .* {part} .* --check$"):
            reader.read(4)


def test_a_shard_that_vanishes_while_open_for_reading(folder: Path) -> None:
    with ShardReader(folder, "train") as reader:
        shutil.rmtree(folder / "train")
        with pytest.raises(DataError, match=r"000000\.tar: sample 00000000 .*cannot be read"):
            reader.read(0)


@pytest.mark.parametrize("damage", ["flip", "delete"])
def test_a_damaged_index(folder: Path, damage: str) -> None:
    path = folder / "train" / "index.npy"
    flip_byte(path, 150) if damage == "flip" else path.unlink()
    with pytest.raises(DataError, match=r"index\.npy is .*pack again"):
        ShardReader(folder, "train")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1}', "null", "\x80"])
def test_a_damaged_manifest(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"manifest\.json is damaged; pack again"):
        ShardReader(folder, "train")


def test_no_flipped_bit_of_a_manifest_goes_unnoticed(folder: Path) -> None:
    path = folder / "manifest.json"
    whole, manifest = path.read_bytes(), read_manifest(ShardPaths(folder))
    for position in range(0, len(whole), 3):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        try:
            found = read_manifest(ShardPaths(folder))
        except DataError:
            continue
        assert found == manifest  # the bit was one of the blanks


def test_a_manifest_of_another_version(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(DataError, match="has version 99 of the layout, not 1; delete"):
        read_manifest(ShardPaths(folder))


def test_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no complete shards"):
        ShardReader(tmp_path, "train")


def test_an_unknown_split(folder: Path) -> None:
    with pytest.raises(DataError, match='has no split "valid"; it has train'):
        ShardReader(folder, "valid")


def test_every_cut_of_a_shard_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    write_shard(path, 0, (sample(i) for i in range(2)))
    assert read_shard(path, shard=0, first=0, samples=2).index.dtype == INDEX_DTYPE
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    for size in range(0, end + 1, 512):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="no whole shard"):
            read_shard(path, shard=0, first=0, samples=2)


@pytest.mark.parametrize(("first", "samples"), [(0, 1), (0, 3), (1, 2)])
def test_a_shard_of_other_samples(tmp_path: Path, first: int, samples: int) -> None:
    write_shard(tmp_path / "000000.tar", 0, (sample(i) for i in range(2)))
    with pytest.raises(DataError, match="no whole shard"):
        read_shard(tmp_path / "000000.tar", shard=0, first=first, samples=samples)
