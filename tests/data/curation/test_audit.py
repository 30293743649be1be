"""What an audit counts and finds, on exports counted by hand."""

import json

import pytest

from cardamage.data.curation import audit as audit_module
from cardamage.data.curation.audit import CategoryCounts, audit
from cardamage.data.curation.display import show
from cardamage.data.curation.kept import keep
from cardamage.errors import DataError
from tests.helpers.spoilable_export import SQUARE, SpoilableExport, annotation, jpeg


@pytest.fixture
def export(tmp_path) -> SpoilableExport:
    return SpoilableExport(tmp_path / "an export")


def messages(result, kind: str) -> list[str]:
    return [finding.message for finding in result.findings if finding.kind == kind]


def test_counts_by_hand(export):
    """The square of corners 2..6 has 4 x 4 pixels; shifted by 2 it overlaps by 2 x 4."""
    shifted = [x + 2 if i % 2 == 0 else x for i, x in enumerate(SQUARE)]
    train = export.json["train"]
    train["annotations"] = [
        annotation(0),
        annotation(0, [shifted], category_id=2),
        annotation(0, [shifted], category_id=2),
        annotation(0, []),
    ]
    export.write()
    result = audit(export.folder)
    counts = result.splits["train"]
    assert (counts.images, counts.annotations, counts.images_without_annotations) == (2, 4, 1)
    assert counts.sizes == {"40x30": 2}
    assert counts.pixels == 2400
    assert counts.categories == {
        "scratch": CategoryCounts(images=1, instances=2, pixels=8),
        "dent": CategoryCounts(images=1, instances=2, pixels=16),
    }
    assert counts.overlapped_pixels == 16  # where the scratch is covered, and under the copy
    assert counts.skipped_annotations == 1
    assert result.unused_roots == ["car-damage"]
    assert result.errors == []
    assert messages(result, "overlap")[0].startswith("train: pixels are covered by more than one")
    assert result.splits["test"].categories["dent"] == CategoryCounts(1, 1, 16)


def test_json_is_plain(export):
    content = json.loads(json.dumps(audit(export.folder).to_json()))
    assert content["splits"]["valid"]["categories"]["dent"]["instances"] == 1
    assert content["unused_roots"] == ["car-damage"]
    assert "unused root" in [finding["kind"] for finding in content["findings"]]


def test_a_broken_and_a_wrongly_sized_image_are_errors(export):
    (export.folder / "valid" / "b.jpg").write_bytes(jpeg()[:300])
    (export.folder / "test" / "b.jpg").write_bytes(jpeg(width=20))
    result = audit(export.folder)
    assert [error.split for error in result.errors] == ["valid", "test"]
    (broken,), (resized,) = messages(result, "broken image"), messages(result, "size mismatch")
    assert "b.jpg cannot be decoded" in broken
    assert broken.count("; replace it, or leave it out with data.skip_broken: true") == 1
    assert "'b.jpg' is 20x30, annotated as 40x30" in resized


def test_copies_across_splits(export):
    for split in ("train", "valid"):
        name = f"b_jpg.rf.{split * 4}.jpg"
        (export.folder / split / "b.jpg").rename(export.folder / split / name)
        export.json[split]["images"][1]["file_name"] = name
        export.write(split)
    same = (export.folder / "train" / "a photo.v1.jpg").read_bytes()
    (export.folder / "test" / "a photo.v1.jpg").write_bytes(same)
    (export.folder / "valid" / "a photo.v1.jpg").write_bytes(jpeg(shade=7))
    result = audit(export.folder)
    (stem,) = messages(result, "same stem in splits")
    assert "train/'b_jpg.rf.traintraintraintrain.jpg', valid/'b_jpg.rf." in stem
    (copy,) = messages(result, "same content in splits")
    assert "train/'a photo.v1.jpg', test/'a photo.v1.jpg'" in copy
    assert result.errors == []


def test_a_copy_within_a_split(export):
    same = (export.folder / "train" / "b.jpg").read_bytes()
    (export.folder / "train" / "a photo.v1.jpg").write_bytes(same)
    assert messages(audit(export.folder), "same look in a split") == []
    assert (
        "train: the same image is in the split twice"
        in messages(audit(export.folder), "same content in a split")[0]
    )


def test_errors_and_all_that_can_be_counted(export):
    (export.folder / "train" / "b.jpg").unlink()
    export.json["valid"]["annotations"].append(annotation(99))
    export.write("valid")
    (export.folder / "test" / "_annotations.coco.json").write_text("{")
    result = audit(export.folder)
    assert {error.kind for error in result.errors} == {
        "missing file",
        "missing image",
        "broken annotations",
    }
    assert list(result.splits) == ["train", "valid"]
    assert result.splits["train"].images == 1


def test_nothing_to_read(tmp_path):
    result = audit(tmp_path / "nowhere")
    assert result.splits == {}
    assert [error.kind for error in result.errors] == ["unreadable source"]


