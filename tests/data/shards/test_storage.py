"""Shards in object storage: a local S3 server, what is kept on the disk, and what goes wrong."""

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cardamage.config.dataset import Storage
from cardamage.data.shards.manifest import read_manifest
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import ConfigError, DataError, MachineFault
from cardamage.runs.paths import ShardPaths
from tests.helpers.small_export import CLASSES, SIZES, packed_export, write_export
from tests.helpers.storage import BUCKET, ObjectStore

URL = f"s3://{BUCKET}/shards"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield store


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return write_export(tmp_path / "cars")


def packed(export: Path, shards_dir: Path, **section: object) -> tuple[Path, Storage]:
    storage = Storage(**{"url": URL, **section})
    folder = pack(
        export, classes=CLASSES, image_size=(16, 24), shards_dir=shards_dir, storage=storage
    )
    return folder, storage


def tars(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("**/*.tar"))


def test_reads_from_storage_what_reads_from_a_disk(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    local = packed_export(tmp_path / "local")
    folder, storage = packed(export, tmp_path / "shards", cache_gb=0)
    assert folder.name == f"{local.name}-stored"
    assert tars(folder) == []
    assert {f"{folder.name}/{name}" for name in tars(local)} < store.names("shards/")
    for split in SIZES:
        with ShardReader(local, split) as one, ShardReader(folder, split, storage=storage) as other:
            for number in range(len(one)):
                assert one.info(number) == other.info(number)
                for mine, theirs in zip(one.read(number), other.read(number), strict=True):
                    assert np.array_equal(mine, theirs)
            assert np.array_equal(one.shown(), other.shown())
    assert tars(folder) == []


def test_what_was_read_once_is_kept_up_to_a_size(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "disk"
    folder, everything = packed(export, tmp_path / "shards", cache_dir=str(cache))
    record = read_manifest(ShardPaths(folder)).splits
    little = everything.model_copy(
        update={"cache_gb": (record["valid"].shards[0].bytes + 1) / 1e9, "cache_dir": str(cache)}
    )
    readers = {split: ShardReader(folder, split, storage=little) for split in ("valid", "train")}
    for reader in readers.values():
        for number in range(len(reader)):
            reader.read(number)
    assert tars(cache / folder.name) == ["valid/000000.tar"]
    asked = store.requests()
    again = {split: ShardReader(folder, split, storage=little) for split in readers}
    again["valid"].read(2)
    assert store.requests() == asked
    again["train"].read(2)
    assert store.requests() == asked + 1  # image, information and mask at once


def test_a_disk_that_keeps_other_bytes_is_not_believed(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    folder, storage = packed(export, tmp_path / "shards")
    with ShardReader(folder, "train", storage=storage) as reader:
        before = reader.read(3)
    kept = folder / "kept" / "train" / "000000.tar"
    kept.write_bytes(os.urandom(kept.stat().st_size))
    with ShardReader(folder, "train", storage=storage) as reader:
        assert np.array_equal(reader.read(3).image, before.image)


def test_another_machine_takes_over_what_was_packed(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    folder, storage = packed(export, tmp_path / "shards")
    written = store.names("shards/")
    there = pack(
        export,
        classes=CLASSES,
        image_size=(16, 24),
        shards_dir=tmp_path / "elsewhere",
        storage=storage,
        workers=0,  # nothing is made
    )
    assert read_manifest(ShardPaths(there)) == read_manifest(ShardPaths(folder))
    assert store.names("shards/") == written
    with ShardReader(there, "test", storage=storage) as reader:
        assert reader.read(0).image.shape == (16, 24, 3)


def test_an_interrupted_packing_keeps_what_is_in_storage(
    store: ObjectStore, export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, _ = packed(export, tmp_path / "shards")
    shutil.rmtree(folder)
    store.delete(f"shards/{folder.name}/manifest.json")
    store.delete(f"shards/{folder.name}/valid/000000.tar")
    with caplog.at_level(logging.INFO, "cardamage"):
        packed(export, tmp_path / "shards")
    assert "kept 2 of 3 shards" in caplog.text
    assert f"{folder.name}/valid/000000.tar" in store.names("shards/")


def test_other_bytes_in_storage_are_noticed(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    folder, storage = packed(export, tmp_path / "shards", cache_gb=0)
    name = f"shards/{folder.name}/train/000000.tar"
    content = store.get(name)
    store.put(name, content[:700] + bytes(len(content) - 700))
    with (
        ShardReader(folder, "train", storage=storage) as reader,
        pytest.raises(DataError, match=f"s3://{BUCKET}/shards/.*sample 00000003"),
    ):
        reader.read(3)
    pack(
        export,
        classes=CLASSES,
        image_size=(16, 24),
        shards_dir=tmp_path / "shards",
        storage=storage,
        check=True,
    )
    assert store.get(name) == content


def test_a_storage_that_cannot_be_reached_is_the_machines_doing(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    folder, storage = packed(export, tmp_path / "shards", cache_gb=0)
    store.stop()
    with (
        ShardReader(folder, "train", storage=storage) as reader,
        pytest.raises(MachineFault, match="cannot be reached"),
    ):
        reader.read(0)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such-bucket/shards", "make the bucket"),
        ("s4://bucket/shards", "s4://bucket/shards is unknown to fsspec"),
        ("s3://No bucket/shards", "cannot be used .*ParamValidationError"),
    ],
)
def test_a_wrong_address_is_one_line(
    url: str, said: str, store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        packed(export, tmp_path / "shards", url=url)


def test_a_storage_may_be_a_mounted_folder(export: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    with pytest.raises(ConfigError, match="is no folder; mount it, or make it"):
        packed(export, tmp_path / "shards", url=url)
    (tmp_path / "bucket").mkdir()
    folder, storage = packed(export, tmp_path / "shards", url=url)
    assert tars(tmp_path / "bucket" / folder.name) == [
        f"{split}/000000.tar" for split in ("test", "train", "valid")
    ]
    with ShardReader(folder, "train", storage=storage) as reader:
        assert reader.read(6).mask.shape == (16, 24)


def test_runs_on_a_disk_and_on_storage_leave_each_other_alone(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    local = pack(export, classes=CLASSES, image_size=(16, 24), shards_dir=tmp_path / "shards")
    before = tars(local)
    folder, storage = packed(export, tmp_path / "shards")
    with ShardReader(folder, "train", storage=storage) as reader:
        reader.read(0)
    assert tars(local) == before
    assert pack(export, classes=CLASSES, image_size=(16, 24), shards_dir=folder.parent) == local
    with ShardReader(local, "train") as reader:
        reader.read(6)


def test_a_packing_that_was_killed_before_its_end_tells_others_of_it_later(
    store: ObjectStore, export: Path, tmp_path: Path
) -> None:
    folder, _ = packed(export, tmp_path / "shards")
    for name in ("manifest.json", "train/index.npy"):
        store.delete(f"shards/{folder.name}/{name}")
    packed(export, tmp_path / "shards")
    assert {f"{folder.name}/manifest.json", f"{folder.name}/train/index.npy"} <= store.names(
        "shards/"
    )


def test_what_the_storage_says_counts(store: ObjectStore, export: Path, tmp_path: Path) -> None:
    folder, _ = packed(export, tmp_path / "shards")
    there = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, there)
    content = (there / "manifest.json").read_text()
    (there / "manifest.json").write_text(content.replace('"Pillow ', '"an older Pillow '))
    packed(export, there.parent)
    assert (there / "manifest.json").read_text() == content


def test_a_cache_that_cannot_be_written_is_told_of_once(
    store: ObjectStore, export: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    folder, storage = packed(export, tmp_path / "shards", cache_dir=str(tmp_path / "file"))
    caplog.clear()
    with ShardReader(folder, "train", storage=storage) as reader:
        for number in range(3):
            reader.read(number)
    told = [record for record in caplog.records if record.name == "cardamage"]
    assert len(told) == 1
    assert "nothing more is kept there" in caplog.text
