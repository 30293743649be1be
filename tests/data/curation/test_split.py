"""Splitting exports that have no splits, or bad ones."""

import hashlib
import json
import math
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cardamage.data.coco.export import read_export, scan_export
from cardamage.data.coco.masks import paint
from cardamage.data.curation.audit import audit
from cardamage.data.curation.copies import stem_of
from cardamage.data.curation.split import split
from cardamage.data.curation.synthetic import synthesize
from cardamage.data.shards.pack import pack
from cardamage.errors import ConfigError, DataError

ANNOTATIONS = "_annotations.coco.json"
SHARES = (0.6, 0.2, 0.2)
CLASSES = {"scratch": ("scratch",), "dent": ("dent",), "lamp": ("broken lamp",)}


@pytest.fixture(scope="module")
def only_train(tmp_path_factory) -> Path:
    """An export with train/ only: 29 drawn cars, four of them as two augmented copies."""
    drawn = tmp_path_factory.mktemp("drawn") / "cars"
    synthesize(drawn, images=42, size=48, seed=3)
    folder = tmp_path_factory.mktemp("only") / "my cars"
    shutil.copytree(drawn / "train", folder / "train")
    path = folder / "train" / ANNOTATIONS
    content = json.loads(path.read_text())
    for image in [i for i in content["images"] if i["id"] in (0, 3, 4, 8)]:
        name = f"{stem_of(image['file_name'])}.rf.copy.jpg"
        number = len(content["images"])
        with Image.open(folder / "train" / image["file_name"]) as photo:
            photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "train" / name)
        content["images"].append({**image, "id": number, "file_name": name})
        content["annotations"].append(
            {
                "id": 1000 + number,
                "image_id": number,
                "category_id": 1,
                "segmentation": [[5, 5, 20, 5, 20, 20, 5, 20]],
                "bbox": [5, 5, 15, 15],
                "reviewed by": "me",
            }
        )
    path.write_text(json.dumps(content))
    (folder / "README.dataset.txt").write_text("Licence: CC BY 4.0")
    return folder