def test_processes_count_as_one_process_does(export, tmp_path):
    train = export.json["train"]
    for number in range(2, 70):
        name = f"{number}.jpg"
        (export.folder / "train" / name).write_bytes(jpeg(shade=number))
        train["images"].append({"id": number, "file_name": name, "width": 40, "height": 30})
        train["annotations"].append(annotation(number, category_id=1 + number % 2))
    export.write()
    archive = export.zipped(tmp_path / "cars.zip")
    one, two = audit(archive, workers=1), audit(archive, workers=2)
    assert one == two
    assert one.splits["train"].categories["scratch"].pixels == 35 * 16
    assert audit_module._FEW < 74


def test_a_category_that_is_named_like_the_unused_root(export):
    """Used under one id, an unused root under another: only the latter is left out."""
    for split in ("train", "valid", "test"):
        export.json[split]["categories"].append(
            {"id": 9, "name": "car-damage", "supercategory": "none"}
        )
        export.write(split)
    export.json["train"]["annotations"].append(annotation(0, category_id=9))
    export.write()
    result = audit(export.folder)
    assert result.splits["train"].categories["car-damage"].instances == 1


def test_classes_are_counted_as_they_would_be_packed(export):
    """The scratch of 4 x 4 pixels lies half under a dent; as one class they cover 6 x 4."""
    shifted = [x + 2 if i % 2 == 0 else x for i, x in enumerate(SQUARE)]
    export.json["train"]["annotations"].append(annotation(0, [shifted], category_id=2, id=9))
    export.write()
    grouped = audit(export.folder, classes={"damage": ("scratch", "dent")}).splits["train"]
    assert grouped.categories == {"damage": CategoryCounts(images=2, instances=3, pixels=40)}
    assert grouped.overlapped_pixels == 8
    dropped = audit(export.folder, classes={"kratzer": ("scratch",)}, drop=["dent"])
    counts = dropped.splits["train"]
    assert counts.categories == {"kratzer": CategoryCounts(images=1, instances=1, pixels=16)}
    assert (counts.images_without_annotations, counts.overlapped_pixels) == (1, 0)


def test_classes_that_do_not_suit_the_export(export):
    with pytest.raises(DataError, match=r'neither data\.classes nor .*\["dent"\]'):
        audit(export.folder, classes={"scratch": ("scratch",)})


@pytest.mark.parametrize("around", ["", "cars v3/"])
def test_one_folder_without_splits_counts_as_train(export, tmp_path, around):
    (export.folder / "train" / "README.roboflow.txt").write_text("It includes 3 images.")
    flat = SpoilableExport.__new__(SpoilableExport)
    flat.folder = export.folder / "train"
    for source in (flat.folder, flat.zipped(tmp_path / "flat.zip", around)):
        result = audit(source)
        assert result.splits["train"].images == 2
        assert [e.kind for e in result.errors] == ["missing split"]
        assert messages(result, "unlisted file") == []
        (promise,) = messages(result, "other number of images")
        assert "'README.roboflow.txt' says 3, the annotation files list 2" in promise


def test_a_verdict_comes_first_and_findings_are_kept(export, tmp_path, capsys):
    assert audit(export.folder).verdict == "can be trained on; nothing is wrong"
    copied = (export.folder / "train" / "b.jpg").read_bytes()
    for split in ("valid", "test"):
        (export.folder / split / "b.jpg").write_bytes(copied)
        export.json[split]["annotations"] += [annotation(0, [[1, 2, 3, 4]], id=n) for n in range(9)]
        export.write(split)
    result = audit(export.folder)
    # short polygons and their ids given twice in both splits, and the copies
    assert result.verdict == "can be trained on; 4 things to look at"
    show(result, classes=False)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{export.folder}: {result.verdict}"
    at = lines.index("  classes:")
    assert lines[at + 1 : at + 3] == ["    - scratch", "    - dent"]
    assert sum("it is not painted" in line for line in lines) == 1
    (tmp_path / "look-alikes-009.jpg").write_bytes(b"of an earlier audit")
    (tmp_path / "thesis.txt").write_text("all of it")
    kept = keep(result, tmp_path)
    assert [path.name for path in kept] == ["audit.json", "look-alikes-001.jpg"]
    assert {"audit.json", "look-alikes-001.jpg", "thesis.txt"} <= {
        p.name for p in tmp_path.iterdir()
    }
    assert not (tmp_path / "look-alikes-009.jpg").exists()
    found = json.loads((tmp_path / "audit.json").read_text())["findings"]
    (short,) = (f for f in found if (f["kind"], f["split"]) == ("short polygon", "test"))
    assert len(short["examples"]) == short["count"] == 9


def test_an_export_with_errors_cannot_be_trained_on(export):
    (export.folder / "train" / "b.jpg").unlink()
    assert audit(export.folder).verdict.startswith("cannot be trained on; 1 thing to mend")
