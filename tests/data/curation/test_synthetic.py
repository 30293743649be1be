"""The drawn export: what it is made to hold, that it is the same each time, and whole or absent."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.data.coco.export import read_export
from cardamage.data.coco.masks import paint
from cardamage.data.curation.audit import audit
from cardamage.data.curation.synthetic import synthesize, synthetic_source
from cardamage.errors import ConfigError

NAME = re.compile(r"car \d{3}\.[a-z ]+_jpg\.rf\.[0-9a-f]{32}\.jpg")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "cars"
    synthesize(folder, images=20, size=64, seed=3)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_layout_of_a_roboflow_export(drawn):
    export = read_export(drawn)
    assert {name: len(split.images) for name, split in export.splits.items()} == {
        "train": 14,
        "valid": 3,
        "test": 3,
    }
    assert [(c.id, c.name, c.supercategory) for c in export.categories] == [
        (0, "car-damage", "none"),
        (1, "scratch", "car-damage"),
        (2, "dent", "car-damage"),
        (3, "broken lamp", "car-damage"),
    ]
    raw = json.loads((drawn / "train" / "_annotations.coco.json").read_text())
    assert set(raw) == {"info", "licenses", "categories", "images", "annotations"}
    assert all(NAME.fullmatch(image["file_name"]) for image in raw["images"])
    for image in export.splits["train"].images:
        with Image.open(drawn / "train" / image.file_name) as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 64))


def test_it_holds_what_bites_readers(drawn):
    result = audit(drawn)
    assert result.errors == []
    assert result.unused_roots == ["car-damage"]
    kinds = {finding.kind for finding in result.findings}
    assert kinds == {"unused root", "overlap", "image without annotations", "RLE mask"}
    assert {finding.severity for finding in result.findings} == {"note"}
    for split in result.splits.values():
        assert split.overlapped_pixels > 0
        assert all(counts.instances > 0 for counts in split.categories.values())
    annotations = [a for i in read_export(drawn).splits["train"].images for a in i.annotations]
    assert any(annotation.rle for annotation in annotations)
    assert any(len(annotation.polygons) == 2 for annotation in annotations)
    assert sum(len(annotation.polygons) > 0 for annotation in annotations) > len(annotations) / 2


def test_the_rle_has_a_hole(drawn):
    """Background that no path joins to the image's border."""
    image = next(
        i for i in read_export(drawn).splits["train"].images if any(a.rle for a in i.annotations)
    )
    only = [a for a in image.annotations if a.rle]
    mask = paint(type(image)(0, "x", 64, 64, tuple(only)), {2: 2}).mask > 0
    outside = np.zeros_like(mask)
    outside[0] = outside[-1] = outside[:, 0] = outside[:, -1] = True
    for _ in range(200):
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        outside = grown & ~mask
    assert (~mask & ~outside).sum() > 3


def test_damages_stand_out_in_the_picture(drawn):
    """What is annotated looks different from what is not: else nothing could be learnt."""
    split = read_export(drawn).splits["train"]
    of_class = {1: [], 2: [], 3: []}
    for image in split.images:
        with Image.open(drawn / "train" / image.file_name) as picture:
            colours = np.asarray(picture, dtype=float)
        mask = paint(image, {1: 1, 2: 2, 3: 3}).mask
        for class_id, found in of_class.items():
            found.extend(colours[mask == class_id])
    scratch, dent, lamp = (np.mean(found, axis=0) for found in of_class.values())
    assert scratch.min() > 150  # bare metal
    assert dent.max() < 110  # a shadow
    assert lamp[0] - lamp[2] > 60  # orange


def test_equal_seeds_draw_equal_bytes(drawn, tmp_path):
    synthesize(tmp_path / "again", images=20, size=64, seed=3)
    synthesize(tmp_path / "other", images=20, size=64, seed=4)
    assert content(tmp_path / "again") == content(drawn)
    assert content(tmp_path / "other").keys() != content(drawn).keys()


@pytest.mark.parametrize("images", [3, 4, 7])
def test_a_few_images_fill_every_split(tmp_path, images):
    synthesize(tmp_path / "few", images=images, size=32, seed=0)
    export = read_export(tmp_path / "few")
    assert sum(len(split.images) for split in export.splits.values()) == images
    assert all(split.images for split in export.splits.values())


def test_an_empty_folder_is_filled_and_a_full_one_refused(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    synthesize(out, images=3, size=32, seed=0)
    before = content(out)
    with pytest.raises(ConfigError, match="is not an empty folder; empty it or choose a new name"):
        synthesize(out, images=3, size=32, seed=1)
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("images", "size"), [(2, 32), (3, 31), (0, 0), (-1, 96)])
def test_impossible_numbers(tmp_path, images, size):
    with pytest.raises(ConfigError, match="has to be"):
        synthesize(tmp_path / "out", images=images, size=size, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="cannot be written"):
        synthesize(tmp_path / "file" / "out", images=3, size=32, seed=0)


def test_the_source_of_an_experiment_is_drawn_once(tmp_path):
    first = synthetic_source(tmp_path / "shards", images=3, size=32, seed=0)
    stamps = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert synthetic_source(tmp_path / "shards", images=3, size=32, seed=0) == first
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == stamps
    assert synthetic_source(tmp_path / "shards", images=3, size=32, seed=1) != first


def test_what_was_drawn_before_a_kill_is_removed(tmp_path):
    program = (
        "import sys; from pathlib import Path; from cardamage.data.curation.synthetic import *; "
        "synthetic_source(Path(sys.argv[1]), images=40, size=96, seed=0)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    while not list(tmp_path.glob("sources/.*.part/*/car*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert len(list(tmp_path.glob("sources/.*.part"))) == 1

    source = synthetic_source(tmp_path, images=40, size=96, seed=0)
    assert list((tmp_path / "sources").iterdir()) == [source]
    assert len(list(source.glob("*/car*"))) == 40


def test_the_source_of_an_experiment_cannot_be_drawn_into_a_file(tmp_path):
    (tmp_path / "sources").write_text("")
    with pytest.raises(ConfigError, match=r"choose another data\.shards_dir"):
        synthetic_source(tmp_path, images=3, size=32, seed=0)


def test_drawing_is_quick(tmp_path):
    started = time.process_time()
    synthesize(tmp_path / "cars", images=60, size=96, seed=0)
    assert time.process_time() - started < 3
