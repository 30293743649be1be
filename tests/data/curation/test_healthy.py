"""Photos without damage, from a folder beside the dataset."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.config.loading import load, parse
from cardamage.data.shards.pack import pack
from cardamage.data.shards.reader import ShardReader
from cardamage.errors import DataError
from tests.helpers.small_export import CLASSES, SIZES, write_export


@pytest.fixture
def source(tmp_path) -> Path:
    return write_export(tmp_path / "cars")


def photos(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Photos of noise, some in a folder inside, beside files that are no photos."""
    generator = np.random.default_rng(seed)
    (folder / "more").mkdir(parents=True)
    for number in range(count):
        noise = generator.integers(0, 255, (30, 50, 3), dtype=np.uint8)
        name = f"more/{number}.PNG" if number % 2 else f"{number}.png"
        Image.fromarray(noise).save(folder / name, "PNG")
    (folder / "notes.txt").write_text("not a photo")
    (folder / ".hidden.png").write_bytes(b"not a photo either")
    return folder


def packed(source: Path, healthy: Path | None, **options: object) -> Path:
    return pack(
        source,
        classes=CLASSES,
        image_size=(16, 24),
        shards_dir=source.parent / "shards",
        healthy=healthy,
        **options,
    )


def names(shards: Path, split: str) -> list[str]:
    reader = ShardReader(shards, split)
    return [reader.info(n)["file_name"] for n in range(len(reader))]


def test_are_dealt_to_all_splits_with_empty_masks(source, tmp_path):
    shards = packed(source, photos(tmp_path / "healthy", 20))
    found = {split: names(shards, split) for split in SIZES}
    added = {s: [n for n in part if n.startswith("healthy/")] for s, part in found.items()}
    assert {split: len(part) for split, part in added.items()} == {
        "train": 14,
        "valid": 3,
        "test": 3,
    }
    assert len({name for part in added.values() for name in part}) == 20
    assert {s: len(part) - len(added[s]) for s, part in found.items()} == SIZES
    reader = ShardReader(shards, "train")
    for number, name in enumerate(found["train"]):
        if name.startswith("healthy/"):
            info = reader.info(number)
            assert info["pixels"] == [16 * 24, 0, 0]
            assert (info["width"], info["height"]) == (50, 30)


def test_another_folder_makes_other_shards_and_the_same_one_the_same(source, tmp_path):
    first, second = photos(tmp_path / "a", 6), photos(tmp_path / "b", 7, seed=1)
    made = packed(source, first)
    assert packed(source, first) == made
    assert len({made, packed(source, second), packed(source, None)}) == 3


def test_a_broken_photo_is_refused_or_left_out(source, tmp_path):
    folder = photos(tmp_path / "healthy", 8)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        packed(source, folder)
    shards = packed(source, folder, skip_broken=True)
    every = [name for split in SIZES for name in names(shards, split)]
    assert sum(name.startswith("healthy/") for name in every) == 8


@pytest.mark.parametrize("count", [None, 0, 2])
def test_too_few_photos_are_refused(source, tmp_path, count):
    folder = tmp_path / "healthy"
    if count is not None:
        photos(folder, count)
    with pytest.raises(DataError, match=r"data\.healthy"):
        packed(source, folder)


def test_the_path_counts_from_the_file(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("data: {source: cars, healthy: ../sound, classes: [dent]}\n")
    assert load(file).data.healthy == str(tmp_path.parent / "sound")
    without = parse({"data": {"source": "x", "classes": ["dent"]}})
    assert "healthy" not in without.data.packing()
