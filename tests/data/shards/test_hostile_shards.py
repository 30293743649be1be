"""Shards made to lie: their checksums fit, and what they describe does not."""

import hashlib
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from cardamage.config import loading
from cardamage.data.shards.manifest import MAX_SIDE
from cardamage.data.shards.reader import ShardReader
from cardamage.data.shards.tar import INDEX_DTYPE, lies_inside, read_shard, write_shard
from cardamage.errors import ConfigError, DataError
from tests.data.shards.test_reader import HEIGHT, WIDTH, sample, write_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "cars-ab", (2,))


def forge(folder: Path, index: bytes, **manifest: object) -> None:
    """Put in another index, and a manifest that has its hash and these values."""
    (folder / "train" / "index.npy").write_bytes(index)
    values = json.loads((folder / "manifest.json").read_text())
    values["splits"]["train"]["index_sha256"] = hashlib.sha256(index).hexdigest()
    values.update(manifest, sha256=None)
    (folder / "manifest.json").write_text(json.dumps(values))


def saved(array: np.ndarray, **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def rows(folder: Path) -> np.ndarray:
    return np.load(folder / "train" / "index.npy")


class Trap:
    """A pickle of this makes a folder when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (self.path,)


def test_a_pickle_for_an_index_is_not_opened(folder, tmp_path):
    forge(folder, saved(np.array([Trap(tmp_path / "opened")] * 2, dtype=object), allow_pickle=True))
    with pytest.raises(DataError, match="does not fit the manifest"):
        ShardReader(folder, "train")
    assert not (tmp_path / "opened").exists()


def test_an_index_that_claims_more_rows_than_memory_holds(folder):
    header = saved(rows(folder)).replace(b"(2,)", b"(9000000000000,)").replace(b" " * 12, b"", 1)
    forge(folder, header)
    with pytest.raises(DataError, match="does not fit the manifest"):
        ShardReader(folder, "train")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x0a\x00((((((((((", b"PK\x03\x04"])
def test_bytes_that_are_no_index(folder, content):
    forge(folder, content)
    with pytest.raises(DataError, match="does not fit the manifest"):
        ShardReader(folder, "train")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shard", 1),
        ("image_offset", 1 << 63),
        ("mask_offset", 2**64 - 1),
        ("info_bytes", 2**32 - 1),
    ],
)
def test_a_row_that_points_outside_its_tar(folder, field, value):
    index = rows(folder)
    index[1][field] = value
    forge(folder, saved(index))
    with pytest.raises(DataError, match="does not fit the manifest"):
        ShardReader(folder, "train")


def test_the_last_byte_of_a_tar_is_inside_it():
    index = np.zeros(1, INDEX_DTYPE)
    index["image_offset"], index["image_bytes"] = 90, 10
    assert lies_inside(index, np.array([100], np.uint64))
    assert not lies_inside(index, np.array([99], np.uint64))
    assert lies_inside(np.zeros(0, INDEX_DTYPE), np.zeros(0, np.uint64))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\1\0IDAT"


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (60_000, 60_000), (WIDTH, 7)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_another_size_is_not_decoded(folder, width, height):
    """A few bytes that stand for gigabytes of pixels, in the place of an image."""
    tar = folder / "train" / "000000.tar"
    index, content = rows(folder), bytearray(tar.read_bytes())
    at, size = int(index[0]["image_offset"]), int(index[0]["image_bytes"])
    content[at : at + size] = png_header(width, height).ljust(size, b"x")
    tar.write_bytes(content)
    index[0]["image_crc32"] = zlib.crc32(content[at : at + size])
    forge(folder, saved(index))
    with ShardReader(folder, "train") as reader, pytest.raises(DataError, match="sample 00000000"):
        reader.read(0)


@pytest.mark.parametrize("info", [b"[]", b"{", b"\xff\xff", b"null"])
def test_an_info_that_is_no_object(folder, info):
    tar = folder / "train" / "000000.tar"
    index, content = rows(folder), bytearray(tar.read_bytes())
    at = int(index[0]["info_offset"])
    content[at : at + len(info)] = info
    index[0]["info_bytes"], index[0]["info_crc32"] = len(info), zlib.crc32(info)
    tar.write_bytes(content)
    forge(folder, saved(index))
    with ShardReader(folder, "train") as reader, pytest.raises(DataError, match="no JSON object"):
        reader.info(0)


@pytest.mark.parametrize("side", [0, -8, MAX_SIDE + 1, 10**30])
def test_a_manifest_of_an_impossible_size(folder, side):
    forge(folder, saved(rows(folder)), image_size=[HEIGHT, side])
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        ShardReader(folder, "train")


def test_the_config_allows_no_larger_size():
    base = {
        "name": "x",
        "data": {"source": "synthetic", "classes": ["dent"], "image_size": [8, MAX_SIDE]},
        "model": {"name": "unet2"},
        "optim": {"name": "adam"},
    }
    loading.parse(base)
    with pytest.raises(ConfigError, match="between 8 and 8192"):
        loading.parse(base, [f"data.image_size=[8, {MAX_SIDE + 8}]"])


def test_a_manifest_nested_deeply(folder):
    (folder / "manifest.json").write_text('{"version": ' + "[" * 100_000)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        ShardReader(folder, "train")


# --- tars


def member(name: str, content: bytes = b"", **fields: object) -> bytes:
    """A tar's header and content."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "first",
    [
        member("00000000.png", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("00000000.png", type=tarfile.LNKTYPE, linkname="../../x"),
        member("00000000.png", type=tarfile.GNUTYPE_SPARSE),
        member("00000000.png", b"20 path=x\n", type=tarfile.XHDTYPE),
        member("00000000.png", b"x", size=1 << 40),
        member("00000000.png", b"x", size=-512),
        member("../00000000.png", b"x"),
        member("/etc/00000000.png", b"x"),
        member(" 0.png", b"x"),
        b"\xff" * 512,
        b"",
    ],
    ids=[
        "link",
        "hard link",
        "sparse",
        "pax",
        "large",
        "back",
        "climbs",
        "rooted",
        "name",
        "x",
        "cut",
    ],
)
def test_members_that_no_shard_has(tmp_path, first):
    path = tmp_path / "000000.tar"
    write_shard(path, 0, [sample(0)])
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        second = archive.getmembers()[1].offset
    path.write_bytes(first + whole[second:])
    with pytest.raises(DataError, match="no whole shard"):
        read_shard(path, shard=0, first=0, samples=1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["000000.tar"]
