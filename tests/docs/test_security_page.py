"""SECURITY.md tells the limits as they are."""

import importlib
import re
from pathlib import Path

import pytest

from cardamage import labels
from cardamage.config import study_file
from cardamage.data import images
from cardamage.data.coco import segmentation, source
from cardamage.data.shards import manifest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("an image", f"{images.MAX_PIXELS // 10**6} megapixels, {images.MAX_SIDE:,} a side"),
        ("a photo or zip member", f"{source.MAX_FILE_BYTES >> 30} GiB"),
        (
            "the outline of a polygon",
            f"{segmentation.MAX_OUTLINE_PIXELS:,} pixels, {segmentation.MAX_SIDES_AWAY} sides",
        ),
        ("an image as packed", f"{manifest.MAX_SIDE:,} pixels a side"),
        ("classes", str(labels.MAX_CLASSES)),
        ("runs of a study or sweep", f"{study_file.MAX_RUNS:,}"),
    ],
)
def test_limits(row: str, told: str):
    (line,) = re.findall(rf"^\| {row} \| (.*) \| .* \|$", TEXT, re.MULTILINE)
    assert told in line


def test_limits_are_set_where_it_says():
    places = re.findall(r"((?:`\w+`(?:, )?)+) in \[\w+\.py\]\((\w[\w/]*)\.py\)", TEXT)
    assert len(places) == 7
    for names, path in places:
        module = importlib.import_module(path.replace("/", "."))
        for name in re.findall(r"\w+", names):
            assert hasattr(module, name), name
