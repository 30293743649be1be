"""SECURITY.md tells the limits as they are."""

import importlib
import re
from pathlib import Path

import pytest

from cardamage import labels, yaml12
from cardamage.data import coco, json_stream, segmentation, shards, source
from launch import study

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("an image", f"{source.MAX_PIXELS // 10**6} megapixels, {source.MAX_SIDE:,} a side"),
        ("a photo or zip member", f"{source.MAX_FILE_BYTES >> 30} GiB"),
        ("images, annotations or categories of a split", f"{coco.MAX_RECORDS:,} each"),
        ("one image or annotation as JSON", f"{json_stream.MAX_ITEM_CHARS >> 20} MiB"),
        (
            "the outline of a polygon",
            f"{segmentation.MAX_OUTLINE_PIXELS:,} pixels, {segmentation.MAX_SIDES_AWAY} sides",
        ),
        ("an image as packed", f"{shards.MAX_SIDE:,} pixels a side"),
        ("classes", str(labels.MAX_CLASSES)),
        (
            "a config file",
            f"{yaml12.MAX_BYTES >> 20} MiB, {yaml12.MAX_VALUES:,} values with aliases written out",
        ),
        ("a config file", f"{yaml12.MAX_BRACKETS} open brackets, {yaml12.MAX_DIGITS} digits"),
        ("runs of a study or sweep", f"{study.MAX_RUNS:,}"),
    ],
)
def test_limits(row: str, told: str):
    (line,) = re.findall(rf"^\| {row} \| (.*) \| .* \|$", TEXT, re.MULTILINE)
    assert told in line


def test_limits_are_set_where_it_says():
    places = re.findall(r"((?:`\w+`(?:, )?)+) in \[\w+\.py\]\((\w[\w/]*)\.py\)", TEXT)
    assert len(places) == 8
    for names, path in places:
        module = importlib.import_module(path.replace("/", "."))
        for name in re.findall(r"\w+", names):
            assert hasattr(module, name), name
