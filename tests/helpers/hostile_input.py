"""What a fuzzer feeds the readers of foreign files, and what they must never do with it.

Each ``read_*`` takes one input of any bytes, lays it down as the files of a reader, and reads all
of it as the programs do. Whatever the bytes are, the outcome is a value or a
:class:`~cardamage.errors.CardamageError` of one line that a terminal shows as it is. Any other
exception, and any result that breaks a promise of the reader, leaves as it is: that is a crash.
"""

import json
import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from cardamage.config import experiment as config
from cardamage.config import loading, study, yaml12
from cardamage.data.coco.boxes import settle_boxes
from cardamage.data.coco.categories import map_categories
from cardamage.data.coco.export import scan_export
from cardamage.data.coco.masks import paint
from cardamage.data.coco.records import Export
from cardamage.data.shards.reader import ShardReader
from cardamage.data.shards.tar import INDEX_DTYPE, PARTS, read_shard
from cardamage.errors import CardamageError
from cardamage.launch.planning.profiles import load_profile
from cardamage.runs.paths import SPLITS, ShardPaths

MOST_PAINTED_PIXELS = 1 << 20
"""Larger images are read but not painted, so that an input takes milliseconds."""

OVERRIDES_FROM = b"\x1f"
"""In an input for the config loader this byte, which no YAML holds, begins each override."""

EMPTY_SPLIT = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}],
    "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 6, 1, 6, 6]]}],
    "categories": [{"id": 1, "name": "dent"}],
}
BASE = """\
name: base
data: {source: synthetic, classes: [dent, scratch]}
model: {name: unet2}
optim: {name: adam}
"""


def check_message(text: str) -> None:
    """Fail where a message is not one line, or would make a terminal do something."""
    assert len(text.splitlines()) == 1, f"not one line: {text!r}"
    assert not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in text), f"control: {text!r}"
    text.encode()


def expect_refusal(read: Callable[[], object]) -> object:
    """What ``read`` returns; None where it refuses its input as it should."""
    try:
        return read()
    except CardamageError as error:
        check_message(str(error))
        return None


# --- the COCO reader


def prepare_coco(folder: Path) -> None:
    """Lay down what inputs for :func:`read_coco` do not replace."""
    for split in SPLITS:
        (folder / "export" / split / "sub").mkdir(parents=True)
        for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
            (folder / "export" / split / name).write_bytes(b"not opened")
        text = json.dumps(EMPTY_SPLIT)
        (folder / "export" / split / "_annotations.coco.json").write_text(text)


def read_coco(folder: Path, content: bytes) -> None:
    """An input is the annotation file of one split, or a .zip of a whole export."""
    source = folder / "export"
    if content.startswith(b"PK"):
        source = folder / "export.zip"
        source.write_bytes(content)
    else:
        (source / "train" / "_annotations.coco.json").write_bytes(content)
    export, findings = scan_export(source)
    for finding in findings:
        check_message(finding.message)
        for example in finding.examples:
            check_message(example)
    if export is not None:
        paint_all(export)


def paint_all(export: Export) -> None:
    """Paint every image as packing would."""
    names = sorted({category.name for category in export.categories})
    for name in names:
        check_message(name)
    if not names:
        return
    groups = {name: [name] for name in names}
    classes = expect_refusal(
        lambda: map_categories(export.categories, export.used_categories(), groups)
    )
    assert isinstance(classes, dict)
    for split in export.splits.values():
        assert [image.file_name for image in split.images] == sorted(
            {image.file_name for image in split.images}
        )
        assert len(settle_boxes(split.images, classes, "drop_image")) <= len(split.images)
        for image in settle_boxes(split.images, classes, "paint"):
            check_message(image.file_name)
            assert ".." not in Path(image.file_name).parts
            assert not Path(image.file_name).is_absolute()
            if image.width * image.height > MOST_PAINTED_PIXELS:
                continue
            class_of = {key: min(value, 255) for key, value in classes.items()}
            painted = paint(image, class_of, size=(3, 5), large_first=True)
            assert painted.mask.shape == (image.height, image.width)
            assert painted.mask.dtype == np.uint8


# --- the config loader


def prepare_config(folder: Path) -> None:
    """Lay down the experiment that studies and sweeps build on."""
    (folder / "base.yaml").write_text(BASE)


