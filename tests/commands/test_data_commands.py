"""synthesize, audit and preview as a person runs them."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers.spoilable_export import SpoilableExport, annotation


def test_synthesize_audit_preview(program):
    out = program.folder / "my cars"
    program.succeeds("jobs/synthesize.py", out, "--images", 5, "--size", 48, "--seed", 1)
    text = program.succeeds("jobs/audit.py", out)
    for expected in ("train", "scratch", "broken lamp", "48x48", '"car-damage"', "overlapped"):
        assert expected in text
    result = json.loads(program.succeeds("jobs/audit.py", out, "--json"))
    assert sum(split["images"] for split in result["splits"].values()) == 5
    (program.folder / "mine.yaml").write_text(
        "{name: mine, data: {source: my cars, classes: {lamp: [broken lamp]}, "
        "drop: [scratch, dent]}, model: {name: unet}, optim: {name: adam}}"
    )
    (program.folder / "runs" / "mine").mkdir(parents=True)  # of what the file said before
    (program.folder / "runs" / "mine" / "config.yaml").write_text(
        "{name: mine, data: {source: my cars, classes: [scratch]}, model: {name: unet}, "
        "optim: {name: adam}}"
    )
    text = program.succeeds("jobs/audit.py", out, "--config", "mine.yaml")
    assert "Classes" in text
    assert "    lamp " in text
    assert "scratch" not in text
    printed = program.succeeds(
        "jobs/preview.py", out, "--out", "seen", "--split", "valid", "--images", 2
    )
    assert "1 images in seen" in printed
    assert (program.folder / "seen" / "sheet-valid-001.jpg").is_file()


def test_synthesize_refuses(program):
    (program.folder / "full").mkdir()
    (program.folder / "full" / "thesis.txt").write_text("all of it")
    assert "not an empty folder" in program.refuses("jobs/synthesize.py", "full", "--images", 4)
    assert "images is 0" in program.refuses("jobs/synthesize.py", "new", "--images", 0)
    assert [path.name for path in program.folder.iterdir()] == ["full"]


def test_audit_prints_every_error_and_ends_with_two(program):
    export = SpoilableExport(program.folder / "cars")
    export.json["train"]["annotations"].append(annotation(99))
    export.write()
    (export.folder / "valid" / "b.jpg").write_bytes(b"broken")
    result = program("jobs/audit.py", "cars")
    assert result.returncode == 2
    assert "names image 99" in result.stdout
    assert "b.jpg cannot be decoded" in result.stdout
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "cars has 2 kinds of errors, first: train: an annotation names an image" in line


def test_a_missing_folder(program):
    assert "nowhere does not exist" in program.refuses("jobs/audit.py", "nowhere")
    assert "nowhere does not exist" in program.refuses("jobs/preview.py", "nowhere", "--out", "x")
    assert not (program.folder / "x").exists()


def test_preview_refuses_to_draw_nothing(program):
    SpoilableExport(program.folder / "cars")
    refusal = program.refuses("jobs/preview.py", "cars", "--out", "x", "--images", 0)
    assert "--images 0" in refusal


def test_split_as_a_person_runs_it(program):
    program.succeeds("jobs/synthesize.py", "cars", "--images", 9, "--size", 32)
    text = program.succeeds(
        "jobs/split.py", "cars", "new cars", "--shares", 0.6, 0.2, 0.2, "--seed", 4
    )
    assert text.splitlines()[-1] == "new cars"
    assert sum(int(line.split()[1]) for line in text.splitlines()[:3]) == 9
    assert "not an empty folder" in program.refuses("jobs/split.py", "cars", "new cars")
    refusal = program.refuses("jobs/split.py", "cars", "x", "--shares", 1, 1, 1)
    assert "the shares are 1 1 1" in refusal


def test_preview_augmented_draws_what_training_is_given(toy):
    """In toy.yaml's first epochs, to be seen before a run is started again with other steps."""
    words = "--config", "toy.yaml", "--augmented", "--out", "seen", "--images", 6
    assert "augments nothing" in toy.refuses("jobs/preview.py", *words)
    with (toy.folder / "toy.yaml").open("a") as file:
        file.write("augment: [{name: vertical_flip, probability: 1}]\n")
    assert "6 images in seen" in toy.succeeds("jobs/preview.py", *words, "--choose", "damaged")
    sheets = sorted(path.name for path in (toy.folder / "seen").iterdir())
    assert sheets == ["augmented-001.jpg", "augmented-002.jpg"]
    with Image.open(toy.folder / "seen" / "augmented-001.jpg") as sheet:
        drawn = np.asarray(sheet, dtype=int)
    plain, flipped = drawn[90:410, 8:328], drawn[90:410, 336:656]
    assert np.abs(plain - flipped[::-1]).mean() < 3 < np.abs(plain - flipped).mean()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--config", "cars"], "--config CONFIG --augmented"),
        (["cars", "--augmented"], "--config CONFIG --augmented"),
        (["cars", "--config", "cars", "--augmented"], "leave cars out"),
        (["--config", "smoke", "--augmented", "--split", "test"], "--split test"),
        (["--config", "smoke", "--augmented"], "cardamage pack smoke"),
        ([], "name an export"),
    ],
)
def test_preview_says_how_to_draw_augmented_images(program, words, expected):
    assert expected in program.refuses("jobs/preview.py", *words, "--out", "x")
