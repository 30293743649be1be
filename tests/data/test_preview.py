"""Previews: the files they make, and masks drawn where they are."""

import numpy as np
import pytest
from PIL import Image
from spoilable_export import SpoilableExport

from cardamage.data.preview import preview
from cardamage.errors import ConfigError, DataError
from cardamage.labels import colour


@pytest.fixture
def export(tmp_path) -> SpoilableExport:
    return SpoilableExport(tmp_path / "an export")


def test_sheets_and_single_pictures(export, tmp_path):
    out = tmp_path / "out"
    assert preview(export.folder, out, splits=["train", "test"], limit=5) == 4
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.jpg")) == [
        "sheet-test-001.jpg",
        "sheet-train-001.jpg",
        "test/0000-a_photo.v1.jpg",
        "test/0001-b.jpg",
        "train/0000-a_photo.v1.jpg",
        "train/0001-b.jpg",
    ]


def test_the_mask_lies_where_it_is_annotated(export, tmp_path):
    """40 pixels are drawn 12 times larger, 8 from the left, under a title of 18 and a gap of 8."""
    preview(export.folder, tmp_path / "out", splits=["train"], limit=1)
    with Image.open(tmp_path / "out" / "train" / "0000-a_photo.v1.jpg") as picture:
        drawn = np.asarray(picture, dtype=int)
    photo, masked = drawn[26:386, 8:488], drawn[26:386, 496:976]
    assert photo.shape == masked.shape
    changed = np.abs(photo - masked).max(axis=2) > 40
    rows, columns = np.nonzero(changed)
    assert (rows.min() // 12, rows.max() // 12) == (2, 5)
    assert (columns.min() // 12, columns.max() // 12) == (2, 5)
    # Half the photo's grey, half the colour of the one scratch.
    expected = (photo[36, 36] + np.array(colour(1))) / 2
    assert np.abs(masked[48, 48] - expected).max() < 40


def test_a_limit_spreads_over_the_split(export, tmp_path):
    preview(export.folder, tmp_path / "out", splits=["train"], limit=1)
    assert len(list((tmp_path / "out" / "train").iterdir())) == 1


def test_nothing_is_left_when_an_image_is_broken(export, tmp_path):
    (export.folder / "train" / "b.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.jpg cannot be decoded"):
        preview(export.folder, tmp_path / "out", splits=["train"], limit=5)
    assert [path.name for path in tmp_path.iterdir()] == ["an export"]


def test_a_full_folder_is_refused(export, tmp_path):
    with pytest.raises(ConfigError, match="is not an empty folder"):
        preview(export.folder, export.folder, splits=["train"], limit=5)