def read_config(folder: Path, content: bytes) -> None:
    """An input is a file and, each behind :data:`OVERRIDES_FROM`, overrides for it."""
    text, *overrides = content.split(OVERRIDES_FROM)
    given = [override.decode("utf-8", "surrogateescape") for override in overrides]
    path = folder / "input.yaml"
    path.write_bytes(text)
    values = expect_refusal(lambda: yaml12.read_mapping(path))
    if not isinstance(values, dict):
        return
    if "backend" in values:
        expect_refusal(lambda: load_profile(str(path)))
    if loading.is_study(values):
        expanded = expect_refusal(lambda: study.expand(path, values, given))
        experiments = expanded.experiments if isinstance(expanded, study.Study) else ()
    else:
        experiment = expect_refusal(lambda: loading.parse(values, given, where=str(path)))
        experiments = (experiment,) if isinstance(experiment, config.Experiment) else ()
    for experiment in experiments[:3]:
        written = experiment.to_yaml()
        written.encode()
        assert loading.parse(yaml12.load(written)) == experiment
        experiment.hash()


# --- the manifest and shard reader

Parts = tuple[bytes, bytes, bytes, int]
"""Manifest, index, tar, and which of the checksums are made to fit."""

FIX_MANIFEST, FIX_CRCS = 1, 2
_HEAD = struct.Struct("<IIB")


def join_parts(parts: Parts) -> bytes:
    """The parts of a shard folder as one input."""
    manifest, index, tar, flags = parts
    return _HEAD.pack(len(manifest), len(index), flags) + manifest + index + tar


def split_parts(content: bytes) -> Parts:
    """The parts that an input stands for, whatever its bytes are."""
    head = content[: _HEAD.size].ljust(_HEAD.size, b"\0")
    manifest_bytes, index_bytes, flags = _HEAD.unpack(head)
    rest = content[_HEAD.size :]
    index = rest[manifest_bytes : manifest_bytes + index_bytes]
    return rest[:manifest_bytes], index, rest[manifest_bytes + index_bytes :], flags


def prepare_shards(folder: Path) -> None:
    """Make the folder that inputs are laid into."""
    (folder / "shards" / "train").mkdir(parents=True)


def read_shards(folder: Path, content: bytes) -> None:
    """An input is a manifest, an index and a tar; it says whether their checksums shall fit."""
    manifest, index, tar, flags = split_parts(content)
    if flags & FIX_CRCS:
        index = with_right_crcs(index, tar)
    if flags & FIX_MANIFEST:
        manifest = with_right_hashes(manifest, index, tar)
    paths = ShardPaths(folder / "shards")
    paths.manifest.write_bytes(manifest)
    paths.index("train").write_bytes(index)
    paths.shard("train", 0).write_bytes(tar)
    reader = expect_refusal(lambda: ShardReader(paths.root, "train"))
    if isinstance(reader, ShardReader):
        with reader:
            for number in range(min(len(reader), 8)):
                expect_refusal(lambda number=number: check_sample(reader, number))
                info = expect_refusal(lambda number=number: reader.info(number))
                assert info is None or isinstance(info, dict)
    expect_refusal(lambda: read_shard(paths.shard("train", 0), shard=0, first=0, samples=2))


def check_sample(reader: ShardReader, number: int) -> None:
    """Read a sample and check what the reader promises of it."""
    sample = reader.read(number)
    assert sample.image.shape == (*reader.image_size, 3)
    assert sample.mask.shape == reader.image_size


def with_right_hashes(manifest: bytes, index: bytes, tar: bytes) -> bytes:
    """The manifest with the hash of this index and the size of this tar, where it has a place."""
    try:
        values = json.loads(manifest)
        split = values["splits"]["train"]
        split["index_sha256"] = sha256(index).hexdigest()
        split["shards"][0]["bytes"] = len(tar)
        values["sha256"] = None
        return json.dumps(values).encode()
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return manifest


def with_right_crcs(index: bytes, tar: bytes) -> bytes:
    """The index with the CRC-32 of what its rows point at, where it is one."""
    start = 10 + int.from_bytes(index[8:10], "little")  # the header of numpy's format 1.0
    rows = bytearray(index[start:])
    whole = len(rows) // INDEX_DTYPE.itemsize * INDEX_DTYPE.itemsize
    table = np.frombuffer(rows, dtype=INDEX_DTYPE, count=whole // INDEX_DTYPE.itemsize)
    for row in table:
        for part in PARTS:
            offset, size = int(row[f"{part}_offset"]), int(row[f"{part}_bytes"])
            row[f"{part}_crc32"] = zlib.crc32(tar[offset : offset + size])
    return index[:start] + bytes(rows)


READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path, bytes], None]]] = {
    "coco": (prepare_coco, read_coco),
    "config": (prepare_config, read_config),
    "shards": (prepare_shards, read_shards),
}
"""By name: what lays down the folder, and what reads one input in it."""