@pytest.fixture(scope="module")
def made(only_train, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "split cars"
    counts = split(only_train, out, shares=SHARES, seed=1)
    assert sum(counts.images.values()) == 34
    assert sum(counts.photos.values()) == 30
    return out


def content_of(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_copies_stay_together_and_nothing_is_lost(only_train, made):
    names = {part.name: {image.file_name for image in part.images} for part in splits(made)}
    stems = [{stem_of(name) for name in group} for group in names.values()]
    assert sum(map(len, stems)) == len(set.union(*stems)) == 30
    (source,) = scan_export(only_train)[0].splits.values()
    assert set.union(*names.values()) == {image.file_name for image in source.images}
    assert [len(group) for group in names.values()] == pytest.approx([20.4, 6.8, 6.8], abs=1.5)


def splits(folder: Path) -> list:
    return list(read_export(folder).splits.values())


def test_images_and_their_masks_are_those_of_the_source(only_train, made):
    (source,) = scan_export(only_train)[0].splits.values()
    before = {image.file_name: image for image in source.images}
    ids = {number: number for number in range(5)}
    for part in splits(made):
        assert sorted(image.id for image in part.images) == list(range(len(part.images)))
        for image in part.images:
            ours, theirs = paint(image, ids), paint(before[image.file_name], ids)
            np.testing.assert_array_equal(ours.mask, theirs.mask)
            path = made / part.name / image.file_name
            assert path.read_bytes() == (only_train / "train" / image.file_name).read_bytes()


def test_records_licences_and_texts_are_kept(only_train, made):
    before = json.loads((only_train / "train" / ANNOTATIONS).read_text())
    after = [json.loads((made / part / ANNOTATIONS).read_text()) for part in ("train", "valid")]
    for content in after:
        assert content["licenses"] == before["licenses"]
        assert content["categories"] == before["categories"]
        assert content["info"] == {
            **before["info"],
            "split": "split [0.6, 0.2, 0.2] with seed 1",
        }
        ids = [annotation["id"] for annotation in content["annotations"]]
        assert ids == list(range(len(ids)))
    reviewed = [a for content in after for a in content["annotations"] if "reviewed by" in a]
    assert reviewed[0]["bbox"] == [5, 5, 15, 15]
    assert (made / "README.dataset.txt").read_text() == "Licence: CC BY 4.0"


def test_categories_keep_their_shares(made):
    shown = {
        part.name: Counter(
            category
            for image in part.images
            for category in {annotation.category_id for annotation in image.annotations}
        )
        for part in splits(made)
    }
    whole = sum(shown.values(), Counter())
    for name, share in zip(shown, SHARES, strict=True):
        for category, count in whole.items():
            assert shown[name][category] == pytest.approx(share * count, abs=2.5)


def test_it_packs_and_audits_clean(made, tmp_path):
    assert {finding.severity for finding in audit(made).findings} == {"note"}
    shards = pack(made, classes=CLASSES, image_size=(16, 16), shards_dir=tmp_path, workers=1)
    assert (shards / "manifest.json").is_file()


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


def test_every_layout_splits_alike(only_train, made, tmp_path):
    """As one folder, as a .zip of train/ and as a .zip of one folder; not a byte differs."""
    flat = Path(shutil.copytree(only_train / "train", tmp_path / "flat"))
    shutil.copy(only_train / "README.dataset.txt", flat)
    before = content_of(flat)
    for number, source in enumerate(
        [flat, zipped(only_train, tmp_path / "a.zip"), zipped(flat, tmp_path / "b.zip")]
    ):
        out = tmp_path / f"out{number}"
        split(source, out, shares=SHARES, seed=1, workers=1)
        assert content_of(out) == content_of(made)
    assert content_of(flat) == before


def test_another_seed_makes_another_split(only_train, made, tmp_path):
    split(only_train, tmp_path / "out", shares=SHARES, seed=2, workers=1)
    assert content_of(tmp_path / "out").keys() != content_of(made).keys()


def test_an_export_with_splits_is_split_anew(tmp_path):
    """A photo saved anew stands in train and in test, and no longer does afterwards."""
    synthesize(tmp_path / "cars", images=12, size=64, seed=0)
    first = min((tmp_path / "cars" / "train").glob("*.jpg"))
    second = min((tmp_path / "cars" / "test").glob("*.jpg"))
    with Image.open(first) as image:
        image.save(second, quality=70)
    assert "same look in splits" in {f.kind for f in audit(tmp_path / "cars").findings}
    split(tmp_path / "cars", tmp_path / "out", shares=(0.5, 0.25, 0.25))
    found = {f.kind for f in audit(tmp_path / "out").findings if f.severity != "note"}
    assert "same look in a split" in found
    assert "same look in splits" not in found
    assert len(list((tmp_path / "out").rglob("*.jpg"))) == 12


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5, 0.5), (1, 0, 0), (1.2, -0.1, -0.1), (0.5, 0.5), (0.5, math.nan, 0.5)]
)
def test_shares_that_cannot_be(only_train, tmp_path, shares):
    with pytest.raises(ConfigError, match="give three above 0 that make 1 together"):
        split(only_train, tmp_path / "out", shares=shares)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_split(only_train, tmp_path):
    source = Path(shutil.copytree(only_train, tmp_path / "cars"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("all of it")
    with pytest.raises(ConfigError, match="not an empty folder"):
        split(source, tmp_path / "full", shares=SHARES)
    with pytest.raises(ConfigError, match="stays as it is; choose another place"):
        split(source, source / "train" / "out", shares=SHARES)
    with pytest.raises(DataError, match="does not exist"):
        split(tmp_path / "nowhere", tmp_path / "out", shares=SHARES)

    broken = min((source / "train").glob("*.jpg"))
    whole = broken.read_bytes()
    broken.write_bytes(whole[:300])
    with pytest.raises(DataError, match="cannot be decoded"):
        split(source, tmp_path / "out", shares=SHARES)
    broken.unlink()
    with pytest.raises(DataError, match="an image is listed but its file is missing"):
        split(source, tmp_path / "out", shares=SHARES)
    broken.write_bytes(whole)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["cars", "full"]


def test_two_images_of_one_name_are_kept_apart(only_train, tmp_path):
    source = Path(shutil.copytree(only_train, tmp_path / "cars"))
    shutil.copytree(source / "train", source / "valid")
    made = split(source, tmp_path / "out", shares=SHARES)
    assert sum(made.images.values()) == 68
    names = {i.file_name for part in splits(tmp_path / "out") for i in part.images}
    assert {name.partition("/")[0] for name in names} == {"train", "valid"}


@pytest.mark.parametrize(("photos", "fits"), [(3, True), (2, False)])
def test_each_split_gets_a_photo(tmp_path, photos, fits):
    synthesize(tmp_path / "cars", images=9, size=32, seed=0)
    folder = tmp_path / "cars" / "train"
    content = json.loads((folder / ANNOTATIONS).read_text())
    kept = [image["id"] for image in content["images"][:photos]]
    content["images"] = content["images"][:photos]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    (folder / ANNOTATIONS).write_text(json.dumps(content))
    if fits:
        made = split(folder, tmp_path / "out", shares=(0.98, 0.01, 0.01))
        assert made.images == {"train": 1, "valid": 1, "test": 1}
    else:
        with pytest.raises(DataError, match="has 2 different photos; "):
            split(folder, tmp_path / "out", shares=SHARES)


def test_packing_names_the_way_out(only_train, tmp_path):
    with pytest.raises(DataError, match=r"found train/.*`cardamage split '.*my cars' OUT`"):
        pack(only_train, classes=CLASSES, image_size=(16, 16), shards_dir=tmp_path)
